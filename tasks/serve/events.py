"""Server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi.responses import StreamingResponse

from tasks.serve.talking import Text


def event(value: Any) -> str:
    """One of them; a string stands as it is."""
    return f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n"


class Events(StreamingResponse):
    """Events of texts that grow, which end when nobody reads them any more, even before the first.

    Args:
        events: in turn.
        texts: that they tell of.
    """

    def __init__(self, events: AsyncIterator[str], texts: Sequence[Text]) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={"cache-control": "no-store"}
        )
        self.texts = texts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            for text in self.texts:
                text.close()

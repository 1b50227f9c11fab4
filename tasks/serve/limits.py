"""How much one request, and all of them together, may ask for; and how a request is refused."""

from __future__ import annotations

from dataclasses import dataclass

TEXT = 10_000
"""Characters of a text."""
INPUTS = 64
"""Texts or pictures of a request."""
FRAMES = 64
"""Pictures of a clip."""
STEPS = 5_000
"""Of a numeric series."""
CHANNELS = 256
"""Of a numeric series."""
SHOWN = 256
"""Tokens of a text whose attention is shown: the map grows by their square."""


@dataclass(frozen=True)
class Limits:
    """What the server takes.

    Args:
        body: bytes of a request.
        bodies: bytes of all requests that are being read or answered.
        pixels: of a picture.
        held: pixels of all pictures that wait in the queue of a model, and of those of one request.
        queue: requests that wait for a model.
        batch: inputs that are given to a model together, and texts that grow side by side.
        wait: seconds that a request waits for others to come with.
        new_tokens: of a text that is generated.
    """

    body: int = 24 << 20
    bodies: int = 256 << 20
    pixels: int = 16_000_000
    held: int = 64_000_000
    queue: int = 256
    batch: int = 32
    wait: float = 0.004
    new_tokens: int = 1024


class RefusedError(Exception):
    """A request that is not answered: an HTTP status and one sentence.

    Args:
        field: the part of the request that is to blame, where it is known.
    """

    def __init__(self, status: int, said: str, field: str | None = None) -> None:
        super().__init__(said)
        self.status, self.said, self.field = status, said, field


def too_busy(what: str) -> RefusedError:
    """Somebody who asks again later will be answered."""
    return RefusedError(429, f"{what}: try again in a moment.")

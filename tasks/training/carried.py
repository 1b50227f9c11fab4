"""What a model itself carries for inference, where no data module of ours says it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from family.models.member import longest_text


def carried_assets(model: Any) -> dict[str, Any]:
    """Plain values as :meth:`tasks.data.base.FamilyData.assets` gives them, from a model's ``labels``,
    ``tokenizer`` and ``preprocess``; what it has not is left out."""
    assets: dict[str, Any] = {}
    tokenizer = getattr(model, "tokenizer", None)
    preprocess, labels = getattr(model, "preprocess", None), getattr(model, "labels", None)
    if tokenizer is not None:
        longest = min(longest_text(getattr(model, "text", model)), tokenizer.max_tokens or 1 << 30)
        assets["tokenizers"] = {
            "text": tokenizer.to_json(),
            "source": tokenizer.to_json(),
            "target": tokenizer.target.to_json(),
        }
        assets["max_tokens"] = int(min(longest, 1 << 30))
    if preprocess is not None:
        assets["preprocess"] = asdict(preprocess)
    if labels is not None:
        assets["labels"] = list(labels)
        assets["category_ids"] = list(range(len(labels)))
    if hasattr(model, "bos_id"):
        assets["start_id"] = model.bos_id
    return assets

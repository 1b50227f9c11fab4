"""Texts with spans left out, to be written by a decoder (Raffel et al. 2020, section 3.1.4)."""

from __future__ import annotations

from itertools import count, takewhile
from typing import Any

from torch.utils.data import DataLoader

from family.inputs.tokenizer import Tokenizer
from tasks.data.language_modeling import LanguageModelingData
from tasks.data.sampling import ExampleBatches, batch_loader
from tasks.data.spans import CorruptedChunks, fitting
from tasks.data.tokenizers import SPECIALS
from tasks.errors import UserError, at_least

SENTINEL = "<extra_id_{}>"
"""What stands for the first, second ... span that is left out, as published."""
SENTINELS = tuple(SENTINEL.format(i) for i in range(100))
"""Those of tokenizers that are trained here, as many as the published have."""


class SpanCorruptionData(LanguageModelingData):
    """Texts as :class:`~tasks.data.language_modeling.LanguageModelingData` reads them, in chunks of which
    spans are left out: 15 % of the tokens, in spans of 3 on average. A chunk is as long as the original's
    formula has it (568 tokens for a ``context`` of 512), so that what is left, with a sentinel in the place
    of each span and the end-of-text token, fills the ``context``. It is drawn anew in each epoch of
    training, and is always the same in validation and test.

    The original cuts its chunks out of texts that follow each other; here no chunk crosses from a text into
    the next, and one at the end of a text is shorter: its spans are anywhere, while the original's chunks
    always end in one. Of a single token, which would leave nothing, there is none.

    A batch:

    - ``source (batch, tokens)`` int64: what is left, sentinels and the end, padded at the right to the
      longest row, ``context`` at most;
    - ``source_mask (batch, tokens)`` bool: True = a token;
    - ``target (batch, tokens)`` int64: what the decoder reads, its first token and then the labels;
    - ``labels (batch, tokens)`` int64: each sentinel and the span that it stands for, and the end; -100 at
      padding.

    Args:
        root, val_fraction, cache, separator: as there. ``separator="\\n"`` makes each line a text.
        tokenizer: "bpe", "unigram" or "char", trained on the training split alone, with ``<extra_id_0>`` to
            ``<extra_id_99>``; or one that exists and has enough of these, by the path of a
            ``tokenizer.json``, a folder, a run or a published source.
        vocab_size: for bpe and unigram.
        context: tokens of a source.
        batch_size: chunks of a batch.
        columns: see :class:`~tasks.data.text_data.TextData`; {text: article}.
        noise_density: the share of the tokens that is left out.
        mean_noise_span_length: of the spans, in tokens.
    """

    task = "SpanCorruption"
    layout = b"spans"

    def __init__(
        self,
        root: str | None = None,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        context: int = 512,
        batch_size: int = 32,
        val_fraction: float = 0.1,
        cache: str = ".cache/tokens",
        seed: int = 0,
        separator: str | None = None,
        noise_density: float = 0.15,
        mean_noise_span_length: float = 3.0,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__(
            root,
            tokenizer,
            vocab_size,
            context,
            batch_size,
            val_fraction,
            cache,
            seed,
            separator,
            columns=columns,
        )
        at_least(1, mean_noise_span_length=mean_noise_span_length)
        if not 0 < noise_density < 1:
            raise UserError(f"data.noise_density must be between 0 and 1, not {noise_density}.")
        self.noise = noise_density, mean_noise_span_length
        self.lengths = fitting(context, *self.noise)
        self.start_id: int | None = None
        """What a published model's decoder starts from; None is the padding, as published."""
        given = f"data.context={context} with noise_density={noise_density} and "
        given += f"mean_noise_span_length={mean_noise_span_length}"
        if self.lengths.spans == 0:
            raise UserError(f"{given} leaves no span out: make context larger.")
        if self.lengths.spans > self.lengths.tokens - self.lengths.noise:
            raise UserError(f"{given} leaves nothing between the spans: make one of them smaller.")

    def assets(self) -> dict[str, Any]:
        tokenizer = self._tokenizer()
        ends = {"eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
        return {
            "tokenizers": {"text": tokenizer.to_json()},
            "start_id": self._start(),
            "generation": self.generation or ends,
        }

    def use_assets(self, assets: dict[str, Any]) -> None:
        super().use_assets(assets)
        self.joined = False  # each text was one by itself from the beginning
        self.start_id = assets.get("start_id")
        self._check("of the checkpoint")

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            super()._tokenizer()
            self._check(f"data.tokenizer={self.kind!r}")
        assert self.tokenizer is not None
        return self.tokenizer

    def _check(self, called: str) -> None:
        """Refuse a tokenizer that cannot mark what is left out, or ends.

        Raises:
            UserError: see above.
        """
        tokenizer, needed = self.tokenizer, self.lengths.spans
        assert tokenizer is not None
        if None in (tokenizer.eos_id, tokenizer.pad_id):
            raise UserError(f"the tokenizer {called} names no eos_token and pad_token.")
        found = len(sentinels(tokenizer))
        if found < needed:
            raise UserError(
                f"the tokenizer {called} has {found} sentinels, but data.context={self.context} leaves "
                f"{needed} spans out: it needs {SENTINEL.format(0)} to {SENTINEL.format(needed - 1)}."
            )

    def _specials(self) -> tuple[str, ...]:
        return (*SPECIALS, *SENTINELS)

    def _behind(self, tokenizer: Tokenizer) -> list[int]:
        return sentinels(tokenizer)[:1]  # which no text has

    def _start(self) -> int:
        start = self._tokenizer().pad_id if self.start_id is None else self.start_id
        assert start is not None
        return start

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``vocab_size``, and ``bos_id``, the token that decoding starts from."""
        return {**super().model_arguments, "bos_id": self._start()}

    def loader(self, split: str) -> DataLoader[Any]:
        tokenizer, training = self._tokenizer(), split == "train"
        marks = sentinels(tokenizer)
        chunks = CorruptedChunks(
            self.tokens(split),
            marks[0] if self.several() else None,
            self.lengths.tokens,
            self.noise,
            marks,
            (self._start(), tokenizer.eos_id or 0, tokenizer.pad_id or 0),
            self.order_seed if training else self.seed,
        )
        if not len(chunks):
            raise UserError(f"the {split} split of {self.root} has no text of two tokens.")
        batches = ExampleBatches(
            len(chunks), self.batch_size, training, self.order_seed, self.progress
        )
        return batch_loader(chunks, batches, num_workers=0)

    def predict_dataloader(self) -> DataLoader[Any]:
        raise UserError(
            "span corruption prepares a model: train it on with tasks.TextToText and "
            "model.pretrained, and use family generate."
        )


def sentinels(tokenizer: Tokenizer) -> list[int]:
    """The ids of a tokenizer's sentinels, the first span's first."""
    ids = (tokenizer.token_to_id(SENTINEL.format(i)) for i in count())
    return [i for i in takewhile(lambda i: i is not None, ids) if i is not None]

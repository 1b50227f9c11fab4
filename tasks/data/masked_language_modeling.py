"""Texts with tokens hidden, to be guessed from both sides."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from family.inputs.encode import with_ends
from family.inputs.tokenizer import Tokenizer
from tasks.data.language_modeling import LanguageModelingData
from tasks.data.masking import MASKED, RANDOM, vocabulary_of
from tasks.data.packing import MaskedWindows
from tasks.data.sampling import ExampleBatches, batch_loader
from tasks.data.tokenizers import MASK, SPECIALS
from tasks.errors import UserError, between


class MaskedLanguageModelingData(LanguageModelingData):
    """Texts as :class:`~tasks.data.language_modeling.LanguageModelingData` reads them, packed into windows
    of ``context`` tokens, 15 % of which are hidden (Devlin et al. 2019, section 3.1): 80 % of these behind
    the mask token, 10 % behind any other, and 10 % stay as they are. Special tokens and padding are never
    hidden. It is drawn anew in each epoch of training, and is always the same in validation and test.

    Each text stands between the special tokens that its tokenizer adds ([CLS] and [SEP]; <bos> and <eos>
    where it is trained here). A text that is longer than a window is cut into several; of shorter ones a
    window holds as many as follow each other and fit, and none sees another.

    A batch:

    - ``input_ids (batch, context)`` int64: padded at the right;
    - ``labels (batch, context)`` int64: what stood where a token is hidden, -100 elsewhere;
    - ``mask (batch, context)`` bool: True = a token;
    - ``documents (batch, context)`` int64, where a window holds several texts: the number of each
      token's, -1 for padding.

    Args:
        root, val_fraction, cache, separator: as there. ``separator="\\n"`` makes each line a text.
        tokenizer: "bpe", "unigram", "word" or "char", trained on the training split alone; or one that exists and
            has a mask token, by the path of a ``tokenizer.json``, a folder, a run or a published source.
        vocab_size: for all but char.
        context: tokens of a window, special ones included.
        batch_size: windows of a batch.
        whole_words: hide all tokens of a word or none; 15 % of the tokens as near as words allow.
        columns: see :class:`~tasks.data.text_data.TextData`; {text: article}.
        masked, random: shares of the hidden tokens that become the mask token, and any other; the rest
            stays as it is. ELECTRA's generator has 0.85 and 0 (its authors' code; the paper says all).
    """

    task = "MaskedLanguageModeling"
    layout = b"masked"

    def __init__(
        self,
        root: str | None = None,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        context: int = 128,
        batch_size: int = 32,
        val_fraction: float = 0.1,
        cache: str = ".cache/tokens",
        seed: int = 0,
        separator: str | None = None,
        whole_words: bool = False,
        masked: float = MASKED,
        random: float = RANDOM,
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
        between(0, 1, masked=masked, random=random)
        if masked + random > 1:
            raise UserError(
                f"data.masked={masked} and data.random={random} are shares of the same tokens: together "
                "they must be 1 at most."
            )
        self.whole_words, self.shares = whole_words, (masked, random)

    def assets(self) -> dict[str, Any]:
        return {"tokenizers": {"text": self._tokenizer().to_json()}}

    def use_assets(self, assets: dict[str, Any]) -> None:
        super().use_assets(assets)
        self.joined = False  # each text was one by itself from the beginning
        assert self.tokenizer is not None
        prepared(self.tokenizer, "of the checkpoint")

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            prepared(super()._tokenizer(), f"data.tokenizer={self.kind!r}")
        assert self.tokenizer is not None
        return self.tokenizer

    def _specials(self) -> tuple[str, ...]:
        return (*SPECIALS, MASK)

    def _behind(self, tokenizer: Tokenizer) -> list[int]:
        assert tokenizer.mask_id is not None
        return [tokenizer.mask_id]  # which no text has

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        around = sum(map(len, ends_of(self._tokenizer())))
        if self.context <= around:
            raise UserError(
                f"data.context={self.context} leaves no room for a text: its special tokens alone are "
                f"{around}."
            )

    def loader(self, split: str) -> DataLoader[Any]:
        tokenizer, training = self._tokenizer(), split == "train"
        windows = MaskedWindows(
            self.tokens(split),
            tokenizer.mask_id if self.several() else None,
            self.context,
            ends_of(tokenizer),
            tokenizer.pad_id or 0,
            vocabulary_of(tokenizer),
            self.whole_words,
            self.order_seed if training else self.seed,
            self.shares,
        )
        batches = ExampleBatches(
            len(windows), self.batch_size, training, self.order_seed, self.progress
        )
        return batch_loader(windows, batches, num_workers=0)

    def predict_dataloader(self) -> DataLoader[Any]:
        raise UserError("a masked language model fills gaps in texts: use family fill.")


def prepared(tokenizer: Tokenizer, called: str) -> None:
    """Make a tokenizer put special tokens around texts, if it can hide tokens.

    Raises:
        UserError: it has no mask token.
    """
    if tokenizer.mask_id is None:
        raise UserError(
            f"the tokenizer {called} has no mask token: masked language modelling needs one with a "
            "mask_token, or data.tokenizer=bpe, unigram, word or char, which is trained with one."
        )
    with_ends(tokenizer)


def ends_of(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and behind a text."""
    found = tokenizer.inner.encode("a", add_special_tokens=True)
    text = [i for i, special in enumerate(found.special_tokens_mask) if not special]
    return found.ids[: text[0]], found.ids[text[-1] + 1 :]

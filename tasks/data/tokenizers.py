"""Tokenizers, trained on the training split and kept with the checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from family.inputs.chat import CHATML, TURNS
from family.inputs.tokenizer import TRAINED, Tokenizer
from family.pretrained.tokenizers import find_tokenizer
from tasks.errors import UserError, closest

Kind = Literal["bpe", "unigram", "word", "char"]
SPECIALS = tuple(TRAINED.values())
NAMES: dict[str, Any] = dict(TRAINED)
RUN = 2000
"""Characters without white space from which on learning takes the square of their number."""
LONG_RUN = re.compile(rf"\S{{{RUN}}}(?=\S)")
MASK = "<mask>"
"""What stands for a token that is to be guessed, in tokenizers that are trained for that."""


def make_tokenizer(
    source: str,
    texts: Iterable[str],
    vocab_size: int = 8000,
    lowercase: bool = False,
    specials: bool | Sequence[str] = True,
) -> Tokenizer:
    """A tokenizer that is learnt from texts, or one that exists.

    Args:
        source: "bpe", "unigram", "word" or "char": see :func:`train_tokenizer`, whose the other arguments are;
            or the path of a ``tokenizer.json``, a folder, a run of ours, or a published source (a
            repository of the hub), whose tokenizer is taken as it is: ``texts`` are not read, and its
            size is its own.

    Raises:
        UserError: no such kind or source, or ``lowercase`` for a tokenizer that exists.
    """
    kinds = get_args(Kind)
    if source in kinds:
        return train_tokenizer(source, texts, vocab_size, lowercase, specials)  # type: ignore[arg-type]
    hint = "" if {"/", "\\"} & set(source) else closest(source, kinds)
    if hint:
        raise UserError(
            f"data.tokenizer={source!r} is unknown; choose one of: {', '.join(kinds)}, or give a "
            f"tokenizer.json, a folder or a published source.{hint}"
        )
    try:
        tokenizer = find_tokenizer(source)
    except ValueError as error:
        raise UserError(f"data.tokenizer={source!r}: {error}") from None
    if lowercase:
        raise UserError(
            f"data.lowercase=true is for a tokenizer that is trained here: that of {source} treats "
            "letters as its own file says."
        )
    return tokenizer


def make_chat_tokenizer(
    source: str,
    texts: Iterable[str],
    vocab_size: int = 8000,
    lowercase: bool = False,
    specials: Sequence[str] = SPECIALS,
    template: str | None = CHATML,
) -> Tokenizer:
    """As :func:`make_tokenizer`, for conversations: one that is trained here knows the marks of turns, and has
    this template; one that exists has its own, or none."""
    made = make_tokenizer(source, texts, vocab_size, lowercase, (*specials, *TURNS))
    if source in get_args(Kind):
        made.chat_template = template
    return made


def train_tokenizer(
    kind: Kind,
    texts: Iterable[str],
    vocab_size: int = 8000,
    lowercase: bool = False,
    specials: bool | Sequence[str] = True,
) -> Tokenizer:
    """A tokenizer whose vocabulary is learnt.

    Args:
        kind: "bpe" over bytes, so that no text is unknown (Radford et al. 2019); "unigram"
            (Kudo 2018); "word", the most frequent words and marks of punctuation, all others unknown;
            "char", one token a character.
        texts: sentences, or pieces of a text.
        vocab_size: at most, for all but char.
        specials: padding, begin, end, unknown as ids 0 to 3; none; or some of them by their names, of
            "char" any, of the others all, and behind them :data:`MASK` and any more.

    Raises:
        UserError: a vocabulary smaller than the byte alphabet (bpe), or than the characters of
            the texts (unigram), or without room for a word.
    """
    some = SPECIALS if specials is True else specials or ()
    known = (*SPECIALS, MASK)
    special = [t for t in known if t in some] + [t for t in some if t not in known]
    names = {**NAMES, "mask": MASK} if MASK in special else NAMES
    if kind == "char":
        inner = _characters(texts, special, lowercase)
        return Tokenizer(inner, **names)
    least = 256 + len(special)
    if kind == "bpe" and vocab_size < least:
        raise UserError(
            f"data.vocab_size={vocab_size} is smaller than the byte alphabet: "
            f"bpe needs at least {least}."
        )
    if kind in ("unigram", "word"):
        special = [*SPECIALS, *special[len(SPECIALS) :]]
        if vocab_size <= len(special):
            raise too_small(kind, vocab_size, len(special))
    if kind == "bpe":
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif kind == "word":
        inner = tokenizers.Tokenizer(models.WordLevel({}, unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordLevelTrainer(
            vocab_size=vocab_size, special_tokens=special, show_progress=False
        )
    elif kind == "unigram":
        inner = tokenizers.Tokenizer(models.Unigram())
        inner.pre_tokenizer = pre_tokenizers.Metaspace()
        inner.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            unk_token="<unk>",
            show_progress=False,
        )
    else:
        raise UserError(f"data.tokenizer={kind!r} is unknown; choose {', '.join(get_args(Kind))}.")
    if lowercase:
        inner.normalizer = normalizers.Lowercase()
    try:
        inner.train_from_iterator(in_runs(texts), trainer)
    except Exception as error:  # the library has no kind of its own
        if "vocabulary is not large enough" in str(error):
            raise too_small(kind, vocab_size, len(special)) from None
        raise
    return Tokenizer(inner, **names)


def in_runs(texts: Iterable[str]) -> Iterator[str]:
    """The texts, a run of more than :data:`RUN` characters without white space in pieces."""
    for text in texts:
        last = 0
        if len(text) > RUN:
            for match in LONG_RUN.finditer(text):
                yield text[last : match.end()]
                last = match.end()
        yield text[last:]


def _characters(texts: Iterable[str], special: list[str], lowercase: bool) -> tokenizers.Tokenizer:
    """A vocabulary of single characters, in the order of their code points."""
    seen: set[str] = set()
    for text in texts:
        seen.update(text.lower() if lowercase else text)
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(seen)])}
    unknown = {"unk_token": "<unk>"} if "<unk>" in special else {}
    # BPE without merges: each character stands for itself.
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], **unknown))
    inner.decoder = decoders.Fuse()
    if lowercase:
        inner.normalizer = normalizers.Lowercase()
    inner.add_special_tokens(special)
    return inner


def too_small(kind: str, vocab_size: int, special: int) -> UserError:
    """What to say of a vocabulary that has no room for what texts are made of."""
    what = "every character of the training text" if kind == "unigram" else "a word"
    return UserError(
        f"data.vocab_size={vocab_size} is too small for {kind}: it must hold {special} "
        f"special tokens and {what}."
    )


def both_sides(
    source: str,
    make: Callable[[Iterable[str]], Tokenizer],
    pairs: Sequence[tuple[str, str]],
    shared: bool,
) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizers of what is translated, and of translations.

    Args:
        source: of :func:`make_tokenizer`; ``make`` is that with its options.
        shared: one for both.

    Raises:
        UserError: see :func:`check_ends`; one that exists has two where one is asked for.
    """
    if source in get_args(Kind) and not shared:
        return make(left for left, _ in pairs), make(right for _, right in pairs)
    made = make(text for pair in pairs for text in pair)
    check_ends(source, made.target)
    if shared and made.target is not made:
        raise UserError(
            f"data.tokenizer={source!r} has two tokenizers, of sources and of translations: give "
            "data.shared_vocabulary=false."
        )
    return made, made.target


def check_ends(source: str, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that cannot say where a translation begins and ends.

    Raises:
        UserError: see above.
    """
    names = {"begin (bos)": "bos", "end (eos)": "eos", "padding (pad)": "pad"}
    missing = [said for said, name in names.items() if name not in tokenizer.specials]
    if missing:
        raise UserError(
            f"data.tokenizer={source!r} has no token of {', '.join(missing)}, which translations need: "
            "give one with all of begin, end and padding."
        )


def add_languages(
    source: str, tokenizer: Tokenizer, languages: Iterable[str]
) -> tuple[Tokenizer, dict[str, int]]:
    """A tokenizer with a token for each language, ``<2de>`` (Johnson et al. 2017), and their ids.

    Args:
        source: what the tokenizer was made of, for the message.

    Raises:
        UserError: see :func:`check_ends`; or a tokenizer that takes no more tokens.
    """
    check_ends(source, tokenizer)
    if tokenizer.vocabulary is not None or tokenizer.target is not tokenizer:
        raise UserError(
            f"data.tokenizer={source!r} has its vocabulary in files of their own, which take no tokens "
            "of languages: give another."
        )
    tokens = {language: f"<2{language}>" for language in languages}
    # Trained or read just now, so that nobody else has it.
    tokenizer.inner.add_special_tokens(list(tokens.values()))
    made = Tokenizer(tokenizer.inner, **tokenizer.specials)  # type: ignore[arg-type]
    vocabulary = tokenizer.inner.get_vocab(with_added_tokens=True)
    return made, {language: vocabulary[token] for language, token in tokens.items()}


def pieces(text: str) -> Iterator[str]:
    """A long text line by line, for training a tokenizer on it."""
    yield from text.splitlines(keepends=True)

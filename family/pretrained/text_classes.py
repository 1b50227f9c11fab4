"""What the class of a published tokenizer says that its files do not: special tokens, limits, sides, and
options that stand beside a ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers

from family.pretrained import byte_level
from family.pretrained.sentencepiece import SPACE
from family.pretrained.text_files import WORD_PIECE, prepended, read_if_there

MARIAN, SIGLIP, LLAMA, XLM_ROBERTA = (
    "MarianTokenizer",
    "SiglipTokenizer",
    "LlamaTokenizer",
    "XLMRobertaTokenizer",
)
LOWERED = "Siglip2Tokenizer"
"""The class that writes in small letters, whatever its file says."""
CLASSES = {
    "bart": "RobertaTokenizer",
    "bert": "BertTokenizer",
    "clip": "CLIPTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "gemma": "GemmaTokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "gpt_neo": "GPT2Tokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    "llama": LLAMA,
    "m2m_100": "M2M100Tokenizer",
    "marian": MARIAN,
    "mbart": "MBartTokenizer",
    "mistral": LLAMA,
    "mixtral": LLAMA,
    "mpnet": "MPNetTokenizer",
    "opt": "GPT2Tokenizer",
    "phi3": LLAMA,
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "qwen3_moe": "Qwen2Tokenizer",
    "roberta": "RobertaTokenizer",
    "siglip": SIGLIP,
    "t5": "T5Tokenizer",
    "xlm-roberta": XLM_ROBERTA,
    "vilt": "BertTokenizer",
    "whisper": "WhisperTokenizer",
}
"""``model_type`` -> the class of its tokenizer, where no file names it."""
SAME = {"BartTokenizer": "RobertaTokenizer"}
"""Classes that are others by another name."""
AS_IT_STANDS = ("mistral", "mixtral", "modernbert", "olmo2", "phi3")
"""``model_type`` whose ``tokenizer.json`` is read alone, whatever class a file names."""
UNNAMED = ("llama", "smollm3")
"""The same, where no file names one."""
LEFT = ("GemmaTokenizer", LLAMA, LOWERED)
"""Classes that fill a row at its left."""
LIMITS = {MARIAN: 512, SIGLIP: 64}
"""Class -> its ``model_max_length``, where no file says."""
END = "<|endoftext|>"
FAIRSEQ = {
    "bos": "<s>",
    "eos": "</s>",
    "unk": "<unk>",
    "pad": "<pad>",
    "cls": "<s>",
    "sep": "</s>",
    "mask": "<mask>",
}
TOKENS: dict[str, dict[str, Any]] = {
    "BertTokenizer": WORD_PIECE,
    "CLIPTokenizer": {"bos": "<|startoftext|>", "eos": END, "unk": END, "pad": END},
    "DistilBertTokenizer": WORD_PIECE,
    "ElectraTokenizer": WORD_PIECE,
    "GemmaTokenizer": {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"},
    "GPT2Tokenizer": {"bos": END, "eos": END, "unk": END},
    "GPTNeoXTokenizer": {"bos": END, "eos": END, "unk": END, "pad": "<|padding|>"},
    LLAMA: {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
    MARIAN: {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    "MPNetTokenizer": {**FAIRSEQ, "unk": "[UNK]", "mask": AddedToken("<mask>", lstrip=True)},
    XLM_ROBERTA: FAIRSEQ,
    "M2M100Tokenizer": {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "sep": "</s>"},
    "MBart50Tokenizer": {name: token for name, token in FAIRSEQ.items() if name != "bos"},
    "MBartTokenizer": FAIRSEQ,
    "NllbTokenizer": FAIRSEQ,
    "Qwen2Tokenizer": {"eos": END, "unk": END, "pad": END},
    "RobertaTokenizer": FAIRSEQ,
    SIGLIP: {
        "eos": AddedToken("</s>", lstrip=True, rstrip=True, normalized=False, special=True),
        "unk": AddedToken("<unk>", lstrip=True, rstrip=True, normalized=False, special=True),
        "pad": AddedToken("</s>", lstrip=True, rstrip=True, normalized=False, special=True),
    },
    "T5Tokenizer": {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    "WhisperTokenizer": {"bos": END, "eos": END, "unk": END},
}
"""The special tokens of each class, where no file names them."""
WORDS = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MPNetTokenizer")
"""Those whose words are cut as BERT's."""
PYTHON = """
    Bartpho BertGeneration BertJapanese Bertweet BioGpt BlenderbotSmall ByT5 CTRL Canine Clvp CpmAnt Cpm Dia Esm
    FSMT FastSpeech2Conformer Flaubert GPTNeoXJapanese GPTSw3 Mgpstr MyT5 PLBart Perceiver Phobert ProphetNet
    RoCBert Speech2Text SpeechT5 Tapas Vits Wav2Vec2CTC Wav2Vec2PhonemeCTC XLM
"""
OF_PYTHON = frozenset(f"{name}Tokenizer" for name in PYTHON.split())
"""Classes of transformers with rules of their own in Python, which a ``tokenizer.json`` does not hold."""


def tokenizer_class(folder: Path, config: dict[str, Any]) -> str:
    """The name of the class that the folder's tokenizer is of, in transformers."""
    named, model_type = declared(folder, config)
    return named or CLASSES.get(model_type, "")


def declared(folder: Path, config: dict[str, Any]) -> tuple[str, str]:
    """The class that a file names, and the ``model_type``."""
    model = read_if_there(folder / "config.json")
    found = config.get("tokenizer_class") or model.get("tokenizer_class")
    kind = str(found or "").removesuffix("Fast")
    return SAME.get(kind, kind), str(model.get("model_type"))


def acting_class(folder: Path, config: dict[str, Any], inner: tokenizers.Tokenizer) -> str:
    """The class whose options count beside a ``tokenizer.json``; "" where it is read as it stands."""
    named, model_type = declared(folder, config)
    if model_type in AS_IT_STANDS or (not named and model_type in UNNAMED):
        return ""
    kind = named or CLASSES.get(model_type, "")
    # Llama 3 and others name Llama's, and merge pairs of bytes.
    of_bytes = any(
        isinstance(part, pre_tokenizers.ByteLevel) for part in parts(inner.pre_tokenizer)
    )
    return "" if kind == LLAMA and of_bytes else kind


def parts(step: Any) -> Iterator[Any]:
    """The parts of a normalizer or pre-tokenizer, to be changed in place."""
    if isinstance(step, normalizers.Sequence | pre_tokenizers.Sequence):
        several: Any = step
        for part in several:
            yield from parts(part)
    elif step is not None:
        yield step


def apply_options(inner: tokenizers.Tokenizer, kind: str, config: dict[str, Any]) -> None:
    """Give a ``tokenizer.json`` the options of its class: where no file says, the class's own, as
    transformers has it. What the class's pipeline has beyond options stays as the file says."""
    if kind in WORDS:
        for part in parts(inner.normalizer):
            if isinstance(part, normalizers.BertNormalizer):
                part.lowercase = config.get("do_lower_case", True)
                part.strip_accents = config.get("strip_accents")
                part.handle_chinese_chars = config.get("tokenize_chinese_chars", True)
    elif kind == byte_level.CLIP_CLASS:
        inner.decoder = byte_level.clip_decoder()
    elif kind in byte_level.WORDS:
        for part in parts(inner.pre_tokenizer):
            if isinstance(part, pre_tokenizers.ByteLevel):
                part.add_prefix_space = bool(config.get("add_prefix_space"))
    elif kind == XLM_ROBERTA:
        scheme = "always" if config.get("add_prefix_space", True) else "never"
        for part in (*parts(inner.pre_tokenizer), inner.decoder):
            if isinstance(part, pre_tokenizers.Metaspace | decoders.Metaspace):
                part.prepend_scheme = scheme
    elif kind == LLAMA:
        llama(inner, prepended(config, True))
    elif kind == LOWERED:
        inner.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts(inner.normalizer)])


def llama(inner: tokenizers.Tokenizer, scheme: str) -> None:
    """Llama's spaces, in either spelling: as a normalizer, or before a text is cut."""
    before, cut = [*parts(inner.normalizer)], [*parts(inner.pre_tokenizer)]
    usual = all(isinstance(part, normalizers.Prepend | normalizers.Replace) for part in before)
    if not usual or not all(isinstance(part, pre_tokenizers.Metaspace) for part in cut):
        return
    inner.normalizer = None
    inner.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme, split=False)
    strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    inner.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )

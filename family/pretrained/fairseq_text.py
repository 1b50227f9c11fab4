"""Tokenizers that fairseq's translation models were published with: SentencePiece, and tokens of languages
behind its vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, processors

from family.inputs.tokenizer import Tokenizer
from family.pretrained.byte_level import VOCABULARY
from family.pretrained.sentencepiece import (
    CONTROL,
    UNKNOWN,
    Piece,
    mark_specials,
    pipeline,
    read_sentencepiece,
)
from family.pretrained.weights import read_json

MODEL = "sentencepiece.bpe.model"
M2M100 = "M2M100Tokenizer"
OF_2020 = """
    ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP
    nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN
"""
OF_2021 = """
    af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE
    ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI
"""
CODES = {
    "MBartTokenizer": OF_2020.split(),
    "MBart50Tokenizer": OF_2020.split() + OF_2021.split(),
}
"""Class of a tokenizer -> the languages of its model, in the order of their ids."""
M2M100_CODES = {
    "m2m100": """
        af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr
        ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or
        pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu
    """,
    "wmt21": "en ha is ja cs ru zh de",
}


def fairseq(file: Path, kind: str, config: dict[str, Any]) -> tokenizers.Tokenizer:
    """mBART's and XLM-R's: fairseq has four tokens of its own before the pieces, and languages, if it has
    any, and the mask behind."""
    model = read_sentencepiece(file)
    first = [Piece(token, 0.0, CONTROL) for token in ("<s>", "<pad>", "</s>")]
    unknown, codes = Piece("<unk>", 0.0, UNKNOWN), CODES.get(kind, [])
    last = [Piece(token, 0.0, CONTROL) for token in codes]
    pieces = [*first, unknown, *model.pieces[3:], *last, Piece("<mask>", 0.0, CONTROL)]
    inner = pipeline(replace(model, pieces=pieces))
    mark_specials(inner, pieces)
    inner.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    if codes:
        around(inner, config.get("src_lang") or "en_XX", last=kind == "MBartTokenizer")
    return inner


def m2m100(folder: Path, config: dict[str, Any], fields: dict[str, Any]) -> Tokenizer:
    """M2M-100's: SentencePiece cuts a text, ``vocab.json`` has the ids, and languages follow."""
    ids = read_json(folder / VOCABULARY)
    codes = M2M100_CODES[config.get("language_codes", "m2m100")].split()
    ids |= {f"__{code}__": len(ids) + i for i, code in enumerate(codes)}
    if "<unk>" not in ids or not all(isinstance(i, int) for i in ids.values()):
        raise ValueError(f"{VOCABULARY} must map tokens, <unk> among them, to ids")
    model = read_sentencepiece(folder / MODEL)
    inner = pipeline(replace(model, pieces=[p for p in model.pieces if p.type != CONTROL]))
    named = [
        token for name, token in fields.items() if name in ("bos", "eos", "pad", "unk") and token
    ]
    inner.add_special_tokens([*named, *(f"__{code}__" for code in codes)])
    around(inner, f"__{config.get('src_lang') or 'en'}__")
    return Tokenizer(inner, **fields, vocabulary=ids, file=(folder / MODEL).read_bytes())


def around(inner: tokenizers.Tokenizer, code: str, last: bool = False) -> None:
    """What is put around a text of a language: its token before, and the end behind; or both behind."""
    tokens = [(token, inner.token_to_id(token)) for token in (code, "</s>")]
    single = ["$A", "</s>", code] if last else [code, "$A", "</s>"]
    if any(i is None for _, i in tokens):
        raise ValueError(f"its vocabulary has no token {code!r}")
    inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=tokens)


def m2m100_files(tokenizer: Tokenizer) -> dict[str, Any]:
    """What :func:`m2m100` reads, but for the SentencePiece model: the content of ``vocab.json``."""
    assert tokenizer.vocabulary is not None
    codes = {f"__{code}__" for names in M2M100_CODES.values() for code in names.split()}
    return {token: i for token, i in tokenizer.vocabulary.items() if token not in codes}

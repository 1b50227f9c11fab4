"""Tokenizers of encoder-decoders, as transformers writes them: ids, roles, tokens of languages."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

import family
from family.inputs.encode import encode_sources as sources
from family.inputs.languages import TWO_LETTERS, find_language, plain
from family.inputs.tokenizer import Tokenizer as Ours
from family.pretrained.languages import read_languages
from family.pretrained.text import read_tokenizer, save_tokenizer
from tasks import Translation, TranslationData
from tasks.cli import main
from tasks.data.translation import most_new_tokens
from tasks.runs.sources import published_assets
from tasks.training.finetuning import load_source

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from harness import enliven, randomise

TEXTS = ["Hello there, my friend.", "Bonjour mon ami, ça va ?", "hello world"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
ROLES = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")


def trained(before, special, alphabet=()):
    """Vocabulary and merges."""
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = before
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=list(alphabet)
    )
    inner.train_from_iterator(TEXTS, trainer)
    made = json.loads(inner.to_str())["model"]
    return made["vocab"], [tuple(pair) for pair in made["merges"]]


def byte_level(special):
    before = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return trained(before, special, pre_tokenizers.ByteLevel.alphabet())


def bart():
    return transformers.BartTokenizer(*byte_level(SPECIAL))


def pieces():
    words = " ".join(TEXTS).split()
    letters = [(letter, -9.0) for letter in "▁" + "".join(sorted(set("".join(words))))]
    known = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    return [*known, *((f"▁{word}", -3.0 - i) for i, word in enumerate(words)), *letters]


def mbart():
    return transformers.MBartTokenizer(pieces(), src_lang="fr_XX")


def mbart50():
    return transformers.MBart50Tokenizer(pieces(), src_lang="fr_XX")


def nllb():
    return transformers.NllbTokenizer(
        *trained(pre_tokenizers.Metaspace(), SPECIAL), src_lang="fra_Latn"
    )


def whisper():
    more = ["startoftranscript", "en", "translate", "transcribe", "notimestamps"]
    tokenizer = transformers.WhisperTokenizer(*byte_level(["<|endoftext|>"]))
    tokenizer.add_special_tokens({"extra_special_tokens": [f"<|{token}|>" for token in more]})
    tokenizer.set_prefix_tokens(language="en", task="transcribe")
    return tokenizer


KINDS = {
    "bart": (bart, None),
    "mbart": (mbart, "en_XX"),
    "mbart50": (mbart50, "en_XX"),
    "nllb": (nllb, "eng_Latn"),
    "whisper": (whisper, "<|en|>"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_folder_of_theirs(tmp_path, name):
    """Again where their config leaves all to the class, as the first folders do."""
    build, language = KINDS[name]
    theirs = build()
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    kind = json.loads(file.read_text())["tokenizer_class"]
    for content in (None, {"tokenizer_class": kind}):
        if content is not None:
            file.write_text(json.dumps(content))
        ours = read_tokenizer(tmp_path)
        for role in ROLES:
            expected = getattr(theirs, f"{role}_token_id", None)
            assert getattr(ours, f"{role}_id") == expected, role
        check(ours, theirs, language)


def check(ours, theirs, language):
    assert ours.vocab_size == len(theirs)
    for text in TEXTS:
        ids = ours.encode(text, True, parse_special=True)
        assert ids == theirs(text)["input_ids"] and len(ids) > len(ours.encode(text))
        assert ours.decode(ids) == text
    if language is not None:
        number = theirs.convert_tokens_to_ids(language)
        assert ours.token_to_id(language) == number
        assert ours.encode(f"{language}{TEXTS[0]}", parse_special=True)[0] == number
        assert ours.decode([number, *ours.encode(TEXTS[0])]) == TEXTS[0]


@pytest.mark.parametrize("name", KINDS)
def test_written_again(tmp_path, name):
    build, language = KINDS[name]
    theirs = build()
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    model = family.Seq2Seq(5, family.TransformerConfig(dim=4, depth=1, heads=1))
    model.tokenizer = read_tokenizer(tmp_path / "theirs")
    save_tokenizer(model, tmp_path / "ours")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert [again(text)["input_ids"] for text in TEXTS] == [theirs(t)["input_ids"] for t in TEXTS]
    check(read_tokenizer(tmp_path / "ours"), theirs, language)
    check(Ours.from_json(model.tokenizer.to_json()), theirs, language)


SIZES = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "eos_token_id": 2,
    "decoder_start_token_id": 2,
}  # fmt: skip


def test_what_stands_around_a_source():
    """Theirs, or of a tokenizer that puts nothing there the end of a text."""
    for build, _ in KINDS.values():
        theirs = build()
        ours = Ours(theirs.backend_tokenizer, eos=theirs.eos_token)
        assert sources(ours, TEXTS) == theirs(TEXTS)["input_ids"]
        ours.inner.post_processor = processors.ByteLevel()
        assert sources(ours, TEXTS) == [[*ours.encode(text), ours.eos_id] for text in TEXTS]


@pytest.mark.parametrize(
    ("name", "kind"), [("bart", "Bart"), ("mbart50", "MBart"), ("nllb", "M2M100")]
)
def test_translate_puts_around_a_sentence_what_their_tokenizer_puts(tmp_path, capsys, name, kind):
    tokenizer = KINDS[name][0]()
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer), max_position_embeddings=64, forced_eos_token_id=None, **SIZES
    )
    theirs = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    randomise(theirs)
    enliven(theirs)
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    main(["translate", str(tmp_path), TEXTS[0]])
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    new = most_new_tokens(inputs.input_ids.shape[1], 64)
    ids = theirs.generate(**inputs, num_beams=4, max_new_tokens=new, early_stopping=True)
    expected = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert capsys.readouterr().out.rstrip("\n") == expected
    assert len(set(ids[0].tolist())) > 3


@pytest.mark.slow
def test_t5_translates_a_sentence_longer_than_its_config_says(tmp_path, capsys):
    tokenizer = bart()
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2
    )
    theirs = transformers.T5ForConditionalGeneration(config)
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text()) | {"n_positions": 512}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    sentence = " ".join(["hello"] * 700)
    assert len(tokenizer(sentence).input_ids) > 700
    main(["translate", str(tmp_path), sentence, "--beams=1"])
    assert capsys.readouterr().out.endswith("\n")
    given = TranslationData()

    class Task(Translation):
        data = given

    task, model = Task(), family.from_pretrained(tmp_path)
    task.model = model
    given.use_assets(published_assets(model, "source"))
    source = torch.tensor([tokenizer(sentence).input_ids])
    batch = {"source": source, "source_mask": torch.ones_like(source).bool()}
    assert len(task.translate(batch, beams=1)) == 1


def test_bart_without_a_whole_tokenizer(tmp_path):
    """Vocabulary and merges, a class without names of tokens: so were its first folders."""
    theirs = bart()
    vocabulary, merges = byte_level(SPECIAL)
    (tmp_path / "vocab.json").write_text(json.dumps({**vocabulary, "<mask>": len(vocabulary)}))
    lines = [" ".join(pair) for pair in merges]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    ours = read_tokenizer(tmp_path)
    assert (ours.bos_id, ours.pad_id, ours.eos_id, ours.unk_id) == (0, 1, 2, 3)
    check(ours, theirs, None)


# --- From and into languages -----------------------------------------------------------------

SEVERAL = [
    ("mbart50", "MBart", ("fr", "fr_XX"), ("en", "en_XX"), {}),
    ("nllb", "M2M100", ("fr", "fra_Latn"), ("en", "eng_Latn"), {}),
    ("mbart", "MBart", ("fr", "fr_XX"), ("en", "en_XX"), {}),
]


def model_of(kind, tokenizer, folder, **fields):
    """A tiny model of theirs with random weights, in a folder with its tokenizer."""
    usual = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, **SIZES}
    config = getattr(transformers, f"{kind}Config")(forced_eos_token_id=None, **{**usual, **fields})
    theirs = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    randomise(theirs)
    enliven(theirs)
    theirs.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return theirs


@pytest.mark.parametrize(("name", "kind", "source", "target", "fields"), SEVERAL)
def test_a_language_is_said_as_theirs_is(tmp_path, name, kind, source, target, fields):
    """Their tokenizer with ``src_lang``, and the token that a translation is forced to begin with: the
    ids that the encoder reads, and those that are written."""
    tokenizer = KINDS[name][0]()
    theirs = model_of(kind, tokenizer, tmp_path, **fields)
    ours = family.load(tmp_path)
    seen = []
    made = ours.model.generate

    def generate(ids, *rest, **options):
        seen.append((ids, made(ids, *rest, **options)))
        return seen[-1][1]

    object.__setattr__(ours.model, "generate", generate)
    codes = {name: source[1] for name in source} | {name: target[1] for name in target}
    names = list(zip(source, target, strict=True))
    for here, there in (*names, *(name[::-1] for name in names)):
        tokenizer.src_lang = codes[here]
        number = tokenizer.convert_tokens_to_ids(codes[there])
        inputs = tokenizer(TEXTS[0], return_tensors="pt")
        new = most_new_tokens(inputs.input_ids.shape[1], 64)
        first = {"forced_bos_token_id": number}
        if name == "mbart":  # of 2020: decoding starts from the language
            first = {"decoder_start_token_id": number}
        for beams in (1, 3):
            ids = theirs.generate(
                **inputs, num_beams=beams, max_new_tokens=new, early_stopping=True, **first
            )
            found = ours.predict([TEXTS[0]], source=here, target=there, beams=beams)
            assert torch.equal(seen[-1][0], inputs.input_ids)
            written = ids[0, 1:].tolist()
            if tokenizer.eos_token_id in written:
                written = written[: written.index(tokenizer.eos_token_id)]
            assert seen[-1][1][0].tolist() == written and len(set(written)) > 3
            assert found == [tokenizer.decode(ids[0], skip_special_tokens=True)]


@pytest.mark.parametrize(("name", "kind", "source", "target", "fields"), SEVERAL[:2])
def test_fine_tuning_keeps_their_scheme(tmp_path, name, kind, source, target, fields):
    tokenizer = KINDS[name][0]()
    theirs = model_of(kind, tokenizer, tmp_path, **fields)
    for ending, text in (("fr", TEXTS[1]), ("en", TEXTS[0])):
        for split in ("train", "val", "test"):
            (tmp_path / f"{split}.{ending}").write_text(f"{text}\n", encoding="utf-8")
    data = TranslationData(str(tmp_path))
    load_source(Translation(pretrained=str(tmp_path)), data, str(tmp_path), training=True)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    tokenizer.src_lang, tokenizer.tgt_lang = source[1], target[1]
    expected = tokenizer(TEXTS[1], text_target=TEXTS[0], return_tensors="pt")
    assert torch.equal(batch["source"], expected["input_ids"])
    assert torch.equal(batch["labels"], expected["labels"])
    # What their model makes of the labels, by its own rule.
    fed = torch.cat([torch.tensor([[2]]), expected["labels"][:, :-1]], dim=1)
    assert torch.equal(batch["target"], fed)
    with torch.no_grad():
        loss = theirs(**expected, decoder_input_ids=fed).loss
        task = Translation()
        task.model = family.from_pretrained(tmp_path)
        torch.testing.assert_close(task.loss(batch)["loss"], loss)
    # A checkpoint then writes English where nobody says otherwise.
    assets = data.assets()
    assert assets["generation"]["forced_bos_token_id"] == batch["target"][0, 1]
    assert assets["languages"]["directions"] == [[source[1], target[1]]]


def test_saved_as_ours_it_still_knows_its_languages(tmp_path):
    theirs = nllb()
    model_of("M2M100", theirs, tmp_path / "theirs")
    model = family.from_pretrained(tmp_path / "theirs")
    for name, layout in (("ours", None), ("again", "m2m_100")):
        family.save_pretrained(model, tmp_path / name, format=layout)
        again = family.from_pretrained(tmp_path / name)
        assert again.language_tokens == model.language_tokens
        assert again.language_tokens.ids["zho_Hans"] == theirs.convert_tokens_to_ids("zho_Hans")


def test_names_of_languages():
    known = nllb().extra_special_tokens
    assert len(known) > 200
    for name, code in {
        "en": "eng_Latn", "de": "deu_Latn", "es": "spa_Latn", "et": "est_Latn", "fr": "fra_Latn",
        "ja": "jpn_Jpan", "ko": "kor_Hang", "eng": "eng_Latn", "fur_Latn": "fur_Latn",
        "ar": "arb_Arab", "fa": "pes_Arab", "sw": "swh_Latn", "yue": "yue_Hant",
    }.items():  # fmt: skip
        assert find_language(name, known) == code
    with pytest.raises(ValueError, match="'zh' may be zho_Hans or zho_Hant: say which"):
        find_language("zh", known)
    with pytest.raises(ValueError, match="'deu_Latin' is none of .* Did you mean 'deu_Latn'"):
        find_language("deu_Latin", known)
    with pytest.raises(ValueError, match="'en_US' is none of the model's"):
        find_language("en_US", ["en_XX", "de_DE"])
    assert find_language("zh", ["en_XX", "zh_CN"]) == "zh_CN"
    assert {plain(code) for code in ("zho_Hant", "zh_CN", "zh", "zh-Hant")} == {"zh"}
    # All that two letters stand for are languages of theirs, but the names of whole groups.
    codes = {code.partition("_")[0] for code in known}
    groups = {"ara", "sqi", "fas", "msa", "nor", "swa", "yid", "zho"}
    assert {*TWO_LETTERS} - codes <= groups


def test_a_published_model_says_when_no_language_is_given(tmp_path, caplog):
    tokenizer = nllb()
    model_of("M2M100", tokenizer, tmp_path)
    loaded = family.load(tmp_path)
    loaded.predict(TEXTS[:1], beams=1)
    loaded.predict(TEXTS[:1], beams=1)
    assert [r.message for r in caplog.records if "no target language" in r.message] != []
    assert len(caplog.records) == 1
    with pytest.raises(ValueError, match="'xx' is none of the model's"):
        loaded.predict(TEXTS[:1], target="xx")


# --- SentencePiece models alone, as most of these were published -------------------------------


@pytest.fixture(scope="module")
def piece_model(tmp_path_factory):
    """A SentencePiece model of each kind."""
    spm = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("pieces")
    for kind in ("unigram", "bpe"):
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS * 3), model_prefix=str(folder / kind), model_type=kind,
            vocab_size=31, minloglevel=2, num_threads=1,
        )  # fmt: skip
    return folder


def m2m100(folder, pieces):
    """Their class; one piece of the model is not in its vocabulary."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    known = [model.id_to_piece(i) for i in range(3, model.get_piece_size())]
    vocabulary = [*SPECIAL, *reversed(known[:5] + known[6:])]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocabulary)}))
    (folder / "sentencepiece.bpe.model").write_bytes(pieces.read_bytes())
    files = str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model")
    return transformers.M2M100Tokenizer(*files, src_lang="fr")


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_m2m100_with_a_vocabulary_beside_its_pieces(tmp_path, piece_model, kind):
    theirs = m2m100(tmp_path / "made", piece_model / f"{kind}.model")
    folder = tmp_path / "theirs"
    model_of("M2M100", theirs, folder, vocab_size=len(theirs) + 108)  # as published, 8 of no use
    assert not (folder / "tokenizer.json").exists()
    loaded = family.load(folder)
    texts = [*TEXTS, "  two  spaces ", "Ünknown 東", "a </s> b __fr__"]

    def same(ours):
        for text in texts:
            plain = text not in texts[-1:]
            if plain:  # theirs takes what spells a token for one
                assert ours.encode(text, True) == theirs(text)["input_ids"]
        assert ours.encode("__de__", parse_special=True) == [theirs.get_lang_id("de")]
        ids = theirs(TEXTS[0])["input_ids"]
        said = theirs.decode(ids, skip_special_tokens=True)
        # Version 5 of theirs leaves the language in the text.
        assert ours.decode(ids) == said.removeprefix("__fr__").strip() == TEXTS[0]
        assert not {theirs.get_lang_id("fr")} & {*ours.encode(texts[-1])}

    same(loaded.tokenizer)
    same(Ours.from_json(loaded.tokenizer.to_json()))
    tokens = loaded.model.language_tokens
    assert (tokens.usual, tokens.ids["zu"], len(tokens.ids)) == (
        "fr",
        theirs.get_lang_id("zu"),
        100,
    )
    family.save_pretrained(loaded.model, tmp_path / "again", format="m2m_100")
    same(family.load(tmp_path / "again").tokenizer)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again", src_lang="fr")
    assert [again(t)["input_ids"] for t in TEXTS] == [theirs(t)["input_ids"] for t in TEXTS]


@pytest.mark.parametrize("name", ["MBart50", "MBart"])
def test_mbart_of_pieces_alone(tmp_path, piece_model, name):
    """Ids are those of SentencePiece, moved by one for fairseq's own padding."""
    import sentencepiece

    file = piece_model / "unigram.model"
    (tmp_path / "sentencepiece.bpe.model").write_bytes(file.read_bytes())
    config = {"tokenizer_class": f"{name}Tokenizer", "src_lang": "fr_XX"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, model = read_tokenizer(tmp_path), sentencepiece.SentencePieceProcessor(str(file))
    codes = {"MBart50": 52, "MBart": 25}[name]
    assert ours.vocab_size == model.get_piece_size() + 1 + codes + 1
    assert (ours.pad_id, ours.eos_id, ours.unk_id) == (1, 2, 3)
    assert ours.mask_id == ours.vocab_size - 1
    tokens = read_languages(tmp_path, ours)
    first = model.get_piece_size() + 1
    assert (tokens.ids["ar_AR"], tokens.ids["fr_XX"]) == (first, first + 7)
    for text in (*TEXTS, "  two  spaces ", "Ünknown 東"):
        ids = [3 if i == 0 else i + 1 for i in model.encode(text)]
        assert ours.encode(text) == ids
        around = [first + 7, *ids, 2] if name == "MBart50" else [*ids, 2, first + 7]
        assert ours.encode(text, True) == around
        assert tokens.sources(ours, [text], "fr_XX", "en_XX") == [around]

"""Tokenizers of published folders: the same ids as transformers', there and back."""

from __future__ import annotations

import json

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers
from torch import nn

from family.inputs.tokenizer import Tokenizer
from family.pretrained.text import read_tokenizer, save_tokenizer

transformers = pytest.importorskip("transformers")

TEXTS = [
    "Hello world, it's a naïve café!",
    "ÀÉÎÕÜ Straße ŁÓDŹ ﬁne",
    "東京は大きい。我喜欢猫 and dogs",
    "emoji 🙂👍🏽 and zero\u200bwidth",
    "def f(x):\n\treturn  x**2   # code\n\n",
    "long          spaces   here ",
    " leading and trailing ",
    "[MASK] <mask> [SEP] </s> <|endoftext|> inside",
    "12,345.678 a_b-c/d\\e",
    "",
]
BYTES = pre_tokenizers.ByteLevel.alphabet()
ENDS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi  there\n"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
]


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def byte_level(folder, special, **files):
    """``vocab.json`` and ``merges.txt``, as the first GPT-2 and RoBERTa came."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=BYTES, show_progress=False
    )
    inner.train_from_iterator(TEXTS * 3, trainer)
    write(folder, **files)
    inner.model.save(str(folder))
    return folder


def gpt2(folder):
    return byte_level(folder, ["<|endoftext|>"], config={"model_type": "gpt2"})


def opt(folder):
    named = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    own = {"add_bos_token": True, "tokenizer_class": "GPT2Tokenizer", **named}
    return byte_level(folder, ENDS, config={"model_type": "opt"}, tokenizer_config=own)


def roberta(folder):
    mask = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False}
    return byte_level(
        folder, ENDS, config={"model_type": "roberta"}, special_tokens_map={"mask_token": mask}
    )


def bert(folder, model_type="bert", **options):
    words = "hello world naive café cafe it s a the strasse straße 東 京 我 and dogs 12 , . ! '"
    single = sorted({c for text in TEXTS for c in text.lower() if c.isalnum()})
    tokens = [*PIECES, *dict.fromkeys(words.split()), *(f"##{c}" for c in single)]
    tokens += [c for c in single if c not in tokens]
    write(folder, config={"model_type": model_type}, tokenizer_config=options)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return folder


def cased(folder):
    return bert(folder, "distilbert", do_lower_case=False, tokenize_chinese_chars=False)


def accents_kept(folder):
    return bert(folder, strip_accents=False, model_max_length=512)


def electra(folder):
    return bert(folder, "electra")


def mpnet(folder):
    """A vocabulary of BERT's kind with special tokens of RoBERTa's, which no file names."""
    words = (bert(folder, "mpnet") / "vocab.txt").read_text(encoding="utf-8").split("\n")
    special = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join([*special, *words[len(PIECES) :]]), "utf-8")
    return folder


def xlm_roberta(folder):
    """``tokenizer.json``, and nothing beside it that would name special tokens."""
    characters = sorted({c for text in TEXTS for c in text if not c.isspace()})
    scored = [(t, 0.0) for t in ENDS[:4]]
    scored += [
        (p, -1.0 - i / 100) for i, p in enumerate(["\u2581", *characters, "\u2581he", "llo"])
    ]
    vocab = [*scored, ("<mask>", 0.0)]
    mask = tokenizers.AddedToken("<mask>", lstrip=True, special=True)
    transformers.XLMRobertaTokenizer(vocab=vocab, mask_token=mask).save_pretrained(folder)
    (folder / "tokenizer_config.json").unlink()
    return write(folder, config={"model_type": "xlm-roberta"})


KINDS = [gpt2, opt, roberta, bert, cased, accents_kept, electra, mpnet, xlm_roberta]


def compare(ours, theirs):
    for text in TEXTS:
        assert ours.encode(text, True, parse_special=True) == theirs(text).input_ids, text
        parsed = ours.encode(text, parse_special=True)
        assert parsed == theirs(text, add_special_tokens=False).input_ids, text
        plain = ours.encode(text)
        expected = theirs(text, add_special_tokens=False, split_special_tokens=True).input_ids
        special = {i for i in theirs.all_special_ids if i != theirs.unk_token_id}
        assert not special & set(plain), text
        # Theirs finds the special tokens that a unigram model has among its pieces.
        assert plain == expected or special & set(expected), text
        for ids in (parsed, plain):
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text
    for name in ("pad", "bos", "eos", "unk", "cls", "sep", "mask"):
        assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_token_id"), name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_same_ids_as_transformers(tmp_path, kind):
    folder = kind(tmp_path / "model")
    ours = read_tokenizer(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    compare(ours, theirs)
    first, second = TEXTS[:2]
    pair = ours.inner.encode(first, second)
    expected = theirs(first, second, return_token_type_ids=True)
    assert pair.ids == expected.input_ids
    if kind is bert:
        assert pair.type_ids == expected.token_type_ids


class Model(nn.Module):
    def __init__(self, tokenizer, token_types=0):
        super().__init__()
        self.tokenizer, self.arguments = tokenizer, {"token_types": token_types}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_written_for_transformers_and_read_again(tmp_path, kind):
    tokenizer = read_tokenizer(kind(tmp_path / "model"))
    token_types = 2 if kind is bert else 0
    tokenizer.chat_template = TEMPLATE if kind is gpt2 else None
    written = write(tmp_path / "written", config={"model_type": kind.__name__})
    save_tokenizer(Model(tokenizer, token_types), written)
    theirs = transformers.AutoTokenizer.from_pretrained(written)
    compare(tokenizer, theirs)
    assert ("token_type_ids" in theirs("hello")) == bool(token_types)
    again = read_tokenizer(written)
    assert again.to_json() == tokenizer.to_json()
    assert Tokenizer.from_json(tokenizer.to_json()).to_json() == tokenizer.to_json()
    if kind is gpt2:
        assert theirs.apply_chat_template(TALK, tokenize=False) == again.chat(TALK, False)


def scores_apart(tokenizer):
    """What it is saved as, and a unigram model's scores, which the library may read a bit off."""
    content = json.loads(tokenizer.to_json())
    model = content["tokenizer"]["model"]
    if model["type"] != "Unigram":
        return content, []
    tokens, scores = zip(*model.pop("vocab"), strict=True)
    return {**content, "tokens": tokens}, list(scores)


def test_our_own_tokenizers_are_read_by_transformers(tmp_path):
    from tasks.data.tokenizers import train_tokenizer

    for kind in ("bpe", "unigram", "char"):
        trained = train_tokenizer(kind, TEXTS, 400)
        folder = write(tmp_path / kind)
        save_tokenizer(Model(trained), folder)
        compare(read_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder))
        bare = Tokenizer.from_json(trained.inner.to_str())  # as older checkpoints keep it
        (content, scores), (again, others) = scores_apart(trained), scores_apart(bare)
        assert again == content
        assert others == pytest.approx(scores, rel=1e-12)


def test_files_that_older_repositories_have(tmp_path):
    folder = gpt2(tmp_path / "model")
    size = len(json.loads((folder / "vocab.json").read_text()))
    write(folder, added_tokens={"<|im_end|>": size + 1, "<|im_start|>": size})
    write(folder, special_tokens_map={"eos_token": {"content": "<|im_end|>", "lstrip": False}})
    ours = read_tokenizer(folder)
    assert (ours.eos_id, ours.vocab_size) == (size + 1, size + 2)
    compare(ours, transformers.AutoTokenizer.from_pretrained(folder))
    write(folder, tokenizer_config={"eos_token": "<|endoftext|>", "model_max_length": int(1e30)})
    assert read_tokenizer(folder).eos_id == 0  # what is nearest to the tokenizer counts
    assert read_tokenizer(folder).max_tokens is None
    assert read_tokenizer(write(tmp_path / "marian", vocab={}, config={})) is None


def test_lengths_of_a_published_file_bind_no_one(tmp_path):
    folder = bert(tmp_path / "model", model_max_length=7)
    inner = read_tokenizer(folder).inner
    inner.enable_padding(length=20)
    inner.enable_truncation(3)
    inner.save(str(folder / "tokenizer.json"))
    tokenizer = read_tokenizer(folder)
    assert len(tokenizer.encode("a a a a a")) == 5
    ids, mask = tokenizer.batch(["hello world", "a", "a " * 9])
    assert mask.sum(1).tolist() == [4, 3, 7] and ids.shape == (3, 7)
    assert ids[1].tolist() == [2, tokenizer.encode("a")[0], 3, 0, 0, 0, 0]
    assert ids[2, -1] == tokenizer.sep_id
    assert tokenizer.batch(["a a a a"], 4)[0].shape == (1, 4)
    assert len(tokenizer.encode("a a a a a")) == 5


def test_chat_by_the_templates_of_checkpoints(tmp_path):
    folder = gpt2(tmp_path / "model")
    size = len(json.loads((folder / "vocab.json").read_text()))
    write(folder, added_tokens={"<|im_start|>": size, "<|im_end|>": size + 1})
    own = {
        "chat_template": [
            {"name": "tools", "template": ""},
            {"name": "default", "template": TEMPLATE},
        ]
    }
    write(folder, tokenizer_config={**own, "additional_special_tokens": ["<|im_end|>"]})
    tokenizer = read_tokenizer(folder)
    for prompt in (True, False):
        theirs = transformers.AutoTokenizer.from_pretrained(folder).apply_chat_template(
            TALK, tokenize=False, add_generation_prompt=prompt
        )
        assert tokenizer.chat(TALK, prompt) == theirs
    write(folder, added_tokens={"<|im_start|>": size, "<|im_end|>": size + 1})
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages | tojson }}")
    assert (
        read_tokenizer(folder)
        .chat(TALK[1:2])
        .endswith('{"role": "user", "content": "Hi  there\\n"}]')
    )


def stops(template, **specials):
    inner = tokenizers.Tokenizer(models.BPE({"<e>": 0, "<turn>": 1, "x": 2}, []))
    inner.add_special_tokens(["<e>", "<turn>"])
    return Tokenizer(inner, chat_template=template, **specials).stop_ids()


def test_an_answer_stops_at_the_end_of_the_text_or_of_the_turn():
    assert stops(None, eos="<e>") == {0} and stops(None) == set()
    each = "{% for m in messages %}{{ m.content }}END{% endfor %}"
    assert stops(each.replace("END", "<turn>\n"), eos="<e>") == {0, 1}
    assert stops(each.replace("END", "{{ eos_token }}"), eos="<e>") == {0}
    assert stops(each.replace("END", "\n<turn>")) == {1}
    assert stops(each.replace("END", "x"), eos="<e>") == {0}
    assert stops("{{ raise_exception('no') }}", eos="<e>") == {0}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for %}", "refuses"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ().__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_template_that_is_broken_or_refuses(template, said):
    inner = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    with pytest.raises(ValueError, match=said) as raised:
        Tokenizer(inner, chat_template=template).chat(TALK)
    assert "\n" not in str(raised.value) and str(raised.value).endswith(".")


def break_file(folder, name, content):
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "name", "content", "said"),
    [
        (bert, "tokenizer.json", b'{"version": "1.0"', "tokenizer.json cannot be read"),
        (bert, "tokenizer_config.json", b"[]", "tokenizer_config.json holds a list"),
        (bert, "tokenizer_config.json", b'{"cls_token": "<none>"}', "no token '<none>'"),
        (bert, "tokenizer_config.json", b'{"cls_token": {"content": 5}}', "tokenizer_config.json"),
        (bert, "tokenizer_config.json", b'{"do_lower_case": "no"}', "vocab.txt cannot be read"),
        (bert, "vocab.txt", b"\xff\xfe", "vocab.txt cannot be read"),
        (bert, "vocab.txt", b"a\nb\n", "no token '[CLS]'"),
        (bert, "special_tokens_map.json", b"{", "special_tokens_map.json is no JSON"),
        (gpt2, "merges.txt", b"#version\na b c d\n", "merges.txt cannot be read"),
        (gpt2, "vocab.json", b"{}", "merges.txt cannot be read"),
        (gpt2, "added_tokens.json", b'{"<x>": 3}', "'<x>' has the id"),
        (gpt2, "added_tokens.json", b'{"<x>": "y", "<z>": 3}', "cannot be read"),
    ],
)
def test_broken_files_end_in_one_sentence(tmp_path, kind, name, content, said):
    folder = kind(tmp_path / "model")
    break_file(folder, name, content)
    with pytest.raises(ValueError) as raised:
        read_tokenizer(folder)
    message = str(raised.value)
    assert said in message and str(folder) in message and "\n" not in message

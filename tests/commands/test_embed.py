"""``family embed``: a line of JSON for each text, from arguments or standard input."""

from __future__ import annotations

import io
import json
import sys

import pytest
import torch
import torch.nn.functional as F

import family
from family.inputs.encode import with_ends
from family.inputs.preprocess import Preprocess
from family.models.sentence import SentenceEncoder
from tasks.cli import main
from tasks.data.pairs import encode_texts
from tasks.data.tokenizers import train_tokenizer

TEXTS = ["a red circle", "", "a blue square and é", "a " * 40]


@pytest.fixture
def source(tmp_path):
    torch.manual_seed(0)
    tokenizer = with_ends(train_tokenizer("bpe", TEXTS, 300))
    config = family.TransformerConfig(
        dim=32, depth=2, heads=4, position="learned", norm_order="post", max_tokens=32
    )
    model = SentenceEncoder(tokenizer.vocab_size, config, max_tokens=9)
    model.tokenizer = tokenizer
    family.save_pretrained(model, tmp_path / "model")
    return tmp_path / "model"


def lines(capsys):
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [row["text"] for row in rows], torch.tensor([row["embedding"] for row in rows])


def expected(source, texts):
    model = family.from_pretrained(source)
    assert model.tokenizer.batch(texts, 9)[0].shape[1] <= 9
    return torch.cat([model.encode_text(*model.tokenizer.batch([t], 9)) for t in texts]).detach()


def test_texts_of_the_command_line(source, capsys):
    main(["embed", str(source), *TEXTS])
    texts, embeddings = lines(capsys)
    assert texts == TEXTS
    torch.testing.assert_close(embeddings, expected(source, TEXTS))
    main(["embed", str(source), TEXTS[0]])
    alone = lines(capsys)[1]
    model = family.from_pretrained(source)
    with torch.inference_mode():
        exact = model.encode_text(*model.tokenizer.batch(TEXTS[:1], 9))
    assert torch.equal(alone, exact)  # the digits printed are all there are


def test_lines_of_standard_input(source, capsys, monkeypatch):
    given = [f"a red circle {i}" for i in range(35)] + ["", "é"]
    stdin = io.TextIOWrapper(io.BytesIO("".join(f"{text}\n" for text in given).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    main(["embed", str(source)])
    texts, embeddings = lines(capsys)
    assert texts == given
    torch.testing.assert_close(embeddings, expected(source, given))


def test_texts_of_clip_are_of_length_one(tmp_path, capsys):
    tokenizer = train_tokenizer("char", TEXTS)
    model = family.clip_small(tokenizer.vocab_size, image_size=16, patch_size=8).eval()
    model.tokenizer = tokenizer
    model.preprocess = Preprocess((16, 16))
    family.save_pretrained(model, tmp_path / "clip")
    main(["embed", str(tmp_path / "clip"), TEXTS[0]])
    wanted = model.encode_text(*encode_texts(tokenizer, TEXTS[:1], 32)).detach()
    torch.testing.assert_close(lines(capsys)[1], F.normalize(wanted, dim=-1))


def test_refused_in_one_sentence(source, tmp_path, capsys):
    model = family.from_pretrained(source)
    model.tokenizer = None
    family.save_pretrained(model, tmp_path / "mute")
    other = family.bert_tiny(97, dim=32, heads=4, depth=1, num_classes=2, masked_head=False)
    family.save_pretrained(other, tmp_path / "bert")
    for name, said in {
        "mute": "has no tokenizer",
        "bert": "is a BERT, made for TextClassification, but this needs SentenceEmbedding",
        "nothing/there": "nothing/there",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            main(["embed", str(tmp_path / name) if "/" not in name else "./" + name, "a"])
        message = capsys.readouterr().err
        assert stopped.value.code == 2 and said in message and len(message.splitlines()) == 1
    with pytest.raises(SystemExit):
        main(["classify", str(source), "a red circle"])
    assert "is a SentenceEncoder, made for SentenceEmbedding" in capsys.readouterr().err

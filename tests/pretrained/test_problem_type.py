"""What a head says: as transformers' pipelines and sentence-transformers' cross-encoders show it, whatever
``problem_type`` says or leaves open; kept by models, by folders and by exports."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import family
from family.heads.problem import MULTI, REGRESSION, SINGLE, answers, problem_of
from tasks.cli import main
from tasks.commands.export import beside, load
from tasks.training.scorers import ClassifierScorer

transformers = pytest.importorskip("transformers")

WORDS = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]", "a", "red", "circle", "and", "star"]
TEXTS = ["a red circle", "a star and a red star"]
STACK = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20,
    "initializer_range": 1.0,
}  # fmt: skip
SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"
NAMES = {0: "circle", 1: "square", 2: "star"}


def config_of(labels, problem, **options):
    named = {"id2label": {i: NAMES[i] for i in range(labels)}} if labels > 1 else {"num_labels": 1}
    return {**STACK, **named, "problem_type": problem, **options}


def texts_folder(folder, kind, labels, problem, **options):
    """A stand-in of a published classifier of texts, with its tokenizer."""
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(WORDS), max_position_embeddings=40, pad_token_id=1,
        **config_of(labels, problem, **options),
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def picture_folder(folder, labels, problem):
    torch.manual_seed(3)
    options = config_of(labels, problem, image_size=16, patch_size=8)
    transformers.ViTForImageClassification(
        transformers.ViTConfig(**options)
    ).eval().save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    processor.save_pretrained(folder)
    return folder


def piped(task, folder, inputs):
    """The scores of transformers' own pipeline: a dictionary by label of each input."""
    pipeline = transformers.pipeline(task, model=str(folder), device="cpu")
    rows = (pipeline(one, top_k=None) for one in inputs)
    return [{row["label"]: row["score"] for row in found} for found in rows]


def ours(folder, inputs):
    """The same of ours: probabilities by label; of one label a number."""
    found = family.load(folder).predict(inputs)
    return [one["probabilities"] if isinstance(one, dict) else {"LABEL_0": one} for one in found]


def same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=2e-5)


CASES = [
    (3, None, None),
    (3, SINGLE, SINGLE),
    (3, MULTI, MULTI),
    (1, None, MULTI),
    (1, MULTI, MULTI),
    (1, REGRESSION, REGRESSION),
]


@pytest.mark.parametrize(
    ("kind", "labels", "problem", "read"),
    [*(("Bert", *case) for case in CASES), *(("Roberta", *case) for case in CASES[2::3])],
)
def test_texts(tmp_path, kind, labels, problem, read):
    folder = texts_folder(tmp_path / "theirs", kind, labels, problem)
    expected = piped("text-classification", folder, TEXTS)
    same(ours(folder, TEXTS), expected)
    model = family.from_pretrained(folder)
    assert model.problem_type == read
    # Their layout and ours keep it.
    for layout in (kind.lower(), None):
        written = tmp_path / f"written as {layout}"
        family.save_pretrained(model, written, format=layout)
        same(ours(written, TEXTS), expected)
        assert family.from_pretrained(written).problem_type == read
    same(piped("text-classification", tmp_path / f"written as {kind.lower()}", TEXTS), expected)


@pytest.mark.parametrize(("labels", "problem", "read"), CASES)
def test_pictures(tmp_path, capsys, labels, problem, read):
    noise = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), np.uint8)
    pictures = [Image.fromarray(one) for one in noise]
    folder = picture_folder(tmp_path / "theirs", labels, problem)
    expected = piped("image-classification", folder, pictures)
    same(ours(folder, pictures), expected)
    model = family.from_pretrained(folder)
    assert model.problem_type == read
    family.save_pretrained(model, tmp_path / "vit", format="vit")
    same(piped("image-classification", tmp_path / "vit", pictures), expected)
    pictures[0].save(tmp_path / "a.png")
    capsys.readouterr()
    main(["classify", str(folder), str(tmp_path / "a.png"), "--top=3"])
    line = capsys.readouterr().out.strip().partition("\t")[2]
    best = sorted(expected[0].items(), key=lambda one: -one[1])
    shown = ", ".join(f"{name} {score:.3f}" for name, score in best)
    assert line == (shown if labels > 1 else f"{expected[0]['LABEL_0']:.3f}")


CROSS = [
    (1, {}, MULTI),
    (1, {"sentence_transformers": {"activation_fn": IDENTITY}}, REGRESSION),
    (1, {"sentence_transformers": {"activation_fn": SIGMOID}}, MULTI),
    (1, {"sbert_ce_default_activation_function": IDENTITY}, REGRESSION),
    (3, {"sentence_transformers": {"activation_fn": SIGMOID}}, MULTI),
]


@pytest.mark.parametrize(("labels", "options", "read"), CROSS)
def test_what_cross_encoders_say(tmp_path, labels, options, read):
    folder = texts_folder(tmp_path / "theirs", "Bert", labels, None, **options)
    model = family.from_pretrained(folder)
    assert model.problem_type == read
    family.save_pretrained(model, tmp_path / "back", format="bert")
    assert family.from_pretrained(tmp_path / "back").problem_type == read
    written = json.loads((tmp_path / "back/config.json").read_text())
    assert ("sentence_transformers" in written) == (read == REGRESSION)


@pytest.mark.slow
@pytest.mark.parametrize(("labels", "options", "read"), CROSS)
def test_cross_encoders_of_sentence_transformers(tmp_path, labels, options, read):
    library = pytest.importorskip("sentence_transformers")
    folder = texts_folder(tmp_path / "theirs", "Bert", labels, None, **options)
    pairs = [TEXTS, TEXTS[::-1]]
    theirs = library.CrossEncoder(str(folder), device="cpu").predict(pairs)
    loaded = family.load(folder)
    found = loaded.predict([one for one, _ in pairs], pairs=[other for _, other in pairs])
    found = [[*one["probabilities"].values()] if labels > 1 else one for one in found]
    assert np.allclose(found, theirs, atol=2e-5)
    # What is written they show as before.
    family.save_pretrained(loaded.model, tmp_path / "back", format="bert")
    if labels == 1:
        again = library.CrossEncoder(str(tmp_path / "back"), device="cpu").predict(pairs)
        assert np.allclose(again, theirs, atol=2e-5)


def test_what_nobody_knows_is_refused_by_name(tmp_path):
    folder = texts_folder(tmp_path / "theirs", "Bert", 1, None)
    fields = json.loads((folder / "config.json").read_text())
    for more, said in (
        ({"problem_type": "ranking"}, "problem_type='ranking' is unknown; choose one of: single_"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}},
            "activation_fn='Tanh' is not",
        ),
    ):
        (folder / "config.json").write_text(json.dumps({**fields, **more}))
        with pytest.raises(ValueError, match=said):
            family.from_pretrained(folder)


def test_a_head_for_another_number_of_labels_says_what_is_usual(tmp_path):
    folder = texts_folder(tmp_path / "theirs", "Bert", 3, MULTI)
    assert family.from_pretrained(folder, num_classes=3).problem_type == MULTI
    assert family.from_pretrained(folder, num_classes=4).problem_type is None


def test_classes_labels_and_numbers_in_plain_formulas():
    class Model:
        problem_type = None

    logits = torch.tensor([[0.3, -1.0, 2.0]])
    assert torch.allclose(answers(Model, logits), logits.exp() / logits.exp().sum())
    assert torch.equal(answers(Model, logits[:, :1]), logits[:, :1])
    Model.problem_type = MULTI
    assert torch.allclose(answers(Model, logits), 1 / (1 + (-logits).exp()))
    Model.problem_type = SINGLE  # the softmax of one number is 1, whatever it is
    assert torch.allclose(answers(Model, logits[:, :1]), 1 / (1 + (-logits[:, :1]).exp()))
    Model.problem_type = "ranking"
    with pytest.raises(ValueError, match="problem_type='ranking' is unknown"):
        problem_of(Model, 3)


def test_a_scorer_takes_the_sigmoid_of_a_label(tmp_path):
    folder = texts_folder(tmp_path / "theirs", "Bert", 3, MULTI)
    scores = ClassifierScorer(str(folder), "star")([""] * 2, TEXTS)
    expected = [row["star"] for row in piped("text-classification", folder, TEXTS)]
    assert scores == pytest.approx(expected, abs=2e-5)
    odds = ClassifierScorer(str(folder), "star", log_odds=True)([""] * 2, TEXTS)
    assert odds == pytest.approx(np.log(expected / (1 - np.array(expected))), abs=1e-3)


def test_an_export_says_it(tmp_path):
    folder = texts_folder(tmp_path / "theirs", "Bert", 3, MULTI)
    assert beside(load(str(folder)))["problem_type"] == MULTI

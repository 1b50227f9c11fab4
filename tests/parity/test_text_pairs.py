"""Classes and numbers of pairs of texts: loss and gradients of the tasks, against transformers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family
from tasks.text_classification import TextClassification
from tasks.text_regression import TextRegression

sys.path.insert(0, str(Path(__file__).parent))
import peers

transformers = pytest.importorskip("transformers")

EXACT = 1e-9
PAD = 1
SIZES = {
    "vocab_size": 97, "hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3,
    "intermediate_size": 70, "pad_token_id": PAD,
}  # fmt: skip
KINDS = {"Bert": {"max_position_embeddings": 19}, "Roberta": {"max_position_embeddings": 21}}


@pytest.mark.parametrize("task", [TextClassification, TextRegression])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients(tmp_path, kind, task):
    numbers = task is TextRegression
    types = 2 if kind == "Bert" else 1
    config = getattr(transformers, f"{kind}Config")(
        **SIZES, **KINDS[kind], num_labels=1 if numbers else 5, type_vocab_size=types
    )
    theirs = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval().double()
    peers.randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = family.from_pretrained(tmp_path)
    assert family.models.member.tasks_of(ours) == [task.__name__]

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, 97, (5, 13), generator=generator)
    mask = torch.arange(13) < torch.tensor([13, 9, 4, 11, 5])[:, None]
    ids = ids.masked_fill(~mask, PAD)
    segments = (torch.arange(13) >= torch.tensor([6, 4, 2, 9, 3])[:, None]).long() * (types - 1)
    labels = torch.tensor([0.5, 3.8, 5.0, 0.0, 2.25]).double() if numbers else torch.arange(5)
    batch = {"input_ids": ids, "mask": mask, "token_types": segments, "labels": labels}
    learner = task(ours)
    learner.adapt_model()
    loss = learner.loss(batch)["loss"]
    expected = theirs(
        input_ids=ids, attention_mask=mask.long(), token_type_ids=segments, labels=labels
    ).loss
    assert loss.dtype == torch.float64
    peers.assert_close(loss[None], expected[None], EXACT)
    if types == 2:  # segments count
        other = learner.loss({**batch, "token_types": torch.zeros_like(segments)})["loss"]
        assert abs(other - loss) > 1e-3

    loss.backward()
    expected.backward()
    # Their gradients under our names: as if they were weights.
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.data = parameter.grad
    theirs.save_pretrained(tmp_path / "gradients")
    gradients = dict(family.from_pretrained(tmp_path / "gradients").named_parameters())
    for name, parameter in ours.named_parameters():
        peers.assert_close(parameter.grad, gradients[name], EXACT)

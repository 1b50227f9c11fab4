"""BERT, RoBERTa and DistilBERT against transformers, in float64 with the same random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import family

sys.path.insert(0, str(Path(__file__).parent))
import peers

transformers = pytest.importorskip("transformers")

EXACT = 1e-9
PAD = 1
LENGTHS = [11, 7, 4]

BERT = {
    "embedding.tokens": ["embeddings.word_embeddings"],
    "embedding.position": ["embeddings.position_embeddings"],
    "embedding.token_types": ["embeddings.token_type_embeddings"],
    "embedding.norm": ["embeddings.LayerNorm"],
    "transformer.blocks.{}.self_attention.sublayer.qkv": [
        f"encoder.layer.{{}}.attention.self.{name}" for name in ("query", "key", "value")
    ],
    "transformer.blocks.{}.self_attention.sublayer.out": [
        "encoder.layer.{}.attention.output.dense"
    ],
    "transformer.blocks.{}.self_attention.norm": ["encoder.layer.{}.attention.output.LayerNorm"],
    "transformer.blocks.{}.feedforward.sublayer.up": ["encoder.layer.{}.intermediate.dense"],
    "transformer.blocks.{}.feedforward.sublayer.down": ["encoder.layer.{}.output.dense"],
    "transformer.blocks.{}.feedforward.norm": ["encoder.layer.{}.output.LayerNorm"],
}
DISTILBERT = {
    "embedding.tokens": ["embeddings.word_embeddings"],
    "embedding.position": ["embeddings.position_embeddings"],
    "embedding.norm": ["embeddings.LayerNorm"],
    "transformer.blocks.{}.self_attention.sublayer.qkv": [
        f"transformer.layer.{{}}.attention.{name}_lin" for name in "qkv"
    ],
    "transformer.blocks.{}.self_attention.sublayer.out": ["transformer.layer.{}.attention.out_lin"],
    "transformer.blocks.{}.self_attention.norm": ["transformer.layer.{}.sa_layer_norm"],
    "transformer.blocks.{}.feedforward.sublayer.up": ["transformer.layer.{}.ffn.lin1"],
    "transformer.blocks.{}.feedforward.sublayer.down": ["transformer.layer.{}.ffn.lin2"],
    "transformer.blocks.{}.feedforward.norm": ["transformer.layer.{}.output_layer_norm"],
}
STACKS = {"Bert": BERT, "Roberta": BERT, "DistilBert": DISTILBERT}
MASKED = {
    "Bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder"),
    "Roberta": ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder"),
    "DistilBert": ("vocab_transform", "vocab_layer_norm", "vocab_projector"),
}  # fmt: skip
CLASSES = {
    "BertForPreTraining": ("bert.pooler.dense", "cls.seq_relationship"),
    "BertForSequenceClassification": ("bert.pooler.dense", "classifier"),
    "RobertaForSequenceClassification": ("classifier.dense", "classifier.out_proj"),
    "DistilBertForSequenceClassification": ("pre_classifier", "classifier"),
}
TAGS = (
    "BertForTokenClassification",
    "RobertaForTokenClassification",
    "DistilBertForTokenClassification",
)
TAGGER = {"num_classes": 5, "masked_head": False, "pooling": "tokens", "pooler": None}
OURS = {
    "BertForMaskedLM": {},
    "BertForPreTraining": {"num_classes": 2},
    "BertForSequenceClassification": {"num_classes": 5, "masked_head": False},
    "BertModel": {"masked_head": False, "pooler": "tanh"},
    "RobertaForMaskedLM": {},
    "RobertaForSequenceClassification": {"num_classes": 5, "masked_head": False},
    "DistilBertForMaskedLM": {},
    "DistilBertForSequenceClassification": {"num_classes": 5, "masked_head": False},
    **dict.fromkeys(TAGS, TAGGER),
}
NAMES = list(OURS)


def kind_of(name):
    return next(kind for kind in ("DistilBert", "Roberta", "Bert") if name.startswith(kind))


def table_of(name):
    kind = kind_of(name)
    if name == "BertModel":
        return {**BERT, "pooler.dense": ["pooler.dense"]}
    prefix = kind.lower()
    table = {ours: [f"{prefix}.{part}" for part in parts] for ours, parts in STACKS[kind].items()}
    if name in CLASSES:
        for ours, theirs in zip(("pooler.dense", "class_head"), CLASSES[name], strict=True):
            table[ours] = [theirs]
    if name in TAGS:
        table["class_head"] = ["classifier"]
    if not name.endswith("Classification"):
        places = ("masked_head.dense", "masked_head.norm", "masked_head.output")
        for ours, theirs in zip(places, MASKED[kind], strict=True):
            table[ours] = [theirs]
    return table


def weights(theirs, name):
    """Their weights under our names."""
    state, ours = theirs.state_dict(), {}
    for our_name, parts in table_of(name).items():
        layers = range(theirs.config.num_hidden_layers) if "{}" in our_name else [0]
        for layer in layers:
            for kind in ("weight", "bias"):
                values = [state.get(f"{part.format(layer)}.{kind}") for part in parts]
                if values[0] is not None:
                    ours[f"{our_name.format(layer)}.{kind}"] = torch.cat(values)
    if kind_of(name) == "Roberta":
        # The two rows in front are the padding's and one that nothing reads.
        ours["embedding.position.weight"] = ours["embedding.position.weight"][2:]
    return ours


def pair(name):
    kind = kind_of(name)
    fields = {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "max_position_embeddings": 18 if kind == "Roberta" else 16, "pad_token_id": PAD,
        "num_labels": OURS[name].get("num_classes", 2),
        "hidden_dim" if kind == "DistilBert" else "intermediate_size": 80,
    }  # fmt: skip
    if kind == "Roberta":
        fields.update(type_vocab_size=1, layer_norm_eps=1e-5)
    config = getattr(transformers, f"{kind}Config")(**fields)
    theirs = getattr(transformers, name)(config).eval().double()
    peers.randomise(theirs)
    builder = {"Bert": family.bert_base, "Roberta": family.roberta_base}.get(kind)
    builder = builder or family.distilbert_base
    sizes = {"dim": 32, "depth": 3, "heads": 4, "ffn_dim": 80, "max_tokens": 16}
    ours = builder(97, **sizes, **OURS[name]).eval().double()
    peers.load(ours, weights(theirs, name))
    return ours, theirs


def batch(name, side="right"):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, 97, (3, 11), generator=generator)
    mask = torch.ones(3, 11, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        mask[row, slice(0, 11 - length) if side == "left" else slice(length, 11)] = False
    types = torch.randint(0, 2, (3, 11), generator=generator)
    return ids.masked_fill(~mask, PAD), mask, types if kind_of(name) == "Bert" else None


def answers(ours, name, ids, mask, types):
    """All that the model gives, as transformers orders it."""
    if name == "BertForPreTraining":
        tokens = ours.encode(ids, mask, types)
        return [ours.masked_logits(tokens), ours.class_logits(tokens, mask)]
    if name == "BertModel":
        tokens = ours(ids, mask, types)
        return [tokens, ours.pooled(tokens, mask)]
    return [ours(ids, mask, types)]


def expectations(theirs, name, ids, mask, types, **labels):
    inputs = {"input_ids": ids, "attention_mask": None if mask is None else mask.long(), **labels}
    if types is not None:
        inputs["token_type_ids"] = types
    out = theirs(**inputs)
    fields = {
        "BertForPreTraining": ("prediction_logits", "seq_relationship_logits"),
        "BertModel": ("last_hidden_state", "pooler_output"),
    }.get(name, ("logits",))
    return [out[field] for field in fields], out.get("loss")


def labels_of(name, ids, mask):
    """Labels as transformers takes them; -100 is no label."""
    classes = torch.tensor([1, 0, 1])
    generator = torch.Generator().manual_seed(2)
    if name in TAGS:  # one token of two has no label, as the later pieces of a word
        tags = torch.randint(0, 5, ids.shape, generator=generator)
        return {"labels": tags.where(mask & (torch.arange(11) % 2 == 0), -100)}
    if name.endswith("Classification"):
        return {"labels": classes}
    chosen = mask & (torch.rand(ids.shape, generator=generator) < 0.5)
    masked = {"labels": torch.randint(2, 97, ids.shape, generator=generator).where(chosen, -100)}
    if name == "BertForPreTraining":
        masked["next_sentence_label"] = classes
    return {} if name == "BertModel" else masked


@pytest.mark.parametrize("name", NAMES)
def test_outputs_loss_and_gradients(name):
    ours, theirs = pair(name)
    ids, mask, types = batch(name)
    labels = labels_of(name, ids, mask)
    got = answers(ours, name, ids, mask, types)
    expected, expected_loss = expectations(theirs, name, ids, mask, types, **labels)
    for ours_part, theirs_part in zip(got, expected, strict=True):
        tokens = ours_part.dim() == 3  # what padding gives is nobody's business
        peers.assert_close(
            ours_part[mask] if tokens else ours_part,
            theirs_part[mask] if tokens else theirs_part,
            EXACT,
        )
    if labels:
        loss = sum(
            F.cross_entropy(part.flatten(0, -2), label.flatten())
            for part, label in zip(got, labels.values(), strict=True)
        )
    else:
        loss, expected_loss = (
            part[0][mask].square().sum() + part[1].sum() for part in (got, expected)
        )
    peers.assert_close(loss[None], expected_loss[None], EXACT)
    loss.backward()
    expected_loss.backward()
    # Their gradients under our names: the same table, read on a copy whose weights are gradients.
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.data = parameter.grad
    gradients = weights(theirs, name)
    for parameter_name, parameter in ours.named_parameters():
        peers.assert_close(parameter.grad, gradients[parameter_name], EXACT)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_padded_batch_equals_single(name, side):
    ours, theirs = pair(name)
    ids, mask, types = batch(name, side)
    got = answers(ours, name, ids, mask, types)
    for row in range(3):
        real = mask[row]
        alone = ids[row, real][None], None, None if types is None else types[row, real][None]
        expected, _ = expectations(theirs, name, *alone)
        for ours_part, theirs_part in zip(got, expected, strict=True):
            part = ours_part[row, real] if ours_part.dim() == 3 else ours_part[row]
            peers.assert_close(part[None], theirs_part, EXACT)

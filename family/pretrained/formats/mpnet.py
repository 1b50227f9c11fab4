"""MPNet (Song et al. 2020), as transformers and the hub store it: RoBERTa with one more position."""

from __future__ import annotations

from dataclasses import replace

from family.models.bert import BERT
from family.pretrained.formats import roberta
from family.pretrained.table import Names, blocks

BLOCK: Names = {
    "self_attention.sublayer.qkv": tuple(f"attention.attn.{part}" for part in "qkv"),
    "self_attention.sublayer.out": "attention.attn.o",
    "self_attention.norm": "attention.LayerNorm",
    "feedforward.sublayer.up": "intermediate.dense",
    "feedforward.sublayer.down": "output.dense",
    "feedforward.norm": "output.LayerNorm",
}


def names(model: BERT) -> Names:
    return {
        "embedding.tokens": "mpnet.embeddings.word_embeddings",
        "embedding.norm": "mpnet.embeddings.LayerNorm",
        "transformer.bias.table": "mpnet.encoder.relative_attention_bias",
        **blocks("transformer", "mpnet.encoder.layer.{}", BLOCK),
        **roberta.around(model, "mpnet"),
    }


FORMAT = replace(
    roberta.FORMAT,
    name="mpnet",
    model_types=("mpnet",),
    architectures=(
        "MPNetModel",
        "MPNetForMaskedLM",
        "MPNetForSequenceClassification",
        "MPNetForTokenClassification",
        "MPNetForQuestionAnswering",
    ),
    fields=[field for field in roberta.FORMAT.fields if field.ours != "token_types"],
    constants={
        "config.norm_order": "post",
        "config.position": "relative",
        "embedding_position": "learned",
        "token_types": 0,
    },
    fixed={
        # Their code counts so many, whatever the size of the table.
        "relative_attention_num_buckets": 32,
        "pad_token_id": roberta.UNUSED - 1,
        "tie_word_embeddings": True,
    },
    prefix="mpnet.",
    names=names,
    finish=roberta.fields("MPNet"),
)

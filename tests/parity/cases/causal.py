"""Language models that read from left to right."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from cases.widened import Widened
from harness import NEW_TOKENS, Batch, Case
from torch import Tensor, nn

from family.losses.language_model import language_model_loss

VOCAB, TOKENS, CONTEXT = 97, 11, 128
NO_SPECIALS: dict[str, Any] = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": None}


def batch() -> Batch:
    """Three prompts of unequal length, padded at the left."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCAB, (3, TOKENS), generator=generator)
    mask = torch.ones(3, TOKENS, dtype=torch.bool)
    mask[1, :4] = mask[2, :8] = False
    return {"input_ids": ids, "mask": mask}


def ours(model: Any, batch: Batch) -> Tensor:
    return model(batch["input_ids"], batch["mask"])[batch["mask"]]


def theirs(model: Any, batch: Batch) -> Tensor:
    mask = batch["mask"].long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = model(batch["input_ids"], attention_mask=mask, position_ids=positions)
    return output.logits[batch["mask"]]


def widened(call: Any) -> Any:
    """A call of theirs; a model in float64 computes all of it so."""

    def calling(model: Any, batch: Batch) -> Tensor:
        with Widened() if model.dtype == torch.float64 else nullcontext():
            return call(model, batch)

    return calling


def labels(logits: Tensor) -> Tensor:
    return torch.randint(0, VOCAB, (len(logits),), generator=torch.Generator().manual_seed(2))


def our_loss(logits: Tensor) -> Tensor:
    return language_model_loss(logits[None], labels(logits)[None])


def their_loss(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels(logits))  # as transformers', which rounds to float32


def generate(model: Any, batch: Batch) -> Tensor:
    mask = batch["mask"].long()
    tokens = model.generate(
        batch["input_ids"],
        attention_mask=mask,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
    )
    return tokens[:, TOKENS:]


def following(model: Any, batch: Batch, tokens: Tensor) -> Tensor:
    ids = torch.cat([batch["input_ids"], tokens], dim=1)
    mask = torch.cat([batch["mask"], torch.ones_like(tokens, dtype=torch.bool)], dim=1)
    return model(ids, mask)[:, -1]


def case(member: str, format: Any, build: Any, **more: Any) -> Case:
    usual: dict[str, Any] = {
        "batch": batch,
        "ours": ours,
        "theirs": widened(theirs),
        "losses": (our_loss, their_loss),
        "generate": widened(generate),
        "next": following,
    }
    return Case(member, format, build, **{**usual, **more})


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=CONTEXT, **NO_SPECIALS
    )
    return transformers.GPT2LMHeadModel(config)


LLAMA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    **NO_SPECIALS,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def llama(**options: Any) -> Any:
    return lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA | options))


def mistral() -> nn.Module:
    """A window shorter than the prompts."""
    config = transformers.MistralConfig(**LLAMA, sliding_window=5, head_dim=16)
    return transformers.MistralForCausalLM(config)


def qwen2() -> nn.Module:
    config = transformers.Qwen2Config(**LLAMA, tie_word_embeddings=True)
    return transformers.Qwen2ForCausalLM(config)


def neox(parallel: bool, **options: Any) -> Any:
    given = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}
    config = {**given, "use_parallel_residual": parallel, **options}
    return lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**config))


def opt(**options: Any) -> Any:
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "ffn_dim": 80, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "max_position_embeddings": CONTEXT}
    config = {**sizes, **heads, **NO_SPECIALS, **options}
    return lambda: transformers.OPTForCausalLM(transformers.OPTConfig(**config))


LINEAR = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}
CASES = [
    case("GPT-2", "gpt2", gpt2),
    case("Llama", "llama", llama()),
    case(
        "Llama, biases, tied, wide heads",
        "llama",
        llama(attention_bias=True, mlp_bias=True, tie_word_embeddings=True, head_dim=12),
    ),
    case("Llama 3.1", "llama", llama(rope_parameters=LLAMA3)),
    case("Llama, interpolated positions", "llama", llama(rope_parameters=LINEAR)),
    case("Mistral", "mistral", mistral),
    case("Qwen2", "qwen2", qwen2),
    case("GPT-NeoX, Pythia", "gpt_neox", neox(True)),
    case("GPT-NeoX, one after the other", "gpt_neox", neox(False, rotary_pct=0.5)),
    case("OPT", "opt", opt()),
    case("OPT, post-norm", "opt", opt(do_layer_norm_before=False, enable_bias=False)),
]

"""SeriesTransformer computes what torch's own encoder does of the same weights, outputs and gradients."""

from __future__ import annotations

import torch
from torch import nn

import family
from family.core.config import TransformerConfig

NAMES = {
    "self_attn.in_proj_": "self_attention.sublayer.qkv.",
    "self_attn.out_proj.": "self_attention.sublayer.out.",
    "linear1.": "feedforward.sublayer.up.",
    "linear2.": "feedforward.sublayer.down.",
    "norm1.": "self_attention.norm.",
    "norm2.": "feedforward.norm.",
}
"""Of torch's layer -> of a block of ours."""


def test_as_torchs_own_layers():
    torch.manual_seed(0)
    config = TransformerConfig(dim=16, depth=2, heads=2, ffn_dim=24, position="learned")
    ours = family.SeriesTransformer(3, config, channels=2, patch_size=4).double().eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    layer = nn.TransformerEncoderLayer(
        16, 2, 24, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    state = ours.transformer.state_dict()
    theirs.load_state_dict(
        {
            f"layers.{i}.{them}{end}": state[f"blocks.{i}.{us}{end}"]
            for i in range(2)
            for them, us in NAMES.items()
            for end in ("weight", "bias")
        }
    )
    values = torch.randn(3, 11, 2, dtype=torch.float64)
    step_mask = torch.arange(11) < torch.tensor([[11], [8], [3]])
    values = values * step_mask[..., None]
    found = ours(values, step_mask)

    patches = torch.cat([values, values.new_zeros(3, 1, 2)], 1).reshape(3, 3, 8)
    there = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.bool)
    x = ours.embedding.projection(patches) + ours.embedding.position.weight[:3]
    x = ours.transformer.norm(theirs(x, src_key_padding_mask=~there))
    pooled = torch.stack([row[mask].mean(0) for row, mask in zip(x, there, strict=True)])
    wanted = ours.head(pooled)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)

    found.square().sum().backward()
    mine = [p.grad for b in ours.transformer.blocks for p in b.feedforward.parameters()]
    wanted.square().sum().backward()
    theirs_of = dict(theirs.named_parameters())
    own = dict(ours.transformer.blocks[0].named_parameters())
    assert all(one.abs().sum() > 0 for one in mine)
    for them, us in NAMES.items():
        for end in ("weight", "bias"):
            torch.testing.assert_close(
                own[f"{us}{end}"].grad,
                theirs_of[f"layers.0.{them}{end}"].grad,
                rtol=1e-9,
                atol=1e-10,
            )

"""Codebooks against vector-quantize-pytorch: values, losses, gradients, and what codes become."""

from __future__ import annotations

import pytest
import torch

from family.inputs.codebook import CodebookConfig, make_codebook

peer = pytest.importorskip(
    "vector_quantize_pytorch",
    reason="vector-quantize-pytorch 1.32 and what it needs (einops, einx, loguru, torch-einops-utils)",
    exc_type=ImportError,
)
SIZE, DIM, STEPS = 24, 6, 5


def called(codebook, x):
    """Latents, ids and loss of ``(batch, dim, rows, columns)``; theirs takes rows of vectors."""
    if not isinstance(codebook, peer.VectorQuantize):
        return codebook(x)
    latents, ids, loss = codebook(x.flatten(2).transpose(1, 2))
    return latents.transpose(1, 2).view_as(x), ids, loss


@pytest.mark.parametrize("kind", ["ema", "rotation"])
def test_moving_means_and_gradients(kind):
    torch.manual_seed(0)
    theirs = peer.VectorQuantize(
        dim=DIM,
        codebook_size=SIZE,
        decay=0.8,
        commitment_weight=0.4,
        rotation_trick=kind == "rotation",
        threshold_ema_dead_code=0,
    )
    ours = make_codebook(CodebookConfig(kind, SIZE, DIM, decay=0.8, commitment=0.4, restart=0))
    state = {name: value[0] for name, value in theirs._codebook.state_dict().items() if value.dim()}
    ours.codes.copy_(state["embed"])
    ours.counts.copy_(state["cluster_size"])
    ours.sums.copy_(state["embed_avg"])
    ours.steps += 1
    for _ in range(STEPS):
        x = torch.randn(3, DIM, 4, 5)
        above = torch.randn_like(x)
        found = []
        for codebook in (theirs, ours):
            given = x.clone().requires_grad_()
            latents, ids, loss = called(codebook, given)
            ((latents * above).sum() + loss).backward()
            found.append((latents, ids, loss.reshape(()), given.grad))
        for other, one in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        embed = theirs._codebook.embed[0]
        torch.testing.assert_close(ours.codes, embed, rtol=1e-5, atol=1e-5)
    theirs.eval()
    ours.eval()
    x = torch.randn(3, DIM, 4, 5)
    for other, one in zip(called(theirs, x)[:2], called(ours, x)[:2], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (3, 4), (7, 6, 8)])
def test_finite_scalars(levels):
    torch.manual_seed(0)
    theirs, ours = peer.FSQ(list(levels)), make_codebook(CodebookConfig("fsq", levels=levels))
    x = 2 * torch.randn(3, len(levels), 4, 5)
    above, found = torch.randn_like(x), []
    for codebook in (theirs, ours):
        given = x.clone().requires_grad_()
        latents, ids, *_ = codebook(given)
        (latents * above).sum().backward()
        found.append((latents, ids.flatten(1).long(), given.grad))
    for other, one in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    ids = torch.arange(ours.vocab_size)[None]
    torch.testing.assert_close(ours.vectors(ids), theirs.indices_to_codes(ids))

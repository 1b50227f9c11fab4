"""CLIP and the contrastive losses against transformers and open_clip, with the same random weights."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

import family
from family.losses.contrastive import clip_loss, siglip_loss

sys.path.insert(0, str(Path(__file__).parent))
import harness
import peers

EOS, TOKENS = 96, 12
TIGHT = 1e-9


def transformers_pair():
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPConfig(
        vision_config={
            "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3,
            "intermediate_size": 192, "image_size": 32, "patch_size": 8, "hidden_act": "quick_gelu",
        },
        text_config={
            "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 128, "max_position_embeddings": TOKENS, "eos_token_id": EOS,
            "bos_token_id": 95, "pad_token_id": 1, "hidden_act": "quick_gelu",
        },
        projection_dim=24,
    )  # fmt: skip
    return pair(transformers.CLIPModel(config))


def open_clip_pair(logit_bias: bool = False):
    model = pytest.importorskip("open_clip.model")
    theirs = model.CLIP(
        embed_dim=24,
        vision_cfg=model.CLIPVisionCfg(
            layers=3, width=48, head_width=16, patch_size=8, image_size=32
        ),
        text_cfg=model.CLIPTextCfg(
            context_length=TOKENS, vocab_size=97, width=32, heads=4, layers=2
        ),
        quick_gelu=True,
        init_logit_bias=-10.0 if logit_bias else None,
    )
    return pair(theirs)


def pair(theirs):
    theirs = theirs.double().eval()
    harness.randomise(theirs)
    with torch.no_grad():  # a temperature that leaves the softmax some doubt
        theirs.logit_scale.fill_(math.log(5.0))
    return family.from_pretrained(theirs), theirs


def batch():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64)
    ids = torch.randint(2, 95, (4, TOKENS), generator=generator)
    mask = torch.ones(4, TOKENS, dtype=torch.bool)
    for row, length in enumerate((TOKENS, 7, 3, 9)):
        ids[row, length - 1] = EOS
        ids[row, length:] = 1
        mask[row, length:] = False
    return pixels, ids, mask


def compare_gradients(ours, theirs):
    gradients = peers.gradients(theirs)
    names = dict(ours.named_parameters())
    assert names.keys() == gradients.keys()
    for name, parameter in names.items():
        peers.assert_close(parameter.grad, gradients[name], TIGHT)


def test_transformers_clip():
    ours, theirs = transformers_pair()
    pixels, ids, mask = batch()
    expected = theirs(
        input_ids=ids, pixel_values=pixels, attention_mask=mask.long(), return_loss=True
    )
    images, texts = ours.encode_image(pixels), ours.encode_text(ids, mask)
    their_images = theirs.get_image_features(pixels).pooler_output
    peers.assert_close(images, their_images, TIGHT)
    peers.assert_close(ours(pixels, ids, mask), expected.logits_per_image, TIGHT)
    loss = clip_loss(images, texts, ours.logit_scale)
    peers.assert_close(loss[None], expected.loss[None], TIGHT)
    loss.backward()
    expected.loss.backward()
    compare_gradients(ours, theirs)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_open_clip_and_its_losses(sigmoid):
    ours, theirs = open_clip_pair(logit_bias=sigmoid)
    pixels, ids, mask = batch()
    their_images, their_texts, scale, *bias = theirs(pixels, ids)
    images, texts = ours.encode_image(pixels), ours.encode_text(ids, mask)
    peers.assert_close(images, theirs.encode_image(pixels), TIGHT)
    peers.assert_close(texts, theirs.encode_text(ids), TIGHT)
    peers.assert_close(ours(pixels, ids, mask), theirs.get_logits(pixels, ids)[0], TIGHT)
    losses = pytest.importorskip("open_clip.loss")
    if sigmoid:
        expected = losses.SigLipLoss()(their_images, their_texts, scale, *bias)
        loss = siglip_loss(images, texts, ours.logit_scale, ours.logit_bias)
    else:
        expected = losses.ClipLoss()(their_images, their_texts, scale)
        loss = clip_loss(images, texts, ours.logit_scale)
    peers.assert_close(loss[None], expected[None], TIGHT)
    loss.backward()
    expected.backward()
    compare_gradients(ours, theirs)

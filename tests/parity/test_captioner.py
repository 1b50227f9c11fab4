"""Captioner with the weights of transformers' VisionEncoderDecoderModel (ViT in front of GPT-2 with
cross-attention): outputs and gradients."""

import pytest
import torch

import family
from family import PatchConfig, TransformerConfig

transformers = pytest.importorskip("transformers")
DIM, DEPTH, HEADS = 32, 2, 4


def theirs():
    vit = transformers.ViTConfig(
        hidden_size=DIM,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=48,
        image_size=16,
        patch_size=8,
    )
    gpt = transformers.GPT2Config(
        vocab_size=40,
        n_embd=DIM,
        n_layer=DEPTH,
        n_head=HEADS,
        n_inner=56,
        n_positions=16,
        add_cross_attention=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    both = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit, gpt)
    torch.manual_seed(0)
    model = transformers.VisionEncoderDecoderModel(config=both).eval()
    for parameter in model.parameters():  # biases too, and norms
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def ours():
    shared = {"dim": DIM, "depth": DEPTH, "heads": HEADS, "position": "learned"}
    encoder = TransformerConfig(**shared, ffn_dim=48, norm_eps=1e-12)
    decoder = TransformerConfig(
        **shared,
        ffn_dim=56,
        activation="gelu_tanh",
        max_tokens=16,
        causal=True,
        cross_attention=True,
    )
    return family.Captioner(
        40, encoder, decoder, image_size=16, patch_size=8, patches=PatchConfig()
    ).eval()


def carried(given):
    """Their state by our names."""
    made = {"head.weight": given["decoder.lm_head.weight"]}

    def take(name, *sources, transpose=False):
        for kind in ("weight", "bias"):
            parts = [given[f"{source}.{kind}"] for source in sources]
            made[f"{name}.{kind}"] = torch.cat([p.t() if transpose else p for p in parts])

    embeddings, gpt = "encoder.embeddings", "decoder.transformer"
    take("source_embedding.projection", f"{embeddings}.patch_embeddings.projection")
    made["source_embedding.prefix.weight"] = given[f"{embeddings}.cls_token"][0]
    made["source_embedding.position.weight"] = given[f"{embeddings}.position_embeddings"][0]
    made["target_embedding.tokens.weight"] = given[f"{gpt}.wte.weight"]
    made["target_embedding.position.weight"] = given[f"{gpt}.wpe.weight"]
    take("encoder.norm", "encoder.layernorm")
    take("decoder.norm", f"{gpt}.ln_f")
    for i in range(DEPTH):
        block, layer = f"encoder.blocks.{i}", f"encoder.layers.{i}"
        attention = f"{block}.self_attention.sublayer"
        take(f"{block}.self_attention.norm", f"{layer}.layernorm_before")
        take(f"{attention}.qkv", *(f"{layer}.attention.{n}_proj" for n in "qkv"))
        take(f"{attention}.out", f"{layer}.attention.o_proj")
        take(f"{block}.feedforward.norm", f"{layer}.layernorm_after")
        take(f"{block}.feedforward.sublayer.up", f"{layer}.mlp.fc1")
        take(f"{block}.feedforward.sublayer.down", f"{layer}.mlp.fc2")
        block, layer = f"decoder.blocks.{i}", f"{gpt}.h.{i}"
        for name, source in (
            ("self_attention.sublayer.qkv", "attn.c_attn"),
            ("self_attention.sublayer.out", "attn.c_proj"),
            ("cross_attention.sublayer.query", "crossattention.q_attn"),
            ("cross_attention.sublayer.key_value", "crossattention.c_attn"),
            ("cross_attention.sublayer.out", "crossattention.c_proj"),
            ("feedforward.sublayer.up", "mlp.c_fc"),
            ("feedforward.sublayer.down", "mlp.c_proj"),
        ):
            take(f"{block}.{name}", f"{layer}.{source}", transpose=True)
        for name, source in (
            ("self_attention", "ln_1"),
            ("cross_attention", "ln_cross_attn"),
            ("feedforward", "ln_2"),
        ):
            take(f"{block}.{name}.norm", f"{layer}.{source}")
    return made


def test_outputs_and_gradients():
    other, model = theirs(), ours()
    model.load_state_dict(carried(other.state_dict()))
    pixels, target = torch.randn(3, 3, 16, 16), torch.randint(40, (3, 7))
    pixels.requires_grad_()
    logits = model(pixels, target)
    expected = other(pixel_values=pixels, decoder_input_ids=target).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    weight = torch.randn_like(logits)
    mine = torch.autograd.grad((logits * weight).sum(), [pixels, *model.parameters()])
    their = torch.autograd.grad((expected * weight).sum(), pixels)
    torch.testing.assert_close(mine[0], their[0], rtol=1e-3, atol=1e-3)
    assert all(bool(gradient.abs().sum() > 0) for gradient in mine)
    greedy = model.generate(pixels.detach(), max_new_tokens=6, stop_ids=())
    told = other.generate(
        pixels.detach(),
        max_new_tokens=6,
        do_sample=False,
        decoder_start_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert greedy.tolist() == told[:, 1:].tolist()

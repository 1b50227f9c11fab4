"""DiT: against one written anew from PyTorch's parts; words, latents, training, drawing, refusals."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.models.dit import DiT
from family.models.member import build, describe

STACK = {"dim": 16, "depth": 2, "heads": 2, "position": "sinusoidal", "norm_eps": 1e-6}
WORDS = {"dim": 12, "depth": 1, "heads": 2, "position": "learned", "max_tokens": 9}
HEIGHT, WIDTH, PATCH = 8, 12, 4


def small(options=None, stack=None, words=None) -> DiT:
    torch.manual_seed(0)
    given = {"image_size": (HEIGHT, WIDTH), "patch_size": PATCH, **(options or {})}
    config = TransformerConfig(**{**STACK, **(stack or {})})
    return DiT(30, config, TransformerConfig(**{**WORDS, **(words or {})}), **given)


def moved(model: DiT) -> DiT:
    """No weight left at the zeros and ones of initialisation."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def batch(rows: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(30, (rows, 7), generator=generator)
    mask = torch.arange(7) < torch.tensor([7, 4, 2] * rows)[:rows, None]
    noisy = torch.randn(rows, 3, HEIGHT, WIDTH, generator=generator)
    time = torch.rand(rows, generator=generator)
    return {"noisy": noisy, "time": time, "input_ids": ids, "mask": mask}


def captions(rows: int = 3) -> dict[str, Tensor]:
    return {name: batch(rows)[name] for name in ("input_ids", "mask")}


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


# --- The published computation ---


def waves(values: Tensor, count: int) -> Tensor:
    """Sines, then cosines, of geometrically growing length."""
    frequency = 10_000.0 ** (-torch.arange(count // 2, dtype=torch.float64) / (count // 2))
    angles = values.double()[:, None] * frequency
    return torch.cat([angles.sin(), angles.cos()], 1)


def written_anew(state, noisy, time, words, mask, pooled, joint):
    """Peebles & Xie 2023, figure 3, and cross-attention as its middle block has it, or words in front."""

    def linear(name, x):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x):
        return F.layer_norm(x, x.shape[-1:], eps=1e-6)

    def attend(query, key, value, keep):
        heads = [
            ((q @ k.mT) / q.shape[-1] ** 0.5).masked_fill(~keep[:, None], -torch.inf).softmax(-1)
            @ v
            for q, k, v in zip(*(x.chunk(2, -1) for x in (query, key, value)), strict=True)
        ]
        return torch.cat(heads, -1)

    kernel, bias = state["patches.projection.weight"], state["patches.projection.bias"]
    cut = noisy.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # batch, 3, rows, columns, p, p
    x = torch.einsum("bcrspq,dcpq->brsd", cut, kernel).flatten(1, 2) + bias
    rows, columns = HEIGHT // PATCH, WIDTH // PATCH
    row, column = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
    x = x + torch.cat([waves(row, 8), waves(column, 8)], 1)
    c = linear("time.down", F.silu(linear("time.up", waves(1000 * time, 256)))) + pooled
    keep = mask
    if joint:
        x = torch.cat([words, x], 1)
        keep = torch.cat([mask, torch.ones(len(x), rows * columns, dtype=torch.bool)], 1)
    else:
        keep = torch.ones(len(x), rows * columns, dtype=torch.bool)
    for block in ("transformer.blocks.0", "transformer.blocks.1"):
        kinds = ("self_attention", "feedforward")
        kinds = kinds if joint else (kinds[0], "cross_attention", kinds[1])
        for kind in kinds:
            name = f"{block}.{kind}"
            shift, scale, gate = linear(f"{name}.modulation", F.silu(c))[:, None].chunk(3, -1)
            h = norm(x) * (1 + scale) + shift
            if kind == "feedforward":
                h = linear(f"{name}.sublayer.down", F.gelu(linear(f"{name}.sublayer.up", h)))
            elif kind == "self_attention":
                h = attend(*linear(f"{name}.sublayer.qkv", h).chunk(3, -1), keep)
                h = linear(f"{name}.sublayer.out", h)
            else:
                pair = linear(f"{name}.sublayer.key_value", words).chunk(2, -1)
                h = attend(linear(f"{name}.sublayer.query", h), *pair, mask)
                h = linear(f"{name}.sublayer.out", h)
            x = x + gate * h
    shift, scale = linear("head.modulation", F.silu(c))[:, None].chunk(2, -1)
    x = linear("head.projection", norm(x) * (1 + scale) + shift)[:, -rows * columns :]
    x = x.unflatten(2, (3, PATCH, PATCH)).unflatten(1, (rows, columns))
    return torch.einsum("brscpq->bcrpsq", x).reshape(-1, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize("text", ["cross", "joint"])
def test_the_published_computation(text):
    model = moved(small({"text": text})).double()
    given = batch()
    noisy, time = given["noisy"].double(), given["time"].double()
    words = model.read(given["input_ids"], given["mask"])
    theirs = written_anew(
        model.state_dict(), noisy, time, words.x, words.mask, words.pooled, text == "joint"
    )
    close(model(noisy, time, given["input_ids"], given["mask"]), theirs)


@pytest.mark.parametrize("text", ["cross", "joint"])
def test_it_begins_at_zero(text):
    model = small({"text": text})
    assert torch.equal(model(**batch()), torch.zeros(3, 3, HEIGHT, WIDTH))
    close(model.transformer.blocks[0].self_attention.modulation.weight, torch.zeros(48, 16))


@pytest.mark.parametrize("text", ["cross", "joint"])
def test_what_says_the_picture(text):
    """Its velocity leads there in the time that is left; of the last twentieth in as much as that."""
    plain, model = (moved(small({"text": text, "predicts": p})) for p in ("velocity", "data"))
    model.load_state_dict(plain.state_dict())
    given = {**batch(), "time": torch.tensor([0.0, 0.6, 0.99])}
    left = torch.tensor([1.0, 0.4, 0.05])[:, None, None, None]
    close(model(**given), (plain(**given) - given["noisy"]) / left)


# --- Words ---


@pytest.mark.parametrize("options", [{"text": "joint"}, {"text": "cross"}])
@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_padding_changes_nothing(options, position):
    """Neither of words, left or right, nor of what stands there."""
    model = moved(small(options, words={"position": position})).eval()
    given = batch()
    found = model(**given)
    ids, mask = given["input_ids"], given["mask"]
    left = torch.stack([row.roll(int((~keep).sum())) for row, keep in zip(ids, mask, strict=True)])
    close(model(given["noisy"], given["time"], left, mask.flip(1)), found)
    close(model(**{**given, "input_ids": ids.masked_fill(~mask, 29)}), found)
    for i in range(3):
        one = {name: value[i : i + 1] for name, value in given.items()}
        close(model(one["noisy"], one["time"], ids[i : i + 1, mask[i]]), found[i : i + 1])


@pytest.mark.parametrize("text", ["cross", "joint"])
def test_words_and_time_tell(text):
    model, given = moved(small({"text": text})).eval(), batch()
    found = model(**given)
    none = model(**{**given, "mask": torch.zeros_like(given["mask"])})
    assert none.isfinite().all()
    for other in (
        none,
        model(**{**given, "time": given["time"] / 2}),
        model(**{**given, "input_ids": given["input_ids"].roll(1, 1)}),  # other words in the row
    ):
        assert ((other - found).abs().amax((1, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize("position", ["sinusoidal", "learned", "none", "rotary"])
def test_a_gradient_for_every_parameter(position):
    for text in ("cross",) if position == "rotary" else ("cross", "joint"):
        model = moved(small({"text": text}, {"position": position}))
        model(**batch()).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


# --- Training ---


class Watched(DiT):
    """Keeps what ``forward`` was given."""

    def forward(self, noisy, time, input_ids, mask=None):
        self.given = noisy, time, mask
        return super().forward(noisy, time, input_ids, mask)


def watched(**options) -> Watched:
    torch.manual_seed(0)
    sizes = {"image_size": (HEIGHT, WIDTH), "patch_size": PATCH}
    return Watched(30, TransformerConfig(**STACK), TransformerConfig(**WORDS), **sizes, **options)


def test_what_says_the_right_picture_is_right_at_all_times(monkeypatch):
    model, data = watched(predicts="data"), torch.rand(3, 3, HEIGHT, WIDTH) * 2 - 1
    monkeypatch.setattr(model.head, "forward", lambda *_: data)
    assert model.losses(data, **captions())["loss"] < 1e-8
    model.eval()
    ids, mask = captions().values()
    close(model.draw(ids, mask, steps=40, sampler="euler"), data)


def test_the_loss_is_that_of_the_velocity():
    """A model that says 0 is off by data - noise."""
    model = watched()
    data, text = torch.rand(3, 3, HEIGHT, WIDTH) * 2 - 1, captions()
    loss = model.losses(data, **text)["loss"]
    noisy, time, _ = model.given
    at = time[:, None, None, None]
    noise = (noisy - at * data) / (1 - at)
    close(loss, (data - noise).square().mean())
    assert noise.std().item() == pytest.approx(1, abs=0.15)


def test_captions_are_left_out_in_training_alone():
    model = watched(caption_dropout=0.25)
    data, text = torch.zeros(400, 3, HEIGHT, WIDTH), captions(400)
    model.losses(data, **text)
    mask = model.given[2]
    gone = ~mask.any(1)
    assert gone.float().mean().item() == pytest.approx(0.25, abs=0.07)
    assert torch.equal(mask[~gone], text["mask"][~gone])
    model.losses(data, text["input_ids"])  # without a mask all is words, but of those left out
    assert set(model.given[2].sum(1).tolist()) == {0, 7}
    model.eval().losses(data, **text)
    assert torch.equal(model.given[2], text["mask"])


def test_losses_of_evaluation_compare():
    model = moved(small())
    data, text = torch.zeros(3, 3, HEIGHT, WIDTH), captions()
    train = [model.losses(data, **text)["loss"].item() for _ in range(2)]
    assert train[0] != train[1]
    model.eval()
    before = torch.get_rng_state()
    first, second = (model.losses(data, **text)["loss"].item() for _ in range(2))
    assert first == second and torch.equal(torch.get_rng_state(), before)


def test_two_pictures_are_learnt_and_drawn():
    torch.manual_seed(0)
    stack = TransformerConfig(dim=32, depth=1, heads=2, norm_eps=1e-6, position="sinusoidal")
    words = TransformerConfig(dim=16, depth=1, heads=2, position="learned", max_tokens=4)
    model = DiT(8, stack, words, image_size=4, patch_size=2, times="logit_normal")
    data = torch.stack([torch.full((3, 4, 4), -0.5), torch.full((3, 4, 4), 0.5)])
    data[0, :, :, 2:], data[1, 0, 2:] = 0.75, -1.0
    ids = torch.tensor([[1, 4, 2], [1, 5, 2]])
    many, texts = data.repeat(16, 1, 1, 1), ids.repeat(16, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    for step in range(80):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 80)
        optimizer.zero_grad()
        model.losses(many, texts)["loss"].backward()
        optimizer.step()
    model.eval()
    for options in ({"steps": 5}, {"guidance": 1.5, "steps": 5}, {"sampler": "euler", "steps": 10}):
        generator = torch.Generator().manual_seed(3)
        drawn = model.draw(ids, generator=generator, **options)
        off = (drawn - data).abs().mean((1, 2, 3))
        other = (drawn - data.flip(0)).abs().mean((1, 2, 3))
        assert off.max() < 0.25 and other.min() > 0.6, (options, off, other)


# --- Drawing ---


def test_other_rows_and_other_numbers_give_other_pictures():
    model = moved(small()).eval()
    ids = captions()["input_ids"][:1].expand(3, -1)

    def drawn(seed):
        return model.draw(ids, steps=2, generator=torch.Generator().manual_seed(seed))

    first = drawn(0)
    assert first.shape == (3, 3, HEIGHT, WIDTH) and first.abs().max() <= 1
    assert torch.equal(first, drawn(0)) and not torch.allclose(first, drawn(1), atol=0.1)
    assert not torch.allclose(first[0], first[1], atol=0.1)
    assert not torch.equal(model.draw(ids, steps=2), model.draw(ids, steps=2))


def test_guidance_is_its_formula():
    """One step of Euler, from noise that is known."""
    model = moved(small()).eval()
    text = captions()
    noise = torch.randn(3, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))
    time, nothing = torch.zeros(3), torch.zeros_like(text["mask"])
    told = model(noise, time, **text)
    untold = model(noise, time, text["input_ids"], nothing)
    for guidance, velocity in (
        (None, told),
        (1.0, told),
        (0.0, untold),
        (2.5, untold + 2.5 * (told - untold)),
    ):
        generator = torch.Generator().manual_seed(5)
        found = model.draw(**text, guidance=guidance, steps=1, sampler="euler", generator=generator)
        close(found, (noise + velocity).clamp(-1, 1))
    plain = model.draw(
        text["input_ids"], guidance=2.5, steps=1, generator=torch.Generator().manual_seed(5)
    )
    every = model.draw(
        text["input_ids"],
        text["mask"] | True,
        **{"guidance": 2.5, "steps": 1, "generator": torch.Generator().manual_seed(5)},
    )
    assert torch.equal(plain, every)


def test_half_precision_draws():
    model = moved(small()).eval().bfloat16()
    drawn = model.draw(**captions(), guidance=2.0, steps=2)
    assert drawn.dtype == torch.float32 and drawn.isfinite().all()
    assert model.losses(torch.zeros(3, 3, HEIGHT, WIDTH).bfloat16(), **captions())["loss"] > 0


# --- Latents ---


class Halved(nn.Module):
    """Stands for an image tokenizer: a latent is the mean of 2 x 2 pixels, of another scale."""

    latent_dim, vocab_size = 3, 8

    def __init__(self, image_size=(HEIGHT, WIDTH), width=4):
        super().__init__()
        self.image_size = tuple(image_size)
        self.grid = (self.image_size[0] // 2, self.image_size[1] // 2)
        self.scale = nn.Parameter(torch.tensor([5.0, 0.2, 1.0]))
        self.norm = nn.BatchNorm2d(3)

    def encode(self, pixel_values):
        return F.avg_pool2d(pixel_values, 2) * self.scale[:, None, None] + 3

    def decode_latents(self, latents, quantised=False):
        latents = latents.round() if quantised else latents
        return F.interpolate((latents - 3) / self.scale[:, None, None], scale_factor=2)


@pytest.fixture
def tokenizer(monkeypatch):
    """Its plain arguments, where such are built."""
    monkeypatch.setattr("family.models.owned_tokenizer.ImageTokenizer", Halved)
    return {"image_tokenizer": {"image_size": [HEIGHT, WIDTH]}, "patch_size": 2}


def test_latents_of_an_image_tokenizer(tokenizer):
    model = small(tokenizer)
    assert model.shape == (3, HEIGHT // 2, WIDTH // 2) and model.patches.grid(4, 6) == (2, 3)
    data = torch.rand(16, 3, HEIGHT, WIDTH) * 0.8 - 0.1
    model.eval().losses(data, **captions(16))
    assert model.latents_seen == 0  # training alone
    model.train().losses(data, **captions(16))
    latents = model.latents(data)
    close(latents.mean((0, 2, 3)), torch.zeros(3))
    close(latents.var((0, 2, 3), unbiased=False), torch.ones(3))
    close(
        model.pixels(latents),
        model.image_tokenizer.decode_latents(model.image_tokenizer.encode(data)),
    )
    mean = model.latent_mean.clone()
    model.losses(data * 2, **captions(16))
    assert torch.equal(model.latent_mean, mean)  # the first batch alone
    model.fit_latents(data * 2)
    close(model.latent_mean - 3, 2 * (mean - 3))
    again = small(tokenizer)
    again.load_state_dict(model.state_dict())
    close(again.latents(data), model.latents(data))
    assert model.draw(**captions(), steps=2).shape == (3, 3, HEIGHT, WIDTH)
    assert model(**model.facts.inputs.draw(model, 1)).shape == (3, 3, 4, 6)


def test_drawn_latents_go_to_their_codes(tokenizer):
    latents = torch.randn(2, 3, HEIGHT // 2, WIDTH // 2)
    for quantised in (False, True):
        model = small({**tokenizer, "quantised": quantised})
        wanted = model.image_tokenizer.decode_latents(latents, quantised).clamp(-1, 1)
        assert torch.equal(model.pixels(latents), wanted)
    with pytest.raises(ValueError, match="quantised=True needs an image tokenizer"):
        small({"quantised": True})


def test_an_image_tokenizer_is_frozen_and_belongs_to_the_model(tokenizer):
    model = moved(small(tokenizer)).train()
    assert not any(m.training for m in model.image_tokenizer.modules()) and model.training
    model.losses(torch.rand(3, 3, HEIGHT, WIDTH), **captions())["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("image_tokenizer."), name
    assert "image_tokenizer.scale" in model.state_dict()
    same = build(DiT, describe(model)["arguments"])
    assert same.state_dict().keys() == model.state_dict().keys()
    assert describe(model)["arguments"]["image_tokenizer"] == tokenizer["image_tokenizer"]
    with pytest.raises(ValueError, match=r"image_size=\(8, 8\) is not that of the image tokenizer"):
        small({**tokenizer, "image_size": 8})


# --- What is refused ---


def draw(options=None, **more):
    return small(options).draw(**captions(), **more)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: small({"patch_size": 5}), "8 x 12 pixels does not divide into patches of 5 x 5"),
        (lambda: small({"text": "both"}), "text='both' is unknown; choose one of: cross, joint"),
        (lambda: small({"times": "cosine"}), "times='cosine' is unknown"),
        (lambda: small({"shift": 0.0}), "shift must be above 0, not 0.0"),
        (lambda: small({"caption_dropout": 1}), r"caption_dropout must be in \[0, 1\), not 1"),
        (lambda: small(stack={"causal": True}), "needs causal=False"),
        (lambda: small(words={"cross_attention": True}), "needs cross_attention=False"),
        (lambda: small(stack={"position": "alibi"}), "position='alibi' is for sequences"),
        (lambda: small({"text": "joint"}, {"position": "rotary"}), "position='rotary' is not for"),
        (lambda: draw(sampler="ddim"), "sampler='ddim' is unknown; choose one of: euler, heun"),
        (lambda: draw(steps=0), "steps must be a whole number of at least 1, not 0"),
        (lambda: draw(guidance=-2.0), "guidance must be a number of at least 0, not -2.0"),
        (
            lambda: draw({"caption_dropout": 0.0}, guidance=3.0),
            "guidance=3.0 needs a model .* captions left out, but .* caption_dropout=0",
        ),
        (
            lambda: small()(**{**batch(), "noisy": batch()["noisy"][:2]}),
            "2 pictures need as many captions, not 3",
        ),
        (
            lambda: small().draw(torch.zeros(1, 10, dtype=torch.long)),
            "a caption of 10 tokens does not fit text_tokens=9",
        ),
        (
            lambda: small()(**{**batch(), "noisy": torch.zeros(3, 3, 8, 10)}),
            "8 x 10 pixels does not",
        ),
        (lambda: small()(**{**batch(), "noisy": torch.zeros(3, 1, 8, 12)}), "1 channels"),
    ],
)
def test_one_sentence_for_what_cannot_be(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_no_guidance_needs_no_captions_left_out():
    model = small({"caption_dropout": 0.0})
    for guidance in (None, 1.0):
        assert model.draw(**captions(), guidance=guidance, steps=1).isfinite().all()

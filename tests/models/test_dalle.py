"""DALL-E: words in slots, codes behind them; what is drawn step by step is what the whole stack says."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import family
from family.core.config import TransformerConfig
from family.generation.generate import generate
from family.generation.guidance import Guided
from family.generation.sampling import Sampling
from family.models.dalle import DALLE

TOKENIZER = DALLE.facts.example["image_tokenizer"]
STACK = {"dim": 24, "depth": 2, "heads": 2, "causal": True, "position": "learned"}
CODES, TOKENS, SLOTS = 20, 16, 9


def small(stack=(), **options) -> DALLE:
    torch.manual_seed(0)
    given = {"text_tokens": SLOTS, "image_tokenizer": TOKENIZER, **options}
    model = DALLE(30, TransformerConfig(**{**STACK, **dict(stack)}), **given)
    for name, parameter in model.named_parameters():  # off the zeros and ones of initialisation
        scale = parameter.dim() == 1 and name.endswith("weight")
        nn.init.normal_(parameter, float(scale), 0.1)
    for part in (model.words, model.padding, model.codes):  # so that what is drawn depends on them
        nn.init.normal_(part.weight)
    return model.eval()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Codes, words and their mask."""
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(CODES, (3, TOKENS), generator=generator)
    ids = torch.randint(2, 30, (3, 7), generator=generator)
    return codes, ids, torch.arange(7) < torch.tensor([7, 4, 2])[:, None]


def pixels(count=3) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_plain_formula():
    model, (_, ids, mask) = small(text_weight=0.25), batch()
    codes = model.image_tokenizer.tokenize(pixels())
    logits = model(codes, ids, mask)
    image = -logits["codes"].log_softmax(-1).gather(2, codes[..., None]).mean()
    words = []
    for row, keep, found in zip(ids, mask, logits["words"].log_softmax(-1), strict=True):
        said = row[keep]
        words.append(torch.stack([-found[i, said[i + 1]] for i in range(len(said) - 1)]).mean())
    text = torch.stack(words).mean()
    found = model.losses(pixels(), ids, mask)
    close(found["loss"], 0.75 * image + 0.25 * text)
    close(found["bits_per_token"], image / math.log(2))
    close(found["text_loss"], text)


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_padding_changes_nothing(position):
    """Neither what stands there, nor on which side, nor how wide it is."""
    model, (codes, ids, mask) = small({"position": position}), batch()
    found = model(codes, ids, mask)
    left = torch.stack([row.roll(int((~keep).sum())) for row, keep in zip(ids, mask, strict=True)])
    wide = F.pad(ids.masked_fill(~mask, 29), (0, 2)), F.pad(mask, (0, 2))
    for given in ((left, mask.flip(1)), wide):
        for name, logits in model(codes, *given).items():
            assert torch.equal(logits, found[name])
    alone = model(codes[2:], ids[2:, :2])
    close(alone["codes"], found["codes"][2:])


def test_each_free_slot_has_a_token_of_its_own():
    model, (codes, ids, mask) = small(), batch()
    found = model(codes, ids, mask)["codes"]
    with torch.no_grad():
        model.padding.weight[5] += 1
    changed = (model(codes, ids, mask)["codes"] != found).flatten(1).any(1)
    assert changed.tolist() == [False, True, True]  # the first has seven words


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_no_code_sees_itself_or_a_later_one(position):
    model, (codes, ids, mask) = small({"position": position}), batch()
    found = model(codes, ids, mask)
    codes[:, 6] = (codes[:, 6] + 1) % CODES
    other = model(codes, ids, mask)
    assert torch.equal(other["words"], found["words"])
    same = (other["codes"] == found["codes"]).flatten(2).all(2).all(0)
    assert same.tolist() == [True] * 7 + [False] * 9


@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("guidance", [None, 2.5])
def test_cached_drawing_is_uncached_drawing(position, guidance):
    model, (codes, ids, mask) = small({"position": position}).double(), batch()
    nothing = torch.zeros_like(mask)

    def whole(codes: Tensor) -> Tensor:
        """The logits of all codes, by the formula of guidance."""
        told = model(codes, ids, mask)["codes"]
        untold = model(codes, ids, nothing)["codes"]
        return told if guidance is None else untold + guidance * (told - untold)

    decoder = model if guidance is None else Guided(model, guidance)
    logits, cache = decoder.prefill(ids, mask, capacity=TOKENS)
    for i in range(TOKENS):
        close(logits, whole(codes)[:, i])
        if i < TOKENS - 1:
            logits = decoder.decode(codes[:, i], cache)

    drawn = model.draw_ids(ids, mask, guidance=guidance, sampling=Sampling())
    written = torch.zeros_like(codes)
    for i in range(TOKENS):
        written[:, i] = whole(written)[:, i].argmax(-1)
    assert torch.equal(drawn, written)
    assert len(drawn.unique()) > 4 and not torch.equal(drawn[0], drawn[1])


def test_guidance_of_one_and_of_none():
    model, (_, ids, mask) = small(), batch()
    plain = model.draw_ids(ids, mask, sampling=Sampling())
    assert torch.equal(model.draw_ids(ids, mask, guidance=1.0, sampling=Sampling()), plain)
    untold = model.draw_ids(ids, mask & False, sampling=Sampling())
    assert not torch.equal(untold, plain)
    assert torch.equal(model.draw_ids(ids, mask, guidance=0.0, sampling=Sampling()), untold)
    assert Guided(model, 3).prefill(ids, capacity=1)[0].shape == (3, CODES)  # without a mask too


def test_a_gradient_for_every_parameter_but_the_tokenizers():
    model, (_, ids, mask) = small().train(), batch()
    model.losses(pixels(), ids, mask)["loss"].backward()
    for name, parameter in model.named_parameters():
        if name.startswith("image_tokenizer."):
            assert not parameter.requires_grad and parameter.grad is None
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert model.training and not any(part.training for part in model.image_tokenizer.modules())


def test_training_leaves_captions_out_and_evaluation_none():
    model, (_, ids, mask) = small(caption_dropout=0.5), batch()
    ids, mask = ids[:1].expand(400, -1), mask[:1].expand(400, -1)
    seen = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    torch.manual_seed(0)
    model.losses(pixels(1).expand(400, -1, -1, -1), ids, mask)
    assert torch.equal(seen.pop(), mask)
    model.train()
    found = model.losses(pixels(1).expand(400, -1, -1, -1), ids, mask)
    told = seen.pop()
    assert torch.equal(told.any(1), told.all(1))  # wholly, or not at all
    assert 0.4 < told.any(1).float().mean() < 0.6
    # The words of captions that are left out count for nothing.
    model.eval()
    close(found["text_loss"], model.losses(pixels(1), ids[:1], mask[:1])["text_loss"])


def test_pictures_differ_by_row_and_by_seed():
    model, (_, ids, mask) = small(), batch()
    ids, mask = ids[:1].expand(4, -1), mask[:1].expand(4, -1)

    def drawn(seed: int) -> Tensor:
        return model.draw(ids, mask, guidance=1.5, generator=torch.Generator().manual_seed(seed))

    first = drawn(0)
    assert first.shape == (4, 3, 16, 16) and first.abs().max() <= 1
    assert torch.equal(drawn(0), first) and not torch.equal(drawn(1), first)
    assert len({tuple(row.flatten().tolist()) for row in first}) == 4
    greedy = model.draw(ids, mask, sampling=Sampling())
    assert all(torch.equal(row, greedy[0]) for row in greedy)


def test_learns_two_pictures_by_heart():
    torch.manual_seed(0)
    stack = TransformerConfig(**{**STACK, "depth": 1})
    model = DALLE(30, stack, 4, image_tokenizer=TOKENIZER).train()
    shown, ids = pixels(2), torch.tensor([[1, 5, 2], [1, 6, 2]])
    codes = model.image_tokenizer.tokenize(shown)
    assert not torch.equal(codes[0], codes[1])
    learns = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.losses(shown, ids)["loss"].backward()
        optimizer.step()
    model.eval()
    for guidance in (None, 2.0):
        drawn = model.draw_ids(ids, guidance=guidance, sampling=Sampling())
        assert torch.equal(drawn, codes)
    assert torch.equal(
        model.draw(ids, sampling=Sampling()), model.image_tokenizer(shown).clamp(-1, 1)
    )


def test_a_saved_folder_has_the_tokenizer_in_it(tmp_path):
    model, (codes, ids, mask) = small(), batch()
    family.save_pretrained(model, tmp_path)
    again = family.from_pretrained(tmp_path)
    assert torch.equal(again(codes, ids, mask)["codes"], model(codes, ids, mask)["codes"])
    assert torch.equal(again.image_tokenizer(pixels()), model.image_tokenizer(pixels()))
    assert not any(p.requires_grad for p in again.image_tokenizer.parameters())
    half = family.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.draw(ids, mask).dtype == torch.bfloat16


def test_the_cache_has_room_for_what_is_asked():
    model, (_, ids, mask) = small(), batch()
    some = generate(model, (ids, mask), max_new_tokens=5)
    assert torch.equal(some, model.draw_ids(ids, mask, sampling=Sampling())[:, :5])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: small({"causal": False}), "causal=True"),
        (lambda: small({"condition_dim": 8}), "no condition_dim"),
        (lambda: small({"position": "alibi"}), "position='alibi' is not for words and codes"),
        (lambda: small(text_tokens=1), "text_tokens must be at least 2, not 1"),
        (lambda: small(text_weight=1.0), r"text_weight must be in \[0, 1\), not 1.0"),
        (lambda: small(caption_dropout=1.5), r"caption_dropout must be in \[0, 1\), not 1.5"),
        (lambda: small(image_tokenizer=None), "give image_tokenizer"),
        (
            lambda: small(image_size=(24, 16)),
            r"image_size=\(24, 16\) is not that of the image tokenizer, \(16, 16\)",
        ),
        (lambda: small()(batch()[0][:2], batch()[1]), "2 pictures need as many captions, not 3"),
        (lambda: small()(batch()[0][:, :4], batch()[1]), "a picture has 16 codes, not 4"),
        (
            lambda: small(text_tokens=6).draw(batch()[1]),
            "a caption of 7 tokens does not fit text_tokens=6",
        ),
        (
            lambda: small(caption_dropout=0.0).draw(batch()[1], guidance=2.0),
            "caption_dropout=0",
        ),
        (lambda: small().draw(batch()[1], guidance=-1.0), "at least 0, not -1.0"),
        (lambda: small().draw(batch()[1], guidance=math.nan), "at least 0, not nan"),
    ],
)
def test_one_sentence_for_what_cannot_be(call, words):
    with pytest.raises(ValueError, match=words):
        call()

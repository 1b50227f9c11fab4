"""VisionLanguage: vectors in the place of tokens, its parts by their descriptions, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import family
from family import TransformerConfig, VisionLanguage, join_vision_language
from family.adapt.resize import resize
from family.inputs.patches import PatchConfig
from family.inputs.preprocess import Preprocess
from family.inputs.text import Vectors
from family.models.member import build, describe
from family.models.vision_language import merged
from tasks.data.tokenizers import make_chat_tokenizer

EXAMPLE = VisionLanguage.facts.example
IMAGE_ID = EXAMPLE["image_id"]


def small(**options):
    torch.manual_seed(0)
    model = VisionLanguage(**{**copy.deepcopy(EXAMPLE), **options})
    for parameter in model.parameters():  # off the zeros and ones of initialisation
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def batch(model, rows=((1,), (2,), (1,))):
    """Rows with so many pictures each, padded at the right."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for i, (pictures,) in enumerate(rows):
        words = torch.randint(40, (pictures + 1, 2 + i), generator=generator).tolist()
        ids = [*words[0]]
        for some in words[1:]:
            ids += [IMAGE_ID] * model.slots + some
        made.append(torch.tensor(ids))
    ids = nn.utils.rnn.pad_sequence(made, batch_first=True, padding_value=0)
    lengths = torch.tensor([len(row) for row in made])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    count = sum(pictures for (pictures,) in rows)
    return torch.randn(count, 3, 16, 16, generator=generator), ids, mask


def close(one, two):
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def left(ids, mask):
    rolled = [row.roll(int((~keep).sum())) for row, keep in zip(ids, mask, strict=True)]
    return torch.stack(rolled), mask.flip(1)


def test_padding_and_neighbours_change_nothing():
    model = small()
    pixels, ids, mask = batch(model)
    found = model(pixels, ids, mask)
    close(model(pixels, *left(ids, mask))[left(ids, mask)[1]], found[mask])
    parts = [pixels[:1], pixels[1:3], pixels[3:]]
    for row, some in enumerate(parts):
        close(model(some, ids[row : row + 1, mask[row]])[0], found[row, mask[row]])
    packed = torch.cat([ids[row, mask[row]] for row in range(3)])[None]
    documents = torch.repeat_interleave(torch.arange(3), mask.sum(1))[None]
    close(model(pixels, packed, documents=documents)[0], found[mask])


def test_pictures_stand_where_their_slots_do():
    model = small()
    pixels, ids, mask = batch(model)
    before = model(pixels, ids, mask)
    pixels[2] += 1  # the second of the second row
    after = model(pixels, ids, mask)
    first = int((ids[1] == IMAGE_ID).nonzero()[model.slots])
    same = (after == before).all(-1)
    assert same[0].all() and same[2].all() and same[1, :first].all()
    assert not same[1, first : int(mask[1].sum())].any()


@pytest.mark.parametrize("options", [{}, {"beams": 3}, {"num": 2, "beams": 2}])
def test_cached_is_uncached(options):
    model = small()
    pixels, ids, mask = batch(model)
    new = model.generate(pixels, ids, mask, max_new_tokens=5, stop_ids=(), **options)
    padded = model.generate(pixels, *left(ids, mask), max_new_tokens=5, stop_ids=(), **options)
    assert torch.equal(new, padded)
    if options:
        return
    for row, some in enumerate([pixels[:1], pixels[1:3], pixels[3:]]):
        text = ids[row : row + 1, mask[row]]
        for _ in range(5):
            text = torch.cat([text, model(some, text)[:, -1:].argmax(-1)], dim=1)
        assert text[0, -5:].tolist() == new[row].tolist()


def test_several_drawn_texts_see_their_own_pictures():
    model = small()
    pixels, ids, mask = batch(model)
    sampling = family.Sampling(temperature=1e-4)  # near greedy
    drawn = model.generate(
        pixels, ids, mask, max_new_tokens=4, stop_ids=(), num=2, sampling=sampling
    )
    greedy = model.generate(pixels, ids, mask, max_new_tokens=4, stop_ids=())
    assert torch.equal(drawn, greedy.repeat_interleave(2, 0))


def test_a_penalty_counts_words_alone():
    """An id beyond the table would be taken for another token."""
    model = small(image_id=44)
    pixels, ids, mask = batch(small())
    ids = ids.masked_fill(ids == IMAGE_ID, 44)
    sampling = family.Sampling(repetition_penalty=1.5)
    options = {"max_new_tokens": 1, "stop_ids": (), "sampling": sampling}
    logits = torch.stack(
        [
            model(some, ids[row : row + 1, mask[row]])[0, -1]
            for row, some in enumerate([pixels[:1], pixels[1:3], pixels[3:]])
        ]
    )
    for row in range(3):
        said = ids[row, mask[row]]
        seen = said[said != 44].unique()
        value = logits[row, seen]
        logits[row, seen] = torch.where(value > 0, value / 1.5, value * 1.5)
    assert model.generate(pixels, ids, mask, **options)[:, 0].tolist() == logits.argmax(-1).tolist()


def test_merged_neighbours():
    x = torch.randn(2, 24, 3)
    ours = merged(x, (4, 6), 2)
    theirs = F.pixel_unshuffle(x.transpose(1, 2).unflatten(2, (4, 6)), 2).flatten(2)
    theirs = theirs.unflatten(1, (3, 4)).permute(0, 3, 2, 1).flatten(2)
    assert torch.equal(ours, theirs)
    model = small(shuffle=2, projector="linear")
    assert model.slots == 1 and model.projection[0].in_features == 64
    assert model(*batch(model)).shape[-1] == 40


def test_vectors_take_positions_but_no_factor():
    """As embeddings that are handed in: the factor is of the table (Gemma)."""
    config = TransformerConfig(
        dim=16, depth=1, heads=2, causal=True, position="learned", max_tokens=8
    )
    gpt = family.GPT(30, config, scale_embeddings=True)
    ids = torch.tensor([[3, 30, 30, 4]])
    values = torch.randn(2, 16)
    positions = torch.arange(4)
    found = gpt.embedding(ids, positions, vectors=Vectors(30, values))
    plain = gpt.embedding(ids % 30, positions)
    assert torch.equal(found[:, [0, 3]], plain[:, [0, 3]])
    close(found[0, 1:3], values + gpt.embedding.position(positions)[1:3])


def test_a_text_that_is_read_anew_keeps_its_pictures():
    """Longrope: past a border all is read again."""
    described = copy.deepcopy(EXAMPLE)
    half = 24 // 2 // 2
    described["language"]["arguments"]["config"]["rotary_scaling"] = {
        **{"kind": "longrope", "tokens": 12},
        **{"short": [1.0] * half, "long": [2.0] * half},
    }
    model = small(**described)
    pixels, ids, mask = batch(model, [(1,)])
    new = model.generate(pixels, ids, mask, max_new_tokens=8, stop_ids=())
    text = ids
    for _ in range(8):
        text = torch.cat([text, model(pixels, text)[:, -1:].argmax(-1)], dim=1)
    assert model.language.borders and text[0, -8:].tolist() == new[0].tolist()


# --- Parts ---


def parts(pooling="class"):
    config = TransformerConfig(dim=16, depth=1, heads=2, position="learned")
    vit = family.vit_tiny(
        3, 8, 16, dim=16, depth=1, heads=2, pooling={"kind": pooling}, class_token=pooling != "mean"
    )
    gpt = family.GPT(60, config.replace(causal=True, position="rotary", max_tokens=64))
    for model in (vit, gpt):
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    gpt.tokenizer = make_chat_tokenizer("char", ["abc <image>\nusersistant"], specials=("<pad>",))
    vit.preprocess = family.inputs.preprocess.Preprocess((16, 16))
    return vit.eval(), gpt.eval()


@pytest.mark.parametrize("pooling", ["class", "mean", "attention"])
def test_joined_has_the_weights_of_both(pooling):
    vit, gpt = parts(pooling)
    before = gpt.tokenizer.vocab_size
    model = join_vision_language(vit, gpt).eval()
    assert model.image_id == gpt.tokenizer.vocab_size == before  # the given one is as it was
    assert model.tokenizer.token_to_id("<image>") == model.image_id and model.preprocess
    pixels, ids = torch.randn(2, 3, 16, 16), torch.randint(20, (2, 5))
    tokens = vit.forward_features(pixels)
    close(model.vision.forward_features(pixels), vit.pool.norm(tokens))
    assert torch.equal(model.language(ids), gpt(ids))
    names = {name.split(".")[0] for name, _ in model.vision.named_parameters()}
    assert names == {"embedding", "transformer"}
    assert model.language.head.weight is model.language.embedding.tokens.weight


def test_a_clip_gives_its_picture_tower():
    clip, (_, gpt) = family.CLIP(**family.CLIP.facts.example).eval(), parts()
    model = join_vision_language(clip, gpt).eval()
    pixels = torch.randn(2, 3, 16, 16)
    close(model.vision.forward_features(pixels), clip.image.forward_features(pixels))


@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_a_captioner_gives_its_vision_tower(position, stem):
    config = TransformerConfig(dim=16, depth=2, heads=2, position=position, max_tokens=16)
    patches = PatchConfig(class_token=False, stem=stem)
    captioner = family.Captioner(40, config, image_size=16, patch_size=8, patches=patches).eval()
    captioner.preprocess = family.inputs.preprocess.Preprocess((16, 16))
    model = join_vision_language(captioner, parts()[1]).eval()
    pixels = torch.randn(2, 3, 16, 16)
    assert model.slots == 4
    close(model.vision.forward_features(pixels), captioner.encode(pixels))
    nn.init.zeros_(captioner.encoder.norm.weight)  # the tower is a copy
    assert not torch.allclose(model.vision.forward_features(pixels), captioner.encode(pixels))


def test_it_is_saved_and_read_again(tmp_path):
    model = join_vision_language(*parts(), projector="linear").eval()
    family.save_pretrained(model, tmp_path / "saved")
    again = family.from_pretrained(tmp_path / "saved")
    pixels, ids, mask = batch(model)
    ids = (ids % model.image_id).masked_fill(ids == IMAGE_ID, model.image_id)
    assert torch.equal(again(pixels, ids, mask), model(pixels, ids, mask))
    assert again.tokenizer.token_to_id("<image>") == again.image_id == model.image_id
    assert describe(again) == describe(model) and again.preprocess.size == (16, 16)
    assert describe(build(VisionLanguage, describe(model)["arguments"])) == describe(model)


def test_a_size_whose_patches_do_not_merge_is_refused_and_changes_nothing(tmp_path):
    model = small(shuffle=2)
    model.preprocess = Preprocess((16, 16))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="shuffle=2 .* must divide 3 x 3 patches"):
        resize(model, 24)
    assert model.slots == 1 and model.image_size == model.preprocess.size == (16, 16)
    assert all(torch.equal(before[name], w) for name, w in model.state_dict().items())
    resize(model, 32)
    assert model.slots == 4


def test_sizes_that_data_decide():
    model = small(vocab_size=50, image_size=(16, 32))
    assert model.language.vocab_size == 50 and model.slots == 8 and model.image_size == (16, 32)


PIXELS, IDS, MASK = batch(small())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: small(projector="mpl"), "projector='mpl' is unknown"),
        (lambda: small(shuffle=3), "shuffle=3 .* must divide 2 x 2 patches"),
        (lambda: small(shuffle=2, keep_prefix=True), "shuffle cannot merge"),
        (lambda: small(image_id=-1), "image_id must be at least 0, not -1"),
        (lambda: small(vision=EXAMPLE["language"]), "vision must be described as a ViT"),
        (lambda: small(language={"class": "os"}), "language must be described .* class='os'"),
        (lambda: small()(PIXELS[:3], IDS, MASK), "12 vectors do not fit the 16 tokens of id 40"),
        (
            lambda: small().generate(PIXELS, IDS, MASK, draft=small()),
            'draft must be "prompt" or None',
        ),
        (lambda: small().generate(PIXELS, IDS, MASK, draft="x"), 'draft must be "prompt" or None'),
        (lambda: small().generate(PIXELS[:3], IDS, MASK), "3 pictures have 12 vectors, but .* 16"),
        (lambda: join_vision_language(parts()[1], parts()[1]), "vision must be a ViT, not a GPT"),
        (lambda: join_vision_language(parts()[0], small().language), "has no tokenizer"),
    ],
)
def test_one_sentence_for_what_cannot_be(call, words):
    with pytest.raises(ValueError, match=words):
        call()

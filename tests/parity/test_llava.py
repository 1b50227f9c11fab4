"""VisionLanguage with the weights of transformers' LLaVA (CLIP's picture tower in front of Llama): logits,
gradients, and what is written, with padding at either side."""

import pytest
import torch

import family
from family import VisionLanguage, join_vision_language
from family.inputs.tokenizer import Tokenizer
from family.models.member import describe
from tasks.data.tokenizers import train_tokenizer

transformers = pytest.importorskip("transformers")
IMAGE_ID, VOCAB = 39, 40
PAIRS = {"multi_modal_projector.linear_1": "0", "multi_modal_projector.linear_2": "2"}


def theirs(strategy):
    vision = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
        projection_dim=8,
    )
    text = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=24,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE_ID,
        image_token_index=IMAGE_ID,
        projector_hidden_act="gelu",
        vision_feature_select_strategy=strategy,
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration(config).eval()
    for parameter in model.parameters():  # biases too, and norms
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def ours(other, keep_prefix):
    """By way of the formats of CLIP and Llama; LLaVA reads the tower before its last norm."""
    config = other.config
    causal = transformers.LlamaForCausalLM(config.text_config)
    causal.model.load_state_dict(other.model.language_model.state_dict())
    causal.lm_head.load_state_dict(other.lm_head.state_dict())
    both = transformers.CLIPConfig(
        vision_config=config.vision_config.to_dict(),
        text_config={"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2},
        projection_dim=8,
    )
    clip = transformers.CLIPModel(both)
    tower = other.model.vision_tower
    clip.vision_model.load_state_dict(getattr(tower, "vision_model", tower).state_dict())
    vision, language = family.from_pretrained(clip), family.from_pretrained(causal)
    language.tokenizer = Tokenizer(train_tokenizer("char", ["abc"], specials=("<pad>",)).inner)
    joined = join_vision_language(vision, language, keep_prefix=keep_prefix)
    described = describe(joined)["arguments"]
    described["vision"]["arguments"]["config"]["final_norm"] = False
    model = VisionLanguage(**{**described, "image_id": IMAGE_ID}).eval()
    state = joined.state_dict()
    for name, number in PAIRS.items():
        layer = other.model.get_submodule(name)
        state |= {f"projection.{number}.{n}": w for n, w in layer.state_dict().items()}
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    return model


def batch(slots):
    """A row of one picture and one of two, padded left."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(3, IMAGE_ID, (3, 5), generator=generator)
    slot, pad = torch.full((slots,), IMAGE_ID), torch.zeros(slots + 2, dtype=torch.long)
    first = torch.cat([pad, words[0, :2], slot, words[0, 2:]])
    second = torch.cat([words[1, :1], slot, words[1, 1:4], slot, words[2, :3]])
    assert len(first) == len(second)
    ids = torch.stack([first, second])
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, : len(pad)] = False
    return torch.randn(3, 3, 16, 16, generator=generator), ids, mask


@pytest.mark.parametrize("strategy", ["default", "full"])
def test_outputs_gradients_and_what_is_written(strategy):
    other = theirs(strategy)
    model = ours(other, keep_prefix=strategy == "full")
    pixels, ids, mask = batch(model.slots)
    pixels.requires_grad_()
    found, places = [], []
    for flip in (False, True):  # the same rows, padded at the right
        places += [mask.flip(1) if flip else mask]
        rows = torch.stack([r.roll(-int((~m).sum())) for r, m in zip(ids, mask, strict=True)])
        given = {"input_ids": rows if flip else ids, "pixel_values": pixels}
        logits = model(mask=places[-1], **given)
        expected = other(attention_mask=places[-1].long(), **given).logits
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(logits[places[-1]], expected[places[-1]], **close)
        found.append((logits[places[-1]], expected[places[-1]]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    weight = torch.randn_like(found[0][0])
    layers = [other.model.get_submodule(name).weight for name in PAIRS]
    own = [model.projection[int(number)].weight for number in PAIRS.values()]
    mine = torch.autograd.grad((found[0][0] * weight).sum(), [pixels, *own, *model.parameters()])
    their = torch.autograd.grad((found[0][1] * weight).sum(), [pixels, *layers])
    for one, two in zip(mine, their, strict=False):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)
    assert all(bool(gradient.abs().sum() > 0) for gradient in mine)
    pixels = pixels.detach()
    written = model.generate(pixels, ids, mask, max_new_tokens=6, stop_ids=())
    told = other.generate(
        input_ids=ids,
        attention_mask=mask.long(),
        pixel_values=pixels,
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert written.tolist() == told[:, ids.shape[1] :].tolist()

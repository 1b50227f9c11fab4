"""Pictures with sentences to draw them from."""

import pytest
import torch
from PIL import Image

from tasks.data.text_to_image import TextToImageData
from tasks.errors import UserError


def folder(root, texts):
    for i in range(len(texts)):
        Image.new("RGB", (20, 20), (255, 0, 0)).save(root / f"{i}.png")
    rows = "".join(f"{i}.png\t{text}\n" for i, text in enumerate(texts))
    for split in ("train", "val"):
        (root / f"{split}.tsv").write_text(f"file\tcaption\n{rows}")
    return str(root)


def test_pixels_are_between_minus_one_and_one():
    data = TextToImageData(
        image_size=(24, 24), vocab_size=300, max_tokens=48, examples=20, batch_size=8
    )
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["pixel_values"].shape == (8, 3, 24, 24)
    assert -1 <= batch["pixel_values"].min() < -0.5 < 0.5 < batch["pixel_values"].max() <= 1
    assert torch.equal(batch["input_ids"][:, 0], torch.full((8,), data.tokenizer.bos_id))


def test_no_sentence_loses_its_end(tmp_path):
    root = folder(tmp_path, ["a red square", "a", "a red square and one more"])
    data = TextToImageData(root, tokenizer="char", max_tokens=14)
    with pytest.raises(
        UserError, match=r"train.tsv line 4: .* has 27 tokens, over data.max_tokens=14"
    ):
        data.setup("fit")
    data = TextToImageData(root, tokenizer="char", max_tokens=14, on_bad="skip", batch_size=1)
    data.setup("fit")
    assert data.pairs("train").texts == ["a red square", "a"]
    assert len(data.val_dataloader()) == 2


def test_some_things_are_kept_for_the_test():
    data = TextToImageData(examples=400, held_out=("purple star", "red heart"))
    kept = {"purple star", "red heart"}
    for split in ("train", "val", "test"):
        for scene in data.pairs(split).scenes:
            named = {f"{thing.colour} {thing.shape}" for thing in scene.objects}
            assert bool(named & kept) == (split == "test")


@pytest.mark.parametrize("thing", ["star", "purple house", "mauve star"])
def test_what_the_world_has_not_is_refused(thing):
    with pytest.raises(UserError, match=f"data.held_out='{thing}'"):
        TextToImageData(held_out=(thing,))

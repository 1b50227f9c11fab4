"""What was trained here opens as what is published: the same weights, with all that goes with them."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn

import family
from family.adapt.lora import add_lora
from family.inputs.preprocess import Preprocess
from family.models.member import member
from family.pretrained import runs
from tasks.data.tokenizers import train_tokenizer

STACK = {"dim": 16, "depth": 2, "heads": 2}
VIT = {"config": {**STACK, "position": "learned", "norm_order": "pre"}, "patch_size": 8}
LABELS = ["cat", "dog", "owl"]
PREPROCESS = Preprocess((16, 16), "crop", (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))


class Net(nn.Module):
    """A model of one's own, which keeps the contract and nothing else."""

    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(3, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.head(self.layer(pixel_values.mean((2, 3))).relu())


@member
class Scaled(Net):
    """A member of one's own, with a buffer that no file holds."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("scale", torch.empty(()).fill_(3.0), persistent=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.scale * super().forward(pixel_values)


def write(file, model, path, init_args, arguments, assets, task="ImageClassification", lora=None):
    """A checkpoint as training leaves it, beside the state of other parts of the task."""
    record = {
        "task": f"tasks.some.module.{task}",
        "model": {"class_path": path, "init_args": init_args},
        "arguments": arguments,
        "assets": assets,
        "pretrained": None,
        "lora": lora,
    }
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state["confusion.count"] = torch.zeros(3)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"family": record, "state_dict": state, "global_step": 5}, file)
    return file


def vit(seed=0):
    torch.manual_seed(seed)
    config = family.TransformerConfig(**VIT["config"])
    model = family.ViT(3, config, image_size=16, patch_size=8)
    return randomised(model)


def randomised(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def assets():
    return {"labels": LABELS, "preprocess": asdict(PREPROCESS)}


def vit_run(file, model, **more):
    decided = {"num_classes": 3, "image_size": (16, 16)}
    return write(file, model, "family.ViT", VIT, decided, assets(), **more)


def same(ours, theirs):
    theirs = theirs.state_dict()
    assert ours.state_dict().keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())


def test_a_file_and_a_folder_above_it(tmp_path):
    best, last = vit(0), vit(1)
    file = vit_run(tmp_path / "run/checkpoints/best.ckpt", best)
    vit_run(tmp_path / "run/checkpoints/last.ckpt", last)
    for source in (file, str(file), tmp_path / "run", tmp_path):
        model = family.from_pretrained(source)
        same(model, best)
        assert isinstance(model, family.ViT) and not model.training
        assert model.labels == LABELS and model.preprocess == PREPROCESS
        assert model.tokenizer is None
    same(family.from_pretrained(tmp_path / "run/checkpoints/last.ckpt"), last)


def test_of_several_runs_the_one_that_is_taken_is_said(tmp_path, caplog):
    for name in ("one", "two"):
        vit_run(tmp_path / name / "checkpoints/best.ckpt", vit())
        assert runs.find_checkpoint(tmp_path / name).parts[-3] == name and not caplog.text
    assert runs.find_checkpoint(tmp_path).parts[-3] == "two"
    assert "holds 2 runs" in caplog.text and "two/checkpoints/best.ckpt is taken" in caplog.text


def test_what_is_written_of_a_run_is_read_again(tmp_path):
    file = vit_run(tmp_path / "best.ckpt", vit())
    model = family.from_pretrained(file)
    model.category_ids = [5, 7, 9]
    family.save_pretrained(model, tmp_path / "folder")
    again = family.from_pretrained(tmp_path / "folder")
    same(again, model)
    assert again.labels == LABELS and again.category_ids == [5, 7, 9]
    # A folder that is a model's own is that model, whatever lies below.
    vit_run(tmp_path / "folder/old/best.ckpt", vit(1))
    same(family.from_pretrained(tmp_path / "folder"), model)


def test_dtype_classes_and_size_as_of_what_is_published(tmp_path):
    file = vit_run(tmp_path / "best.ckpt", vit())
    half = family.from_pretrained(file, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    more = family.from_pretrained(file, num_classes=5)
    assert more.head.out_features == 5 and more.labels is None
    kept = vit().transformer.state_dict()
    assert all(torch.equal(v, kept[n]) for n, v in more.transformer.state_dict().items())
    large = family.from_pretrained(file, image_size=32)
    assert large(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert large.preprocess.size == (32, 32)


def test_adapters_are_merged(tmp_path):
    model, lora = vit(), {"rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": ["*.qkv.q"]}
    add_lora(model, **lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name.lower() or parameter.requires_grad:
                parameter.normal_()
    pictures = torch.randn(2, 3, 16, 16)
    found = family.from_pretrained(vit_run(tmp_path / "best.ckpt", model, lora=lora))
    assert found.state_dict().keys() == vit().state_dict().keys()
    torch.testing.assert_close(found(pictures), model(pictures))
    assert (found(pictures) - vit()(pictures)).abs().max() > 0.1


def own_run(file, model, **more):
    path = f"{__name__}.{type(model).__name__}"
    init_args = {"width": 6} if type(model) is Net else {}
    return write(file, model, path, init_args, {"num_classes": 3}, assets(), **more)


def test_a_model_of_ones_own(tmp_path):
    model = randomised(Net(3, width=6))
    file = own_run(tmp_path / "best.ckpt", model)
    found = family.from_pretrained(file)
    same(found, model)
    assert found.labels == LABELS and found.preprocess == PREPROCESS and not found.training
    assert family.from_pretrained(file, dtype=torch.float64).head.weight.dtype == torch.float64
    for wanted in ({"num_classes": 5}, {"image_size": 32}):
        with pytest.raises(ValueError, match="best.ckpt holds a Net, which is no member"):
            family.from_pretrained(file, **wanted)


def test_a_buffer_that_no_file_holds_is_what_its_class_makes_it(tmp_path):
    model = randomised(Scaled(3))
    found = family.from_pretrained(own_run(tmp_path / "best.ckpt", model))
    assert found.scale == 3
    pictures = torch.randn(2, 3, 4, 4)
    assert torch.equal(found(pictures), model(pictures))


def translator(file, texts=("ab c", "xy z")):
    """A run whose sources and translations have tokenizers of their own."""
    source, target = (train_tokenizer("char", [text]) for text in texts)
    torch.manual_seed(0)
    model = randomised(family.transformer_tiny(source.vocab_size, **STACK, max_tokens=32))
    config = asdict(model.encoder.config)
    decided = {"vocab_size": source.vocab_size, "target_vocab_size": target.vocab_size}
    model = family.Seq2Seq(**decided, config=family.TransformerConfig(**config))
    kept = {"tokenizers": {"source": source.to_json(), "target": target.to_json()}}
    write(file, model, "family.Seq2Seq", {"config": config}, decided, kept, task="Translation")
    return model, source, target


def test_two_tokenizers(tmp_path):
    model, source, target = translator(tmp_path / "best.ckpt")
    found = family.from_pretrained(tmp_path)
    same(found, model)
    family.save_pretrained(found, tmp_path / "folder")
    for each in (found, family.from_pretrained(tmp_path / "folder")):
        assert each.tokenizer.decode(each.tokenizer.encode("ab")) == "ab"
        assert each.tokenizer.target.encode("xyz") == target.encode("xyz")
        assert each.tokenizer.target.eos_id == target.eos_id
    with pytest.raises(ValueError, match="format='marian' has room for one tokenizer"):
        family.save_pretrained(found, tmp_path / "marian", format="marian")
    one = {"tokenizers": {"source": source.to_json(), "target": source.to_json()}}
    shared = runs.tokenizer_of(one)
    assert shared.target is shared
    text = runs.tokenizer_of({"tokenizers": {"text": source.to_json()}, "max_tokens": 5})
    assert text.max_tokens == 5
    assert runs.tokenizer_of({}) is None


def test_what_cannot_be_opened_is_said_in_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save([1, 2], tmp_path / "list.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    model = randomised(Net(3, width=6))
    handed = own_run(tmp_path / "handed.ckpt", model)
    content = torch.load(handed, weights_only=True)
    content["family"]["model"]["init_args"] = None
    torch.save(content, handed)
    content["family"]["model"] = {"class_path": "nowhere.Net", "init_args": {}}
    torch.save(content, tmp_path / "nowhere.ckpt")
    content["family"]["model"] = {"class_path": "os.getcwd", "init_args": {}}
    torch.save(content, tmp_path / "call.ckpt")
    content["family"]["model"] = {"class_path": f"{__name__}.Net", "init_args": {"deep": 3}}
    torch.save(content, tmp_path / "deep.ckpt")
    write(tmp_path / "other_net.ckpt", model, f"{__name__}.Net", {}, {"num_classes": 3}, assets())
    write(tmp_path / "other_vit.ckpt", model, "family.ViT", VIT, {"num_classes": 3}, assets())
    for name, said in {
        "none.ckpt": "none.ckpt does not exist.",
        "text.ckpt": "text.ckpt is not a checkpoint of this project.",
        "list.ckpt": "list.ckpt is not a checkpoint of this project.",
        "other.ckpt": "other.ckpt is not a checkpoint of this project.",
        "handed.ckpt": "handed.ckpt was trained around a Net handed in from Python, which a "
        "checkpoint cannot describe: give Task.load_from_checkpoint(",
        "nowhere.ckpt": "the model nowhere.Net cannot be found",
        "call.ckpt": "the model os.getcwd is no class of torch.nn.Module.",
        "deep.ckpt": "unexpected keyword argument 'deep'",
        "other_net.ckpt": "other_net.ckpt does not fit a Net: size mismatch for layer.weight",
        "other_vit.ckpt": "other_vit.ckpt has no weight",
    }.items():
        with pytest.raises(ValueError) as raised:
            family.from_pretrained(tmp_path / name)
        assert said in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="empty holds no checkpoint"):
        runs.find_checkpoint(tmp_path / "empty")


def test_an_adapter_may_stand_on_a_run(tmp_path):
    torch.manual_seed(0)
    model = randomised(family.gpt_nano(40, **STACK, max_tokens=16))
    config = asdict(model.config)
    file = tmp_path / "run/best.ckpt"
    kept = {"tokenizers": {"text": train_tokenizer("char", ["abc"]).to_json()}}
    write(
        file, model, "family.GPT", {"config": config}, {"vocab_size": 40}, kept, "LanguageModeling"
    )
    add_lora(model, rank=2, alpha=4.0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    family.save_adapter(model, tmp_path / "adapter", base=str(tmp_path / "run"))
    found = family.from_pretrained(tmp_path / "adapter")
    tokens = torch.arange(6)[None]
    torch.testing.assert_close(found(tokens), model(tokens))
    assert found.tokenizer.decode(found.tokenizer.encode("cab")) == "cab"


def test_a_folder_with_weights_of_its_own_is_no_run(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/best.ckpt").write_bytes(b"")
    assert runs.is_run(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"")
    assert not runs.is_run(tmp_path)


@pytest.mark.parametrize("content", [{"family": {}, "state_dict": {}}, {"family": {}}])
def test_a_record_without_its_parts_is_none(tmp_path, content):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="not a checkpoint of this project"):
        family.load(tmp_path / "x.ckpt")


class ViT(family.ViT):
    """One's own, by the name of ours."""


def test_a_class_that_shares_a_name_is_not_taken_for_ours(tmp_path):
    model = ViT(**family.ViT.facts.example)
    with pytest.raises(ValueError, match="a ViT is no member of the package"):
        family.save_pretrained(model, tmp_path / "vit")

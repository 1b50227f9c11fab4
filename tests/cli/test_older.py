"""Configs whose members' arguments stood beside each other, before there were configs of inputs."""

from __future__ import annotations

from tasks.cli.older import load, renewed

OLD = """
model:
  class_path: tasks.ImageClassification
  init_args:
    model:
      class_path: family.ViT
      init_args:
        config: {dim: 16}
        patch_size: 4
        pool: mean
        class_token: false
        stem: conv
data:
  class_path: tasks.ImageClassificationData
  init_args: {image_size: 16}
"""


def test_arguments_come_to_stand_where_they_do_now():
    config = load(OLD)
    model = config["model"]["init_args"]["model"]
    assert model == {
        "class_path": "family.ViT",
        "init_args": {
            "config": {"dim": 16},
            "patch_size": 4,
            "patches": {"class_token": False, "stem": "conv"},
            "pooling": {"kind": "mean"},
        },
    }
    assert config["data"]["init_args"] == {"image_size": 16}
    assert renewed(config) == config  # as it is


def test_what_the_parser_is_to_refuse_stays_where_it_is():
    for class_path, given in (
        ("family.ViT", {"dim": 16, "pool": "mean"}),
        ("family.Segmenter", {"distilled": True}),
        ("family.Vit", {"pool": "mean"}),
    ):
        got = renewed({"class_path": class_path, "init_args": given})["init_args"]
        kept = {name: value for name, value in given.items() if name != "pool"}
        assert kept.items() <= got.items()

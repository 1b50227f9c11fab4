"""Configs whose members' arguments stood beside each other, before there were configs of inputs."""

from __future__ import annotations

import pytest
import yaml

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


def test_null_and_true_of_a_part_of_a_part(capsys):
    """On the command line: the parser hands null on as "None", and took true for a word."""
    from tasks.cli import main

    def printed(**fields):
        options = [f"--model.model.config.{name}={value}" for name, value in fields.items()]
        with pytest.raises(SystemExit):
            main(["fit", "--config", "segmentation/shapes_pixels", *options, "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["model"]["init_args"]
        return {name: config["config"][name] for name in fields}

    assert printed(kv_heads="null", qk_norm="null") == {"kv_heads": None, "qk_norm": None}
    assert printed(kv_heads=2, qk_norm="true") == {"kv_heads": 2, "qk_norm": True}
    assert printed(qk_norm="layernorm") == {"qk_norm": "layernorm"}

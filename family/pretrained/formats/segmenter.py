"""Segmenter (Strudel et al. 2021), as its authors store it: weights, and beside them a variant.yml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from family.inputs.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from family.models.segmenter import Segmenter
from family.pretrained.formats import timm_vit
from family.pretrained.table import (
    FIRST,
    TRANSPOSED,
    Field,
    Format,
    Names,
    Row,
    blocks,
    nested,
)
from family.pretrained.weights import Weights

VARIANT = "variant.yml"
HEAD_DIM = 64
"""Of all encoders that were published; the authors' decoder takes no other."""
HALF = (0.5, 0.5, 0.5)
STATISTICS = {"vit": (HALF, HALF), "deit": (IMAGENET_MEAN, IMAGENET_STD)}
"""``normalization`` -> mean, std."""
DECODERS = {"linear": "linear", "mask_transformer": "mask"}
SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large"}


def names(model: Segmenter) -> Names:
    decoder: Names = {
        "head": "head",
        "projection": "proj_dec",
        "classes.weight": Row(("cls_emb",), FIRST),
        "transformer.norm": "decoder_norm",
        "patch_projection.weight": Row(("proj_patch",), TRANSPOSED),
        "class_projection.weight": Row(("proj_classes",), TRANSPOSED),
        "norm": "mask_norm",
        **blocks("transformer", "blocks.{}", timm_vit.BLOCK),
    }
    encoder = {
        **timm_vit.names(model.encoder),
        "embedding.prefix.weight": timm_vit.prefix(
            model.encoder, ("cls_token", "dist_token", "dist_token")
        ),
    }
    return {
        **nested(encoder, "encoder.", "encoder."),
        **nested(decoder, "decoder.", "decoder."),
    }


class PlainLoader(yaml.SafeLoader):
    """Plain values only; the authors' files have tuples, which are lists here."""


def plain_python(loader: PlainLoader, suffix: str, node: yaml.Node) -> Any:
    return loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else None


PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", plain_python)


def read_variant(file: Path) -> dict[str, Any]:
    """A ``variant.yml``.

    Raises:
        ValueError: no such file, or one without the options of a model.
    """
    try:
        found = yaml.load(file.read_text(encoding="utf-8"), PlainLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{file} cannot be read: {reason}.") from None
    if not isinstance(found, dict) or not isinstance(found.get("net_kwargs"), dict):
        raise ValueError(f"{file} has no net_kwargs, the options of the model.")
    return found


def describe_state(weights: Weights) -> dict[str, Any]:
    """What a ``variant.yml`` would say, from the shapes of the weights."""
    dim, _, patch, _ = weights.read("encoder.patch_embed.proj.weight").shape
    distilled = "encoder.dist_token" in weights.places
    patches = weights.read("encoder.pos_embed").shape[1] - 1 - distilled
    masked = "decoder.cls_emb" in weights.places
    classes = "decoder.mask_norm.weight" if masked else "decoder.head.weight"
    side = round(patches**0.5) * patch

    def layers(stack: str) -> int:
        return sum(n.startswith(stack) and n.endswith("norm1.weight") for n in weights.places)

    return {
        "net_kwargs": {
            "d_model": dim,
            "n_heads": dim // HEAD_DIM,
            "n_layers": layers("encoder."),
            "image_size": [side, side],
            "patch_size": patch,
            "distilled": distilled,
            "n_cls": weights.read(classes).shape[0],
            "decoder": {
                "name": "mask_transformer" if masked else "linear",
                **({"n_layers": layers("decoder.")} if masked else {}),
            },
        }
    }


def preprocess(config: dict[str, Any]) -> Preprocess | None:
    """Of the whole picture at once; None where nothing says how it was normed."""
    options = config["net_kwargs"]
    if options.get("normalization") not in STATISTICS:
        return None
    mean, std = STATISTICS[options["normalization"]]
    height, width = options["image_size"]
    return Preprocess((height, width), "squash", mean, std)


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    options = config["net_kwargs"]
    heads, dim = options.get("n_heads"), options.get("d_model")
    if "decoder.cls_emb" in names and heads != dim // HEAD_DIM:
        raise ValueError(
            f"n_heads={heads} of d_model={dim} is not supported: the decoder has heads of "
            f"{HEAD_DIM} channels."
        )
    return {"patches.register_tokens": 1} if options.get("distilled") else {}


def written(model: Segmenter, config: dict[str, Any]) -> dict[str, Any]:
    options = config["net_kwargs"]
    mean = model.preprocess.mean if isinstance(model.preprocess, Preprocess) else HALF
    normalization = "deit" if mean == IMAGENET_MEAN else "vit"
    size = SIZES.get(model.config.dim, "base")
    decoder = dict(options["decoder"])
    if decoder["name"] == "linear":
        decoder.pop("n_layers")
    else:
        decoder |= {"drop_path_rate": 0.0, "dropout": model.config.dropout}
    options = {
        **options,
        "image_size": list(model.image_size),
        "patch_size": model.patch_size[0],
        "backbone": f"vit_{size}_patch{model.patch_size[0]}_384",
        "normalization": normalization,
        "distilled": model.encoder.num_prefix_tokens == 2,
        "drop_path_rate": model.config.drop_path,
        "decoder": decoder,
    }
    return {"net_kwargs": options, "dataset_kwargs": {"normalization": normalization}}


def image_head(model: Segmenter) -> dict[str, Tensor]:
    """The 1,000 classes of pre-training, which the authors' encoder keeps."""
    like = model.encoder.embedding.projection.weight
    heads = ("head", "head_dist")[: model.encoder.num_prefix_tokens]
    state = {f"encoder.{head}.weight": like.new_zeros(1000, model.config.dim) for head in heads}
    return {**state, **{f"encoder.{head}.bias": like.new_zeros(1000) for head in heads}}


FORMAT = Format(
    name="segmenter",
    member=Segmenter,
    model_types=(),
    architectures=(),
    fields=(
        Field("config.dim", "net_kwargs.d_model"),
        Field("config.depth", "net_kwargs.n_layers"),
        Field("config.heads", "net_kwargs.n_heads"),
        Field("image_size", "net_kwargs.image_size"),
        Field("patch_size", "net_kwargs.patch_size"),
        Field("num_classes", "net_kwargs.n_cls"),
        Field("decoder", "net_kwargs.decoder.name", values=DECODERS),
        Field("decoder_depth", "net_kwargs.decoder.n_layers", 2),
        Field("config.dropout", "net_kwargs.dropout", 0.0),
        Field("config.drop_path", "net_kwargs.drop_path_rate", 0.0),
    ),
    constants={"config.position": "learned", "patches.interpolation": "bilinear"},
    ignored=(r"^encoder\.(head|head_dist)\.",),
    names=names,
    detect=arguments,
    finish=written,
    unread=image_head,
    files=(VARIANT, "checkpoint.pth"),
)

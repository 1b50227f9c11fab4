"""DETR (Carion et al. 2020), as transformers and the hub store it, and as its authors do."""

from __future__ import annotations

import re
from typing import Any

from family.inputs.backbone import CNNBackbone
from family.models.detr import DETR
from family.pretrained.shared_fields import ACTIVATIONS, BLOCK, CROSS, count_labels, label_fields
from family.pretrained.table import Field, Format, Names, Row, blocks, unnumbered
from family.pretrained.weights import Weights

RESNETS: dict[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}
"""Kind of block and blocks a stage -> timm's name."""
FROZEN = ("conv1", "bn1", "layer1")
ORIGINAL_PARTS: Names = {
    "self_attention.norm": "norm1",
    "self_attention.sublayer.qkv.weight": "self_attn.in_proj_weight",
    "self_attention.sublayer.qkv.bias": "self_attn.in_proj_bias",
    "self_attention.sublayer.out": "self_attn.out_proj",
    "feedforward.norm": "norm2",
    "feedforward.sublayer.up": "linear1",
    "feedforward.sublayer.down": "linear2",
}
ORIGINAL_CROSS: Names = {
    "cross_attention.norm": "norm2",
    **{
        f"cross_attention.sublayer.{part}.{kind}": Row(
            (f"multihead_attn.in_proj_{kind}",), share=share
        )
        for part, share in (("query", (0, 1, 3)), ("key_value", (1, 3, 3)))
        for kind in ("weight", "bias")
    },
    "cross_attention.sublayer.out": "multihead_attn.out_proj",
    "feedforward.norm": "norm3",
}
MODULES: Names = {
    "self_attention.sublayer.out": "self_attn.o_proj",
    "feedforward.sublayer.up": "mlp.fc1",
    "feedforward.sublayer.down": "mlp.fc2",
}
CROSS_MODULES: Names = {**MODULES, "cross_attention.sublayer.out": "encoder_attn.o_proj"}
"""What version 5 of transformers calls them in memory."""
HEADS: Names = {
    "queries": "query_embed",
    "project": "input_proj",
    "head.classes": "class_embed",
    **{f"head.box.{2 * layer}": f"bbox_embed.layers.{layer}" for layer in range(3)},
}
HUB_RESNET = (
    (r"\.embedder\.embedder\.convolution\.", ".conv1."),
    (r"\.embedder\.embedder\.normalization\.", ".bn1."),
    (r"\.encoder\.stages\.(\d)\.layers\.(\d+)\.", lambda m: f".layer{int(m[1]) + 1}.{m[2]}."),
    (r"\.layer\.(\d)\.convolution\.", lambda m: f".conv{int(m[1]) + 1}."),
    (r"\.layer\.(\d)\.normalization\.", lambda m: f".bn{int(m[1]) + 1}."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
)
"""The names of transformers' own ResNet -> those of timm and torchvision."""


def backbone_names(model: DETR, theirs: str) -> dict[str, str]:
    """Those of the network itself, whatever it is."""
    names = [unnumbered(name) for name in model.backbone.state_dict()]
    return {f"backbone.{name}": theirs + name.removeprefix("net.") for name in names}


def modules(model: DETR) -> Names:
    encoder = blocks("encoder", "model.encoder.layers.{}", MODULES)
    return {**encoder, **blocks("decoder", "model.decoder.layers.{}", CROSS_MODULES)}


def names(model: DETR) -> Names:
    return {
        "queries": "model.query_position_embeddings",
        "project": "model.input_projection",
        "head.classes": "class_labels_classifier",
        **{f"head.box.{2 * layer}": f"bbox_predictor.layers.{layer}" for layer in range(3)},
        "decoder.norm": "model.decoder.layernorm",
        **blocks("encoder", "model.encoder.layers.{}", BLOCK),
        **blocks("decoder", "model.decoder.layers.{}", {**BLOCK, **CROSS}),
        **backbone_names(model, "model.backbone.conv_encoder.model."),
    }


def original_names(model: DETR) -> Names:
    return {
        **HEADS,
        "encoder.norm": "transformer.encoder.norm",
        "decoder.norm": "transformer.decoder.norm",
        **blocks("encoder", "transformer.encoder.layers.{}", ORIGINAL_PARTS),
        **blocks("decoder", "transformer.decoder.layers.{}", {**ORIGINAL_PARTS, **ORIGINAL_CROSS}),
        **backbone_names(model, "backbone.0.body."),
    }


def timm_name(name: str) -> str:
    """A weight of transformers' own ResNet by timm's name."""
    if ".backbone." in name:
        for pattern, change in HUB_RESNET:
            name = re.sub(pattern, change, name)
    return name


def backbone(config: dict[str, Any]) -> dict[str, Any]:
    """The network, and which of its maps is read.

    Raises:
        ValueError: a network that timm does not have.
    """
    inner = config.get("backbone_config") or {}
    older = config.get("backbone_kwargs") or {}
    kind = inner.get("model_type", "timm_backbone")
    indices = inner.get("out_indices") or older.get("out_indices") or [4]
    name = inner.get("backbone") or config.get("backbone") or "resnet50"
    if kind == "resnet":
        name = resnet(inner)
    elif not isinstance(name, str):
        raise ValueError(f"backbone={name!r} is no name.")
    elif kind != "timm_backbone" or config.get("use_timm_backbone") is False:
        raise ValueError(
            f"the backbone {name if kind == 'timm_backbone' else kind!r} is not known."
        )
    resnets = "resnet" in name
    return {
        "backbone": name,
        "stage": -1 if resnets and indices[-1] == 4 else indices[-1],
        "dilation": bool(config.get("dilation") or inner.get("output_stride") == 16),
        "freeze": FROZEN if resnets else (),
    }


def resnet(config: dict[str, Any]) -> str:
    """timm's name of one of transformers' own ResNets.

    Raises:
        ValueError: none of the published sizes.
    """
    layer, depths = config.get("layer_type", "bottleneck"), config.get("depths", (3, 4, 6, 3))
    widths = (64, 128, 256, 512) if layer == "basic" else (256, 512, 1024, 2048)
    usual = {"embedding_size": 64, "hidden_sizes": widths, "hidden_act": "relu"}
    usual |= {"downsample_in_first_stage": False, "downsample_in_bottleneck": False}
    usual |= {"out_features": ("stage4",)}
    for field, value in usual.items():
        found = config.get(field, value)
        if (tuple(found) if isinstance(found, list) else found) != value:
            raise ValueError(f"backbone_config.{field}={found!r} is not supported; {value} is.")
    if (layer, tuple(depths)) not in RESNETS:
        raise ValueError(f"a ResNet with layer_type={layer!r} of depths={depths} is not known.")
    return RESNETS[layer, tuple(depths)]


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {"num_classes": count_labels(config), **backbone(config)}


def network(model: Any) -> CNNBackbone:
    """The backbone of a model, if a config can name it.

    Raises:
        ValueError: patches, or a module that was handed in.
    """
    name = model.arguments["backbone"]
    if not isinstance(model.backbone, CNNBackbone) or not isinstance(name, str):
        name = name if isinstance(name, str) else type(name).__name__
        raise ValueError(f"no format can express backbone={name!r}; they name a network of timm.")
    return model.backbone


def written(model: Any, config: dict[str, Any]) -> dict[str, Any]:
    info: Any = network(model).net.feature_info
    stride = {"output_stride": 16} if model.arguments["dilation"] else {}
    return {
        "backbone_config": {
            "model_type": "timm_backbone",
            "backbone": model.arguments["backbone"],
            "num_channels": 3,
            "features_only": True,
            "use_pretrained_backbone": False,
            "out_indices": [int(info.out_indices[-1])],
            **stride,
        },
        "dilation": bool(stride),
        **label_fields(model, model.num_classes),
    }


def describe_state(weights: Weights) -> dict[str, Any]:
    """The options of the authors' ``main.py`` that the weights tell.

    That the last stage dilates, no weight tells: the published files say so in their names ("dc5").
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in weights.places:
            raise ValueError(f"{weights.origin} has no weight {name}.")
        return tuple(weights.read(name).shape)

    def count(pattern: str) -> int:
        found = (re.match(pattern, name) for name in weights.places)
        return len({match[1] for match in found if match})

    body = "backbone.0.body.layer"
    depths = tuple(count(rf"backbone\.0\.body\.layer{stage}\.(\d+)\.") for stage in range(1, 5))
    layer = "bottleneck" if f"{body}1.0.conv3.weight" in weights.places else "basic"
    if (layer, depths) not in RESNETS:
        raise ValueError(f"{weights.origin}: its backbone is no ResNet of {layer} blocks {depths}.")
    classes, dim = shape("class_embed.weight")
    return {
        "backbone": RESNETS[layer, depths],
        "dilation": "dc5" in weights.origin,
        "num_classes": classes - 1,
        "num_queries": shape("query_embed.weight")[0],
        "hidden_dim": dim,
        "dim_feedforward": shape("transformer.encoder.layers.0.linear1.weight")[0],
        "enc_layers": count(r"transformer\.encoder\.layers\.(\d+)\."),
        "dec_layers": count(r"transformer\.decoder\.layers\.(\d+)\."),
        "pre_norm": "transformer.encoder.norm.weight" in weights.places,
    }


def original_written(model: Any, config: dict[str, Any]) -> dict[str, Any]:
    network(model)
    return {}


def original_arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """All published ones have heads of 32 channels, and a ResNet whose first layers stay."""
    if config["backbone"] not in RESNETS.values():
        raise ValueError(f"backbone={config['backbone']!r} is not supported; a ResNet is.")
    return {"config.heads": config["hidden_dim"] // 32, "freeze": FROZEN}


FORMAT = Format(
    name="detr",
    member=DETR,
    model_types=("detr",),
    architectures=("DetrForObjectDetection",),
    fields=(
        Field("config.dim", "d_model", 256),
        Field("config.depth", "encoder_layers", 6),
        Field("decoder_depth", "decoder_layers", 6),
        Field("config.heads", "encoder_attention_heads", 8),
        Field("config.heads", "decoder_attention_heads", 8),
        Field("config.ffn_dim", "encoder_ffn_dim", 2048),
        Field("config.ffn_dim", "decoder_ffn_dim", 2048),
        Field("config.activation", "activation_function", "relu", ACTIVATIONS),
        Field("config.dropout", "dropout", 0.1),
        Field("config.attention_dropout", "attention_dropout", 0.0),
        Field("config.ffn_dropout", "activation_dropout", 0.0),
        Field("queries", "num_queries", 100),
    ),
    constants={"config.norm_order": "post"},
    fixed={"num_channels": 3, "position_embedding_type": "sine"},
    renamed=timm_name,
    names=names,
    modules=modules,
    detect=arguments,
    finish=written,
    image_processor="DetrImageProcessor",
)
ORIGINAL = Format(
    name="detr_original",
    member=DETR,
    model_types=(),
    architectures=(),
    fields=(
        Field("config.dim", "hidden_dim"),
        Field("config.ffn_dim", "dim_feedforward"),
        Field("config.depth", "enc_layers"),
        Field("decoder_depth", "dec_layers"),
        Field("config.norm_order", "pre_norm", values={False: "post", True: "pre"}),
        Field("queries", "num_queries"),
        Field("num_classes", "num_classes"),
        Field("backbone", "backbone"),
        Field("dilation", "dilation"),
    ),
    constants={"config.activation": "relu", "config.dropout": 0.1},
    names=original_names,
    detect=original_arguments,
    finish=original_written,
    files=("", "checkpoint.pth"),
)

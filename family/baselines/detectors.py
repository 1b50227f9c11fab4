"""Convolutional networks that detect: torchvision's Faster R-CNN and RetinaNet on networks of timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from family.inputs.backbone import network
from family.losses.boxes import to_centres, to_corners
from family.losses.set_matching import Targets, check_targets
from family.models.examples import SCENES
from family.models.member import member

RATIOS = (0.5, 1.0, 2.0)
"""Height to width of anchors (Ren et al. 2015, section 3.1.1)."""


class Pyramid(nn.Module):
    """A network of timm under a feature pyramid (Lin et al. 2017), as torchvision's detectors ask.

    Args:
        name: as timm knows it.
        stages: which of its feature maps, from fine to coarse; of a ResNet 1 has a stride of 4.
        channels: of every map of the pyramid.
        extra: what makes the maps that are coarser than the network's.
        width: of a ResNet, see :func:`~family.inputs.backbone.network`.
        pretrained: fetch timm's published weights.

    Raises:
        ValueError: a name or a stage that there is not.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[int],
        channels: int,
        extra: ExtraFPNBlock,
        width: int | None,
        pretrained: bool,
    ) -> None:
        super().__init__()
        if not stages or list(stages) != sorted({*stages}):
            raise ValueError(f"stages={list(stages)} are to be given from fine to coarse.")
        options: dict[str, Any] = {"features_only": True, "out_indices": tuple(stages)}
        try:
            self.body: Any = network(name, width=width, pretrained=pretrained, **options)
        except IndexError:
            raise ValueError(f"stages={list(stages)}: {name!r} has fewer feature maps.") from None
        info = self.body.feature_info
        self.fpn = FeaturePyramidNetwork(info.channels(), channels, extra)
        self.out_channels, self.stride = channels, max(info.reduction())

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """The maps ``(batch, channels, rows, columns)`` by name: "0" is the finest."""
        return self.fpn({str(i): x for i, x in enumerate(self.body(pixel_values))})


class AsGiven(GeneralizedRCNNTransform):
    """Pictures become a batch as they are: the data has resized and normalised them already."""

    def __init__(self, stride: int) -> None:
        super().__init__(1, 1, [0.0] * 3, [1.0] * 3, size_divisible=stride)

    def normalize(self, image: Tensor) -> Tensor:
        return image

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        return image, target


class Detector(nn.Module):
    """A detector of torchvision by the contract of detection, with a training loss of its own.

    Args:
        net: torchvision's.
        num_classes: without background.
        first: the label that ``net`` has for the first class.
    """

    classification = "focal"
    """Scores are probabilities of single classes: :func:`~family.heads.detection.postprocess` gives
    back what the network has found."""

    def __init__(self, net: nn.Module, num_classes: int, first: int) -> None:
        super().__init__()
        net.transform = AsGiven(net.backbone.stride)  # type: ignore[arg-type]
        self.net, self.num_classes, self.first = net, num_classes, first

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> dict[str, Tensor]:
        """What is found, after non-maximum suppression; in evaluation alone.

        Pictures of unequal size go through the network one by one, so that what is found in one
        does not depend on the others.

        Args:
            pixel_values: ``(batch, 3, height, width)``; smaller pictures stand at the top left.
            pixel_mask: ``(batch, height, width)``, True = picture; None = all of it.

        Returns:
            ``logits`` (batch, found, classes), minus infinity but for the label of what was found;
            ``boxes`` (batch, found, 4): cx, cy, w, h in 0..1 of the picture without its padding.
            Rows are filled up to the most that one picture has.

        Raises:
            ValueError: in training.
        """
        if self.training:
            raise ValueError("boxes are found in evaluation: call eval() first, or losses(...).")
        pictures = unpadded(pixel_values, pixel_mask)
        by_size: dict[torch.Size, list[int]] = {}
        for i, picture in enumerate(pictures):
            by_size.setdefault(picture.shape, []).append(i)
        logits, boxes = [pixel_values] * len(pictures), [pixel_values] * len(pictures)
        for alike in by_size.values():
            for i, found in zip(alike, self.net([pictures[i] for i in alike]), strict=True):
                logits[i] = self._log_odds(found)
                boxes[i] = to_centres(found["boxes"] / sides(pictures[i]))
        return {
            "logits": pad_sequence(logits, batch_first=True, padding_value=-torch.inf),
            "boxes": pad_sequence(boxes, batch_first=True),
        }

    def losses(
        self, pixel_values: Tensor, pixel_mask: Tensor | None, targets: Targets
    ) -> dict[str, Tensor]:
        """The terms of torchvision's loss, whose sum is what learns; in training alone.

        Args:
            pixel_values, pixel_mask: as :meth:`forward` takes them.
            targets: for each picture ``labels`` (n) and ``boxes`` (n, 4), as
                :class:`~family.losses.set_matching.SetLoss` takes them; n may be 0.

        Raises:
            ValueError: in evaluation, or for targets that do not fit.
        """
        if not self.training:
            raise ValueError("losses are of training: call train() first.")
        check_targets(targets, pixel_values, self.num_classes)
        pictures = unpadded(pixel_values, pixel_mask)
        wanted = []
        for target, picture in zip(targets, pictures, strict=True):
            corners = to_corners(target["boxes"].reshape(-1, 4)) * sides(picture)
            solid = (corners[:, 2:] > corners[:, :2]).all(1)  # else torchvision refuses it
            labels = target["labels"] + self.first
            wanted.append({"boxes": corners[solid], "labels": labels[solid]})
        return self.net(pictures, wanted)

    def _log_odds(self, found: dict[str, Tensor]) -> Tensor:
        """``(found, classes)``: what a sigmoid makes scores of."""
        scores, labels = found["scores"].float(), found["labels"] - self.first
        logits = scores.new_full((len(scores), self.num_classes), -torch.inf)
        return logits.scatter(1, labels[:, None], scores.logit()[:, None])


@member(
    task="Detection",
    reads=("pictures",),
    inputs=SCENES,
    example={"num_classes": 5, "width": 8, "channels": 8, "hidden": 8},
    any_size=True,
)
class FasterRCNN(Detector):
    """Proposals from anchors, then a class and a box for each (Ren et al. 2015), on a feature pyramid.

    Args:
        num_classes: without background.
        backbone: any network of timm with feature maps, by name.
        stages: of the network, from fine to coarse; the pyramid pools one coarser map.
        channels: of the pyramid.
        hidden: width of the two layers that judge a proposal.
        anchor_size: side of the anchors of the finest map, in pixels; of each next map twice as much.
        proposals: that are judged in each picture; twice as many in training.
        samples: of these, how many of each picture learn.
        score_threshold: what has a smaller score is not found.
        width: channels of a ResNet's first stage, doubled at each of the next; None is as published.
        pretrained: fetch timm's published weights of the backbone.

    Raises:
        ValueError: a backbone or a stage that there is not.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet18",
        stages: Sequence[int] = (1, 2, 3, 4),
        channels: int = 256,
        hidden: int = 1024,
        anchor_size: int = 32,
        proposals: int = 1000,
        samples: int = 512,
        score_threshold: float = 0.05,
        width: int | None = None,
        pretrained: bool = False,
    ) -> None:
        pyramid = Pyramid(backbone, stages, channels, LastLevelMaxPool(), width, pretrained)
        sizes = [(anchor_size << i,) for i in range(len(stages) + 1)]
        net = detection.FasterRCNN(
            pyramid,
            rpn_anchor_generator=AnchorGenerator(sizes, [RATIOS] * len(sizes)),
            rpn_post_nms_top_n_train=2 * proposals,
            rpn_post_nms_top_n_test=proposals,
            box_roi_pool=MultiScaleRoIAlign(
                [str(i) for i in range(len(stages))],
                output_size=7,
                sampling_ratio=2,
                # A proposal is read from the map whose anchors have about its size; 224 as published.
                canonical_scale=7 * anchor_size,
            ),
            box_head=TwoMLPHead(channels * 7**2, hidden),
            box_predictor=FastRCNNPredictor(hidden, num_classes + 1),
            box_batch_size_per_image=samples,
            box_score_thresh=score_threshold,
        )
        super().__init__(net, num_classes, first=1)


@member(
    task="Detection",
    reads=("pictures",),
    inputs=SCENES,
    example={"num_classes": 5, "width": 8, "channels": 8, "score_threshold": 0.005},
    any_size=True,
)
class RetinaNet(Detector):
    """A class and a box for each anchor, with focal loss (Lin et al. 2017, "Focal Loss ...").

    Args:
        num_classes, backbone, channels, score_threshold, width, pretrained: as of
            :class:`FasterRCNN`; ``channels`` is the width of the head as well.
        stages: of the network, from fine to coarse; convolutions add two coarser maps.
        anchor_size: side of the smallest anchors of the finest map, in pixels: each map has three
            sizes within an octave, and each next map those twice as large.

    Raises:
        ValueError: a backbone or a stage that there is not.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet18",
        stages: Sequence[int] = (2, 3, 4),
        channels: int = 256,
        anchor_size: int = 32,
        score_threshold: float = 0.05,
        width: int | None = None,
        pretrained: bool = False,
    ) -> None:
        extra = LastLevelP6P7(channels, channels)
        pyramid = Pyramid(backbone, stages, channels, extra, width, pretrained)
        octaves = [anchor_size << i for i in range(len(stages) + 2)]
        sizes = [tuple(int(side * 2 ** (i / 3)) for i in range(3)) for side in octaves]
        net = detection.RetinaNet(
            pyramid,
            num_classes,
            anchor_generator=AnchorGenerator(sizes, [RATIOS] * len(sizes)),
            score_thresh=score_threshold,
            detections_per_img=100,
        )
        super().__init__(net, num_classes, first=0)


def unpadded(pixel_values: Tensor, pixel_mask: Tensor | None) -> list[Tensor]:
    """The pictures ``(3, height, width)`` of a batch, each of its own size.

    Raises:
        ValueError: one whose mask leaves no pixel.
    """
    if pixel_mask is None:
        return list(pixel_values)
    heights, widths = pixel_mask[:, :, 0].sum(1).tolist(), pixel_mask[:, 0].sum(1).tolist()
    if 0 in heights:
        raise ValueError(
            f"picture {heights.index(0)} has no pixel: pixel_mask is False all over it."
        )
    return [x[:, :h, :w] for x, h, w in zip(pixel_values, heights, widths, strict=True)]


def sides(picture: Tensor) -> Tensor:
    """What boxes in 0..1 are multiplied by: width, height, width, height in pixels."""
    height, width = picture.shape[-2:]
    return torch.tensor([width, height] * 2, device=picture.device)

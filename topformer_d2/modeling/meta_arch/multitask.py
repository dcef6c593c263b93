"""Segmentation and detection from one pass of the backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet, build_sem_seg_head
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from ...config import complete_config
from ...errors import InputError
from ...tasks import BOXES, PIXELS
from ..heads import SegmentationHead
from ..losses import UncertaintyWeighting
from .batching import (
    FinishLogits,
    check_inference,
    output_size,
    pad_labels,
    resize_logits,
    run_by_size,
)
from .contract import RawOutput, Seen, taught_losses
from .head_contract import head_divisor, pad_to_multiple, run_head
from .retinanet import FastRetinaNet, LiteRetinaNet

_DETECTORS = {"RetinaNet": RetinaNet, "LiteRetinaNet": LiteRetinaNet}
_INSTANCE_LOSSES = ("loss_cls", "loss_box_reg")


@META_ARCH_REGISTRY.register()
class TopFormerMultiTask(FastRetinaNet):
    """A RetinaNet whose SIM outputs feed a segmentation head beside the pyramid.

    Its parameters are a detector's and a segmenter's under the names that they have there, with
    TopFormer once, as "backbone.bottom_up". With equal weights its outputs are the two models'.

    Each image trains the tasks that it has labels for: of others, all pixels or all anchors are
    ignored, as those without a label are in the single-task models. So an image weighs the same
    whatever stands beside it and however many processes share a batch: the segmentation's loss is
    divided by all pixels, RetinaNet's by its running mean of foreground anchors. Both heads run on
    the whole batch, so that their norms see what they will see in use, and that every process of a
    distributed run has a gradient for every parameter.
    """

    tasks = (PIXELS.name, BOXES.name)

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        instance_loss_weight: float = 1.0,
        uncertainty_weighting: bool = False,
        **kwargs: Any,
    ):
        """
        Args:
            sem_seg_head: takes the features of backbone.bottom_up, as TopFormerSegmentationHead
                does; its loss_weight is the segmentation's. One without this toolkit's `layers`
                is called as Detectron2 does, `forward(features, targets)`.
            instance_loss_weight: factor of the detector's losses.
            uncertainty_weighting: learn a further factor for each loss (UncertaintyWeighting).
            kwargs: as for RetinaNet; the backbone has bottom_up, and gives its features where asked
                (with_bottom_up), as TopFormerFPN and LitePyramid do.
        """
        super().__init__(**kwargs)
        self.sem_seg_head = sem_seg_head
        self.instance_loss_weight = instance_loss_weight
        self.loss_weighting = (
            UncertaintyWeighting(("loss_sem_seg", *_INSTANCE_LOSSES), regressions=["loss_box_reg"])
            if uncertainty_weighting
            else None
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        cfg = complete_config(cfg)
        keys = cfg.MODEL.MULTITASK
        if keys.DETECTOR not in _DETECTORS:
            raise InputError(
                f"MODEL.MULTITASK.DETECTOR is {keys.DETECTOR!r}; known: {[*_DETECTORS]}"
            )
        args = _DETECTORS[keys.DETECTOR].from_config(cfg)
        if not getattr(args["backbone"], "gives_bottom_up", False):
            raise InputError(
                f"MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME!r} has no pyramid on TopFormer: use "
                "build_retinanet_topformer_fpn_backbone or build_retinanet_topformer_lite_backbone"
            )
        return {
            **args,
            "quality_targets": cfg.MODEL.RETINANET.QUALITY_TARGETS,
            "sem_seg_head": build_sem_seg_head(cfg, args["backbone"].bottom_up.output_shape()),
            "instance_loss_weight": keys.INSTANCE_LOSS_WEIGHT,
            "uncertainty_weighting": keys.UNCERTAINTY_WEIGHTING,
        }

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: one dict an image, as Detectron2's DatasetMapper makes them: "image"
                (3, H, W) in 0..255; in training "sem_seg" (H, W) int64, "instances" with gt_boxes
                and gt_classes, or both, whichever the image has labels for; "height" and "width"
                of the output in inference (default: the image's).

        Returns:
            in training {"loss_sem_seg", "loss_cls", "loss_box_reg": scalar}, 0 where no image has
            the labels, "loss_uncertainty" with uncertainty weighting, and the losses of teachers
            where it has some; in inference one dict an image with "sem_seg", the logits
            (K, height, width), and "instances" with pred_boxes, scores and pred_classes.

        Raises:
            InputError: a training image has no labels at all, or a term of the segmentation's loss
                has the name of another one.
        """
        if not self.training:
            return self.predict(batched_inputs)
        pixels = [x.get("sem_seg") for x in batched_inputs]
        objects = [x.get("instances") for x in batched_inputs]
        for x, *labels in zip(batched_inputs, pixels, objects, strict=True):
            if labels == [None, None]:
                raise InputError(f"{x.get('file_name', 'an image')} has no labels to train on")
        batch = self.preprocess_image(batched_inputs)
        features, levels = self._features(batch.tensor)
        logits, pixel_losses = self._segment(features)
        ignored = getattr(self.sem_seg_head, "ignore_value", 255)
        targets = pad_labels(pixels, batch.tensor.shape[-2:], ignored, self.device)
        truth = [None if x is None else x.to(self.device) for x in objects]
        predictions = self.head(levels)
        # Without the losses of teachers, which see both tasks at once.
        found = RetinaNet.forward_training(self, batch, levels, predictions, truth)
        losses = pixel_losses(targets)
        self._check_names(losses, found)
        losses |= {name: loss * self.instance_loss_weight for name, loss in found.items()}
        if self.loss_weighting is not None:
            labels_of = {"loss_sem_seg": pixels, **dict.fromkeys(_INSTANCE_LOSSES, objects)}
            present = [n for n, labels in labels_of.items() if any(x is not None for x in labels)]
            losses = self.loss_weighting(losses, present)
        seen = Seen(RawOutput(logits, *predictions), features, levels)
        return losses | taught_losses(self, batch.tensor, batch.image_sizes, seen)

    def _check_names(self, losses: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
        """InputError where a term of the segmentation's losses has the name of another loss."""
        taken = {*found, *(() if self.loss_weighting is None else ("loss_uncertainty",))}
        if shared := sorted(taken & losses.keys()):
            head = self.sem_seg_head
            key, source = (
                ("LOSS", head.loss) if isinstance(head, SegmentationHead) else ("NAME", head)
            )
            raise InputError(
                f"MODEL.SEM_SEG_HEAD.{key} {type(source).__name__!r} gives {shared[0]!r}, which is "
                "a loss of the model's other part: give that term another name"
            )

    def _segment(
        self, features: dict[str, Tensor]
    ) -> tuple[Tensor | None, Callable[[Tensor], dict[str, Tensor]]]:
        """In training: the segmentation head's logits, and from targets to its losses.

        Without logits, None, where the head is not this toolkit's.
        """
        head = self.sem_seg_head
        if isinstance(head, SegmentationHead):
            return head.start_training(features)
        return None, lambda targets: head(features, targets)[1]

    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances | None]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As RetinaNet's; of an image without labels, None, every anchor is ignored (-1)."""
        labelled = [instances for instances in gt_instances if instances is not None]
        found = zip(*super().label_anchors(anchors, labelled), strict=True)
        locations = Boxes.cat(anchors).tensor
        ignored = (
            torch.full_like(locations[:, 0], -1, dtype=torch.int64),
            torch.zeros_like(locations),
        )
        rows = [next(found) if instances is not None else ignored for instances in gt_instances]
        return [labels for labels, _ in rows], [boxes for _, boxes in rows]

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """As RetinaNet's; padded further where the segmentation head needs it (head_divisor)."""
        batch = super().preprocess_image(batched_inputs)
        return ImageList(pad_to_multiple(batch.tensor, self.size_divisor), batch.image_sizes)

    @property
    def size_divisor(self) -> int:
        """What the sides of the network's images must be multiples of; 1 for this toolkit's."""
        return max(super().size_divisor, head_divisor(self.backbone.bottom_up, self.sem_seg_head))

    def _features(self, images: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        features, pyramid = self.backbone(images, with_bottom_up=True)
        return features, [pyramid[name] for name in self.head_in_features]

    def network(self, images: Tensor, size: Sequence[int] | None = None) -> RawOutput:
        """All that both tasks compute before decoding.

        Args:
            images: (N, 3, H, W), normalised.
            size: (height, width) where images are padded; None = they are not.
        """
        features, levels = self._features(images)
        logits = run_head(self.sem_seg_head, features, images, size or images.shape[-2:])
        return RawOutput(logits, *self.head(levels))

    def predict(
        self, batched_inputs: list[dict], finish: FinishLogits = resize_logits
    ) -> list[dict]:
        """As forward in inference, with what `finish` makes of each image's logits as "sem_seg"."""
        check_inference(self)
        return run_by_size(partial(self._predict, finish=finish), batched_inputs)

    def _predict(self, batched_inputs: list[dict], finish: FinishLogits) -> list[dict]:
        """Of images of one size."""
        batch = self.preprocess_image(batched_inputs)
        size = tuple(batched_inputs[0]["image"].shape[-2:])
        raw = self.network(batch.tensor, size)
        # Anchors depend on the levels' sizes alone, which the class logits have.
        predictions = raw.class_logits, raw.box_deltas
        found = self.forward_inference(batch, raw.class_logits, predictions)
        outputs = []
        for x, image_logits, instances in zip(batched_inputs, raw.logits, found, strict=True):
            wanted = output_size(x, size)
            outputs.append(
                {
                    "sem_seg": finish(image_logits, size, wanted),
                    "instances": detector_postprocess(instances, *wanted),
                }
            )
        return outputs

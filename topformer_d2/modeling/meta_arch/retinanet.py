"""RetinaNet with a faster loss and faster decoding, and with the lite head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import batched_nms
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from ...config import complete_config, describe_datasets
from ..heads import LiteRetinaNetHead
from .batching import training_layout
from .contract import DetectorContract
from .detector_losses import focal_class_loss
from .finite import check_finite


class FastRetinaNet(DetectorContract, RetinaNet):
    """Detectron2's RetinaNet, with a loss and decoding that are faster and have the same results.

    - The loss of its classes makes no one-hot targets, and its gradient at once (focal_class_loss).
    - It decodes to the same boxes, faster: at 80 classes and 512x512 there are 3.9 million scores,
      and RetinaNet reorders, squashes and compares each of them. Here logits are compared where
      they lie, and only those above the threshold are touched again.
    - No test image is padded: images of equal size share a batch, others run on their own, so no
      result depends on its neighbours.
    """

    class_loss = staticmethod(focal_class_loss)

    @configurable
    def __init__(self, *, quality_targets: bool = False, **kwargs: Any):
        """
        Args:
            quality_targets: train the scores to be IoUs (quality_class_loss).
            kwargs: as for RetinaNet.
        """
        super().__init__(**kwargs)
        self.quality_targets = quality_targets

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        keys = complete_config(cfg).MODEL.RETINANET
        return {**super().from_config(cfg), "quality_targets": keys.QUALITY_TARGETS}

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """As RetinaNet's; in inference, images of differing sizes do not share a batch."""
        if self.training:
            return super().forward(batched_inputs)
        return self.predict(batched_inputs)

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """As RetinaNet's; in training with the memory format that is faster (training_layout)."""
        batch = super().preprocess_image(batched_inputs)
        if not self.training:
            return batch
        images = batch.tensor.contiguous(memory_format=training_layout(self.device))
        return ImageList(images, batch.image_sizes)

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: Sequence[list[Tensor]]
    ) -> list[Instances]:
        """One Instances an image, best first: pred_boxes (XYXY, pixels), scores, pred_classes."""
        logits, deltas = predictions
        check_finite(logits, deltas)
        anchors = self.anchor_generator(features)
        return [
            self._select(
                [
                    self._decode_level(anchors_i.tensor, logits_i[n], deltas_i[n])
                    for anchors_i, logits_i, deltas_i in zip(anchors, logits, deltas, strict=True)
                ],
                size,
            )
            for n, size in enumerate(images.image_sizes)
        ]

    def _decode_level(
        self, anchors: Tensor, logits: Tensor, deltas: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best candidates of one level of one image.

        Args:
            anchors: (H W A, 4).
            logits: (A K, H, W).
            deltas: (A 4, H, W).

        Returns:
            boxes (n, 4), scores (n,), classes (n,), with n up to TOPK_CANDIDATES_TEST.
        """
        num_positions = logits.shape[-2] * logits.shape[-1]
        num_anchors = logits.shape[0] // self.num_classes
        flat = logits.reshape(-1)
        above = torch.nonzero(flat > _logit(self.test_score_thresh)).squeeze(1)
        values = flat[above].float()
        values, order = values.topk(_at_most(self.test_topk_candidates, values))
        # Not torch.unravel_index, which can be neither traced nor exported.
        row, position = _divmod(above[order], num_positions)
        anchor, category = _divmod(row, self.num_classes)
        boxes = self.box2box_transform.apply_deltas(
            deltas.reshape(num_anchors, 4, num_positions)[anchor, :, position].float(),
            anchors[position * num_anchors + anchor],
        )
        return boxes, values.sigmoid(), category

    def _select(self, levels: list[tuple[Tensor, ...]], image_size: tuple[int, int]) -> Instances:
        boxes, scores, classes = (torch.cat(parts) for parts in zip(*levels, strict=True))
        keep = batched_nms(boxes, scores, classes, self.test_nms_thresh)
        keep = keep[: self.max_detections_per_image]
        return Instances(
            image_size,
            pred_boxes=Boxes(boxes[keep]),
            scores=scores[keep],
            pred_classes=classes[keep],
        )


def _logit(score: float) -> float:
    if 0 < score < 1:
        return math.log(score / (1 - score))
    return -math.inf if score <= 0 else math.inf


def _divmod(index: Tensor, divisor: int) -> tuple[Tensor, Tensor]:
    """Of int64 indices, 0 or more."""
    return torch.div(index, divisor, rounding_mode="floor"), index % divisor


def _at_most(limit: int, values: Tensor) -> int:
    """`limit` or the number of values, whichever is less; a trace computes it for its own input."""
    if torch.jit.is_tracing():
        return torch.minimum(torch.tensor(limit), torch._shape_as_tensor(values)[0])
    return min(limit, len(values))


@META_ARCH_REGISTRY.register()
class LiteRetinaNet(FastRetinaNet):
    """FastRetinaNet with LiteRetinaNetHead."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        describe_datasets(complete_config(cfg))  # with the number of classes that it has
        # RetinaNet builds its own head with the rest; a small one, as it is not used.
        without_head = cfg.clone()
        without_head.defrost()
        without_head.MODEL.RETINANET.NORM = ""
        without_head.MODEL.RETINANET.NUM_CONVS = 1
        without_head.MODEL.RETINANET.NUM_CLASSES = 1
        args = super().from_config(without_head)
        shapes = args["backbone"].output_shape()
        args["head"] = LiteRetinaNetHead(cfg, [shapes[f] for f in args["head_in_features"]])
        args["num_classes"] = cfg.MODEL.RETINANET.NUM_CLASSES
        return args

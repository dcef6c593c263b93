"""RetinaNet with the lite head, and with a decoding that does not cost what the network does."""

from __future__ import annotations

import math

import torch
from detectron2.layers import batched_nms
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..heads import LiteRetinaNetHead


@META_ARCH_REGISTRY.register()
class LiteRetinaNet(RetinaNet):
    """Detectron2's RetinaNet (its anchors, matching, losses, thresholds and NMS) on a CPU's terms.

    It has LiteRetinaNetHead, and decodes faster to the same boxes: at 80 classes and 512x512 there
    are 3.9 million scores, and RetinaNet reorders, squashes and compares each of them. Here logits
    are compared where they lie, and only those above the threshold are touched again.
    """

    @classmethod
    def from_config(cls, cfg):
        args = super().from_config(cfg)
        shapes = args["backbone"].output_shape()
        args["head"] = LiteRetinaNetHead(cfg, [shapes[f] for f in args["head_in_features"]])
        return args

    def forward_inference(self, images, features: list[Tensor], predictions) -> list[Instances]:
        """One Instances an image, best first: pred_boxes (XYXY, pixels), scores, pred_classes."""
        logits, deltas = predictions
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

    def _decode_level(self, anchors: Tensor, logits: Tensor, deltas: Tensor):
        """The best candidates of one level of one image.

        Args:
            anchors: (H W A, 4).
            logits: (A K, H, W).
            deltas: (A 4, H, W).

        Returns:
            boxes (n, 4), scores (n,), classes (n,), with n up to TOPK_CANDIDATES_TEST.
        """
        height, width = logits.shape[-2:]
        flat = logits.reshape(-1)
        above = torch.nonzero(flat > _logit(self.test_score_thresh)).squeeze(1)
        values, order = flat[above].topk(min(self.test_topk_candidates, len(above)))
        channel, position = _divmod(above[order], height * width)
        anchor, category = _divmod(channel, self.num_classes)
        chosen_deltas = deltas.reshape(-1, 4, height * width)[anchor, :, position]
        num_anchors = logits.shape[0] // self.num_classes
        boxes = self.box2box_transform.apply_deltas(
            chosen_deltas, anchors[position * num_anchors + anchor]
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


def _divmod(x: Tensor, divisor: int) -> tuple[Tensor, Tensor]:
    quotient = torch.div(x, divisor, rounding_mode="floor")
    return quotient, x - quotient * divisor


def _logit(probability: float) -> float:
    if not 0 < probability < 1:
        return math.copysign(math.inf, probability - 0.5)
    return math.log(probability / (1 - probability))

"""Decoding and NMS of a dense detector, in operations that can be exported."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling import RetinaNet
from torch import Tensor, nn
from torchvision.ops import nms

from ..inference.export_info import BoxDecoding

# A score below all others, for the classes that a candidate is not of.
_NEVER = -1e30


def box_decoding(model: RetinaNet) -> BoxDecoding:
    """The anchors, thresholds and factors by which `model` decodes its raw outputs."""
    generator = model.anchor_generator
    return BoxDecoding(
        strides=tuple(generator.strides),
        cell_anchors=tuple(
            tuple(map(tuple, anchors.tolist())) for anchors in generator.cell_anchors
        ),
        offset=generator.offset,
        box_weights=tuple(model.box2box_transform.weights),
        scale_clamp=model.box2box_transform.scale_clamp,
        score_threshold=model.test_score_thresh,
        topk=model.test_topk_candidates,
        nms_threshold=model.test_nms_thresh,
        max_detections=model.max_detections_per_image,
    )


class BoxDecoder(nn.Module):
    """What FastRetinaNet does with the head's outputs of one image, in sizes known to the graph.

    The best candidates of a level are found in two steps: first the best positions by their best
    class, then the best classes of those. A candidate among the best k is at one of the best k
    positions, so it gives the same without sorting all classes of all positions. Candidates below
    the threshold stay until the NMS, which takes it too; there are few either way.
    """

    def __init__(self, model: RetinaNet):
        super().__init__()
        self.decoding = box_decoding(model)
        self.num_classes = model.num_classes
        self.transform = model.box2box_transform
        self.register_buffer("cell_anchors", torch.tensor(self.decoding.cell_anchors))
        threshold = torch.tensor(self.decoding.score_threshold)
        self.logit_threshold = torch.logit(threshold).item()

    def forward(self, logits: list[Tensor], deltas: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Levels (1, A K, Hi, Wi) and (1, A 4, Hi, Wi), finest first, to boxes of one image.

        Returns:
            boxes (n, 4) XYXY in pixels of the network's input, scores (n,), classes (n,) int64,
            best first.
        """
        levels = [
            self._decode_level(i, *level)
            for i, level in enumerate(zip(logits, deltas, strict=True))
        ]
        boxes, values, classes = (torch.cat(parts) for parts in zip(*levels, strict=True))
        is_class = classes == torch.arange(self.num_classes).unsqueeze(1)
        kept = NonMaxSuppression.apply(
            boxes.unsqueeze(0),
            torch.where(is_class, values, _NEVER).unsqueeze(0),
            self.decoding.max_detections,
            self.decoding.nms_threshold,
            self.logit_threshold,
        )
        candidate = kept[:, 2]
        found, order = top(values[candidate], self.decoding.max_detections)
        best = candidate[order]
        return boxes[best], found.sigmoid(), classes[best]

    def _decode_level(
        self, level: int, logits: Tensor, deltas: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, logits and classes (n, 4), (n,), (n,) of the best candidates of a level."""
        width = logits.shape[3]
        num_anchors = self.cell_anchors.shape[1]
        positions = logits.shape[2] * width
        by_class = logits.reshape(num_anchors, self.num_classes, -1)
        _, cell = top(by_class.amax(dim=1).reshape(-1), self.decoding.topk)
        anchor, position = _divmod(cell, positions)
        category = torch.arange(self.num_classes)
        index = (anchor.unsqueeze(1) * self.num_classes + category) * positions
        values = logits.reshape(-1)[index + position.unsqueeze(1)]
        values, order = top(values.reshape(-1), self.decoding.topk)
        row, category = _divmod(order, self.num_classes)
        anchor, position = anchor[row], position[row]
        index = (anchor.unsqueeze(1) * 4 + torch.arange(4)) * positions + position.unsqueeze(1)
        anchors = self._anchors(level, anchor, position, width)
        boxes = self.transform.apply_deltas(deltas.reshape(-1)[index], anchors)
        return boxes, values, category

    def _anchors(self, level: int, anchor: Tensor, position: Tensor, width: int | Tensor) -> Tensor:
        """The anchors (n, 4) of these numbers at these positions, as the anchor generator's."""
        y, x = _divmod(position, width)
        middle = torch.stack((x, y, x, y), dim=1).float() + self.decoding.offset
        return self.cell_anchors[level][anchor] + middle * self.decoding.strides[level]


def top(values: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The largest of (n,) and their indices, best first, up to `most`; n may be traced."""
    count = torch._shape_as_tensor(values)[0]
    return values.topk(torch.minimum(count, torch.tensor(most)))


def _divmod(index: Tensor, by: int | Tensor) -> tuple[Tensor, Tensor]:
    """Of numbers that are not negative; in ONNX three nodes."""
    quotient = torch.div(index, by, rounding_mode="trunc")
    return quotient, index - quotient * by


class NonMaxSuppression(torch.autograd.Function):
    """ONNX's operator: within each class, what overlaps a better box is dropped.

    Detectron2 moves the classes apart instead, which rounds the boxes; this keeps them as they are.
    """

    @staticmethod
    def forward(
        ctx: Any,
        boxes: Tensor,
        scores: Tensor,
        most: int,
        iou_threshold: float,
        score_threshold: float,
    ) -> Tensor:
        """
        Args:
            boxes: (1, n, 4) XYXY.
            scores: (1, K, n).
            most: boxes of a class.

        Returns:
            (m, 3) int64: 0, the class and the number of each box that is kept.
        """
        kept = []
        for category, of_class in enumerate(scores[0]):
            number = torch.nonzero(of_class > score_threshold).squeeze(1)
            number = number[nms(boxes[0, number], of_class[number], iou_threshold)[:most]]
            head = torch.tensor([0, category]).expand(len(number), 2)
            kept.append(torch.cat([head, number.unsqueeze(1)], dim=1))
        return torch.cat(kept)

    @staticmethod
    def symbolic(
        g: Any, boxes: Any, scores: Any, most: int, iou_threshold: float, score_threshold: float
    ) -> Any:
        limits = (
            g.op("Constant", value_t=torch.tensor([value], dtype=kind))
            for value, kind in (
                (most, torch.int64),
                (iou_threshold, torch.float32),
                (score_threshold, torch.float32),
            )
        )
        return g.op("NonMaxSuppression", boxes, scores, *limits)

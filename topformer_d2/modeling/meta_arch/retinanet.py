"""RetinaNet with a faster loss and faster decoding, and with the lite head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from ...config import complete_config, describe_datasets
from ..heads import LiteRetinaNetHead
from .batching import training_layout
from .contract import DetectorContract
from .decoding import best_boxes, decode_level
from .detector_losses import focal_class_loss
from .finite import check_finite


class FastRetinaNet(DetectorContract, RetinaNet):
    """Detectron2's RetinaNet, with a loss and decoding that are faster and have the same results.

    - The loss of its classes makes no one-hot targets, and its gradient at once (focal_class_loss).
    - It decodes to the same boxes, faster (decoding.py).
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
        found = []
        for n, size in enumerate(images.image_sizes):
            levels = [
                decode_level(
                    anchors_i.tensor,
                    logits_i[n],
                    deltas_i[n],
                    self.box2box_transform,
                    num_classes=self.num_classes,
                    score_threshold=self.test_score_thresh,
                    topk=self.test_topk_candidates,
                )
                for anchors_i, logits_i, deltas_i in zip(anchors, logits, deltas, strict=True)
            ]
            boxes, scores, classes = best_boxes(
                levels, nms_threshold=self.test_nms_thresh, most=self.max_detections_per_image
            )
            found.append(
                Instances(size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes)
            )
        return found


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

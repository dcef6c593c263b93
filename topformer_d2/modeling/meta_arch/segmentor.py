"""Semantic segmentation with the official protocol's exact sizes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, SemanticSegmentor
from torch import Tensor

from .batching import (
    FinishLogits,
    check_inference,
    output_size,
    pad_labels,
    resize_logits,
    run_by_size,
    to_device,
    training_layout,
)
from .contract import RawOutput, Seen, SegmenterContract, taught_losses
from .head_contract import pad_to_multiple


@META_ARCH_REGISTRY.register()
class TopFormerSegmentor(SegmenterContract, SemanticSegmentor):
    """Detectron2's SemanticSegmentor, for a backbone that sees the whole image at once.

    - Logits are resized from stride 8 straight to the network input's size, then to the output
      size, both bilinearly. Upsampling by the stride and cropping differs at sizes that are no
      multiple of it.
    - No test image is padded: images of equal size share a batch, others run on their own, so no
      result depends on its neighbours.
    - Training images smaller than the crop are padded to it after normalisation, with zeros.

    Any head that keeps Detectron2's contract will do, `forward(features, targets)` to
    (logits, losses); of one without this toolkit's `layers`, the logits are taken to be the input's
    size, as Detectron2 does. Only for heads and backbones that need it (head_divisor) are images
    padded to a multiple of a stride, and the logits cropped.
    """

    @configurable
    def __init__(self, *, train_size: tuple[int, int] | None = None, **kwargs: Any):
        """
        Args:
            train_size: (height, width) that smaller training images are padded to; None = the
                batch's largest height and width, as where an image is larger.
            kwargs: as for SemanticSegmentor: backbone, sem_seg_head, pixel_mean, pixel_std.
        """
        super().__init__(**kwargs)
        self.train_size = train_size

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        crop = cfg.INPUT.CROP
        args = super().from_config(cfg)
        if crop.ENABLED and crop.TYPE == "absolute":
            args["train_size"] = tuple(crop.SIZE)
        return args

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: one dict an image, as Detectron2's DatasetMapper makes them: "image"
                (3, H, W) in 0..255; in training "sem_seg" (H, W) int64; "height" and "width" of
                the output in inference (default: the image's).

        Returns:
            in training the dict of losses, with those of a teacher where it has one; in inference
            one dict an image with "sem_seg", the logits (K, height, width).
        """
        if not self.training:
            return self.predict(batched_inputs)
        images = [to_device(x["image"], self.device) for x in batched_inputs]
        batch = self._pad_for_training(images)
        ignored = getattr(self.sem_seg_head, "ignore_value", 255)
        labels = [x["sem_seg"] for x in batched_inputs]
        targets = pad_labels(labels, batch.shape[-2:], ignored, self.device)
        features = self.backbone(batch)
        logits, losses = self.sem_seg_head(features, targets)
        sizes = [image.shape[-2:] for image in images]
        seen = Seen(RawOutput(logits), features)
        return {**losses, **taught_losses(self, batch, sizes, seen)}

    def predict(
        self, batched_inputs: list[dict], finish: FinishLogits = resize_logits
    ) -> list[dict]:
        """As forward in inference, with what `finish` makes of each image's logits as "sem_seg"."""
        check_inference(self)
        return run_by_size(partial(self._predict, finish=finish), batched_inputs)

    def _predict(self, batched_inputs: list[dict], finish: FinishLogits) -> list[dict]:
        """Of images of one size."""
        batch = self._normalize(torch.stack([x["image"].to(self.device) for x in batched_inputs]))
        size = tuple(batch.shape[-2:])
        logits = self.network(pad_to_multiple(batch, self.size_divisor), size).logits
        return [
            {"sem_seg": finish(image_logits, size, output_size(x, size))}
            for x, image_logits in zip(batched_inputs, logits, strict=True)
        ]

    def _normalize(self, images: Tensor) -> Tensor:
        return (images - self.pixel_mean) / self.pixel_std

    def _pad_for_training(self, images: list[Tensor]) -> Tensor:
        largest = [max(image.shape[d] for image in images) for d in (1, 2)]
        # Another loader's images, such as Detectron2's own, can be larger than the crop.
        height, width = map(max, self.train_size or largest, largest)
        batch = torch.empty(
            (len(images), 3, height, width),
            device=self.device,
            memory_format=training_layout(self.device),
        ).zero_()
        for i, image in enumerate(images):
            h, w = image.shape[-2:]
            batch[i, :, :h, :w] = self._normalize(image)
        return pad_to_multiple(batch, self.size_divisor)

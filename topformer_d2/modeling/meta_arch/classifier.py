"""Classification of whole images, from which segmenters and detectors start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import get_norm
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from ...config import complete_config
from ...errors import InputError
from ...tasks import IMAGES
from ..layers import resolve_norm, trains_batch_norm
from .batching import FinishLogits, check_inference, resize_logits, run_by_size, to_device
from .contract import Seen, taught_losses

_FEATURE = "semantics"


class ClassificationHead(nn.Module):
    """Global average pooling, BatchNorm and a linear layer, as the official weights have them."""

    def __init__(self, channels: int, num_classes: int, *, norm: str = "BN"):
        """
        Args:
            channels: of the feature.
            num_classes: K.
            norm: name for Detectron2's get_norm.
        """
        super().__init__()
        self.norm = get_norm(norm, channels)
        self.linear = nn.Linear(channels, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, channels, h, w) to logits (N, K).

        Raises:
            InputError: in training, the batch is of one image.
        """
        if len(feature) == 1 and trains_batch_norm(self):
            raise InputError(
                "training on a batch of one image leaves the classifier's BatchNorm a single value "
                "a channel: raise SOLVER.IMS_PER_BATCH, or lower SOLVER.ACCUMULATION_STEPS"
            )
        return self.linear(self.norm(feature.mean((2, 3), keepdim=True)).flatten(1))


class ImageOutput(NamedTuple):
    """What a classifier gives in place of a RawOutput: logits (N, K) of whole images."""

    logits: Tensor

    def tensors(self) -> list[Tensor]:
        """The logits, as of a RawOutput."""
        return [self.logits]


class ImageClassifier(nn.Module):
    """Classifies whole images: the batch, the loss and the calls of both; a subclass has `network`.

    Classifiers are for pretraining: a checkpoint is MODEL.WEIGHTS of a segmenter, a detector or a
    joint model, or a teacher of another classifier.
    """

    tasks: tuple[str, ...] = (IMAGES.name,)
    size_divisor = 1
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        label_smoothing: float = 0.0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
    ):
        """
        Args:
            num_classes: K.
            pixel_mean, pixel_std: of each channel, of values from 0 to 255.
            label_smoothing: share of the truth that all classes get alike.
            mixup_alpha, cutmix_alpha: of the Beta distributions from which the shares of the two
                images of a mixed one are drawn, in training; 0 = off. With both, each batch is
                mixed by one of them, which are equally likely.
        """
        super().__init__()
        self.label_smoothing = label_smoothing
        kinds = {v2.MixUp: mixup_alpha, v2.CutMix: cutmix_alpha}
        mixing = [kind(alpha=a, num_classes=num_classes) for kind, a in kinds.items() if a]
        self.mixing = v2.RandomChoice(mixing) if mixing else None
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: one dict an image: "image" (3, H, W) in 0..255; in training "cls", the
                index of its class, and images of one size.

        Returns:
            in training {"loss_cls": the cross entropy}, and a teacher's loss where there is one; in
            inference one dict an image with "cls", the logits (K,).
        """
        if not self.training:
            return self.predict(batched_inputs)
        images = self._batch(batched_inputs)
        classes = [x[IMAGES.name] for x in batched_inputs]
        truth = to_device(torch.tensor(classes, dtype=torch.int64), self.device)
        if self.mixing is not None:
            # PyTorch's generator is seeded before each iteration (SeedEachStep).
            images, truth = self.mixing(images, truth)
        found = self.network(images)
        loss = F.cross_entropy(found.logits, truth, label_smoothing=self.label_smoothing)
        sizes = [images.shape[-2:]] * len(images)
        return {"loss_cls": loss} | taught_losses(self, images, sizes, Seen(found))

    def network(self, images: Tensor) -> ImageOutput:
        """Normalised images (N, 3, H, W) to logits (N, K)."""
        raise NotImplementedError

    def predict(
        self, batched_inputs: list[dict], finish: FinishLogits = resize_logits
    ) -> list[dict]:
        """As forward in inference; there are no pixels' logits for `finish`."""
        check_inference(self)
        return run_by_size(self._predict, batched_inputs)

    def _predict(self, batched_inputs: list[dict]) -> list[dict]:
        logits = self.network(self._batch(batched_inputs)).logits
        return [{IMAGES.name: of_image} for of_image in logits]

    def _batch(self, batched_inputs: list[dict]) -> Tensor:
        images = torch.stack([to_device(x["image"], self.device) for x in batched_inputs])
        return (images - self.pixel_mean) / self.pixel_std


def classifier_args(cfg: CfgNode) -> dict[str, Any]:
    """What an ImageClassifier takes of a config that is complete."""
    return {
        "num_classes": cfg.MODEL.CLS_HEAD.NUM_CLASSES,
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "label_smoothing": cfg.MODEL.CLS_HEAD.LABEL_SMOOTHING,
        "mixup_alpha": cfg.INPUT.CLS.MIXUP_ALPHA,
        "cutmix_alpha": cfg.INPUT.CLS.CUTMIX_ALPHA,
    }


@META_ARCH_REGISTRY.register()
class TopFormerClassifier(ImageClassifier):
    """TopFormer's token pyramid and semantics extractor with a ClassificationHead."""

    @configurable
    def __init__(self, *, backbone: Backbone, num_classes: int, norm: str = "BN", **kwargs: Any):
        """
        Args:
            backbone: gives "semantics", as TopFormerTrunk does.
            num_classes: K.
            norm: of the head, a name for Detectron2's get_norm.
            kwargs: as for ImageClassifier.

        Raises:
            InputError: the backbone does not give "semantics".
        """
        super().__init__(num_classes=num_classes, **kwargs)
        if _FEATURE not in (shapes := backbone.output_shape()):
            raise InputError(
                f"a classifier takes {_FEATURE!r} of its backbone, which gives {[*shapes]}: set "
                "MODEL.BACKBONE.NAME to build_topformer_trunk"
            )
        self.backbone = backbone
        self.cls_head = ClassificationHead(shapes[_FEATURE].channels, num_classes, norm=norm)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        cfg = complete_config(cfg)
        norm = resolve_norm(cfg.MODEL.CLS_HEAD.NORM)
        return {**classifier_args(cfg), "backbone": build_backbone(cfg), "norm": norm}

    def network(self, images: Tensor) -> ImageOutput:
        return ImageOutput(self.cls_head(self.backbone(images)[_FEATURE]))

"""The interface that every model has, and adapters for Detectron2's own models.

A model has

- `tasks`: the names of its tasks (topformer_d2.tasks);
- `size_divisor`: what the sides of the images that `network` takes must be multiples of;
- `network(images) -> RawOutput`: normalised images (N, 3, H, W) to what its heads give;
- `predict(batched_inputs, finish) -> list[dict]`: Detectron2's call in inference, where `finish`
  makes "sem_seg" of each image's logits (FinishLogits).

Export, counting and timing call `network`; prediction and evaluation call `predict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from detectron2.modeling import RetinaNet, SemanticSegmentor
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from torch import Tensor, nn

from ...errors import InputError
from ...tasks import BOXES, PIXELS
from .batching import FinishLogits, check_inference, output_size, resize_logits, run_by_size
from .detector_losses import ClassLoss, quality_class_loss, retinanet_losses
from .finite import check_finite
from .head_contract import head_divisor, run_head


class RawOutput(NamedTuple):
    """What a model's heads give, before anything is resized or decoded; None without such a head.

    Attributes:
        logits: (N, K, h, w), of the pixels, at the segmentation head's stride.
        class_logits: of each level, finest first, (N, A K, h_i, w_i) for A anchors a position.
        box_deltas: of each level, (N, A 4, h_i, w_i).
    """

    logits: Tensor | None = None
    class_logits: list[Tensor] | None = None
    box_deltas: list[Tensor] | None = None

    def tensors(self) -> list[Tensor]:
        """All of them in this order, without the levels' lists."""
        logits = [] if self.logits is None else [self.logits]
        return [*logits, *(self.class_logits or ()), *(self.box_deltas or ())]


class Seen(NamedTuple):
    """What a model's heads give for a training batch, and what they get.

    Attributes:
        raw: what they give, a RawOutput, or a classifier's ImageOutput.
        features: what the segmentation head gets, maps by name.
        levels: what the detection head gets, finest first.
    """

    raw: Any
    features: Any = None
    levels: Any = None


def taught_losses(
    model: nn.Module, images: Tensor, sizes: Sequence[Sequence[int]], seen: Seen
) -> dict[str, Tensor]:
    """The losses of a model's teachers (modeling.distillation); none where it has no teacher.

    Args:
        model: in training; a teacher is in its attribute `distillation`.
        images: (N, 3, H, W), normalised.
        sizes: (height, width) of each image without the padding.
        seen: of that batch.
    """
    distillation = getattr(model, "distillation", None)
    return {} if distillation is None else distillation(images, sizes, seen)


if TYPE_CHECKING:  # the classes with which these are mixed
    from detectron2.modeling import SemanticSegmentor as _Segmenter
    from detectron2.modeling.meta_arch.dense_detector import DenseDetector as _Detector
else:
    _Detector = _Segmenter = object


class DetectorContract(_Detector):
    """The contract for Detectron2's dense detectors, for a class that is one of those as well."""

    tasks: tuple[str, ...] = (BOXES.name,)
    # Of a RetinaNet: another loss of the classes than Detectron2's; None = that.
    class_loss: ClassLoss | None = None
    # Of a RetinaNet: train the scores to be IoUs (quality_class_loss).
    quality_targets: bool = False

    def losses(self, *args: Any) -> dict[str, Tensor]:
        """As the class's own, with `class_loss` or, with `quality_targets`, quality_class_loss."""
        class_loss = quality_class_loss if self.quality_targets else self.class_loss
        if class_loss is None:
            return super().losses(*args)
        return retinanet_losses(cast(RetinaNet, self), *args, class_loss=class_loss)

    def forward_training(
        self, images: Any, features: list[Tensor], predictions: Any, gt_instances: Any
    ) -> dict[str, Tensor]:
        """As the class's own, and the losses of a teacher where it has one."""
        losses = super().forward_training(images, features, predictions, gt_instances)
        raw = RawOutput(class_logits=predictions[0], box_deltas=predictions[1])
        seen = Seen(raw, levels=features)
        return losses | taught_losses(self, images.tensor, images.image_sizes, seen)

    @property
    def size_divisor(self) -> int:
        """Of the backbone."""
        return max(1, getattr(self.backbone, "size_divisibility", 1))

    @property
    def has_anchors(self) -> bool:
        """Whether it decodes boxes as RetinaNet does."""
        return isinstance(self, RetinaNet)

    def network(self, images: Tensor) -> RawOutput:
        """Normalised images (N, 3, H, W) to the detection head's outputs."""
        pyramid = self.backbone(images)
        found = self.head([pyramid[name] for name in self.head_in_features])
        return RawOutput(class_logits=found[0], box_deltas=found[1])

    def predict(
        self, batched_inputs: list[dict], finish: FinishLogits = resize_logits
    ) -> list[dict]:
        """Detectron2's call in inference; images of differing sizes do not share a batch."""
        check_inference(self)
        return run_by_size(super().forward, batched_inputs)


class SegmenterContract(_Segmenter):
    """The contract for Detectron2's SemanticSegmentor, less `predict`."""

    tasks: tuple[str, ...] = (PIXELS.name,)

    @property
    def size_divisor(self) -> int:
        """Of the backbone and the head; 1 for this toolkit's."""
        return head_divisor(self.backbone, self.sem_seg_head)

    def network(self, images: Tensor, size: Sequence[int] | None = None) -> RawOutput:
        """All that is computed before the logits are resized.

        Args:
            images: (N, 3, H, W), normalised.
            size: (height, width) where images are padded; None = they are not.
        """
        features = self.backbone(images)
        return RawOutput(run_head(self.sem_seg_head, features, images, size or images.shape[-2:]))


class _Adapted:
    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copied and pickled as the model that was given: this class has no name in a module."""
        cls: Any = type(self).__bases__[-1]
        given = cls.__new__(cls)
        given.__dict__ = self.__dict__
        return adapt, (given,)


class _AdaptedDetector(_Adapted, DetectorContract):
    def predict(
        self, batched_inputs: list[dict], finish: FinishLogits = resize_logits
    ) -> list[dict]:
        """Detectron2's call in inference."""
        check_inference(self)
        return self(batched_inputs)

    def forward_inference(self, images: Any, features: list[Tensor], predictions: Any) -> Any:
        """As Detectron2's; InputError where the head gives NaN, which decoding would drop."""
        check_finite(*predictions)
        return super().forward_inference(images, features, predictions)


class _AdaptedSegmenter(_Adapted, SegmenterContract):
    def predict(
        self, batched_inputs: list[dict], finish: FinishLogits = resize_logits
    ) -> list[dict]:
        """Detectron2's call in inference, whose logits have the output's size already."""
        check_inference(self)
        found = self(batched_inputs)
        for x, output in zip(batched_inputs, found, strict=True):
            size = output_size(x, x["image"].shape[-2:])
            output["sem_seg"] = finish(output["sem_seg"], size, size)
        return found


_ADAPTERS = {DenseDetector: _AdaptedDetector, SemanticSegmentor: _AdaptedSegmenter}


def keeps_contract(model: nn.Module) -> bool:
    """Whether a model has this module's contract, by itself or by `adapt`."""
    return _has_contract(model) or isinstance(model, tuple(_ADAPTERS))


def adapt(model: nn.Module) -> nn.Module:
    """Give a model this module's interface: the model itself, or an adapter of Detectron2's.

    The latter shares all that the given model has: its parameters, its mode, its hooks.

    Raises:
        InputError: it is another kind of model, or a wrapper around one, such as
            DistributedDataParallel.
    """
    if _has_contract(model):
        return model
    for kind, adapter in _ADAPTERS.items():
        if isinstance(model, kind):
            cls: Any = type(type(model).__name__, (adapter, type(model)), {})
            adapted = cls.__new__(cls)
            adapted.__dict__ = model.__dict__
            return adapted
    if keeps_contract(inner := getattr(model, "module", getattr(model, "_orig_mod", None))):
        raise InputError(
            f"{type(model).__name__} stands around the model: give the {type(inner).__name__} "
            "within it"
        )
    raise InputError(
        f"MODEL.META_ARCHITECTURE {type(model).__name__!r} is neither a segmenter nor a dense "
        "detector; TopFormerSegmentor, RetinaNet, LiteRetinaNet, TopFormerMultiTask and "
        "TopFormerClassifier are known"
    )


def _has_contract(model: nn.Module) -> bool:
    return all(hasattr(model, name) for name in ("tasks", "network", "predict", "size_divisor"))

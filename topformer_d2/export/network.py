"""The exported network: a trained model's modules, with optional pre- and postprocessing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..inference.export_info import BOX_DELTAS, BOXES, CLASS_LOGITS, LABELS, LOGITS, ExportInfo
from ..inference.model_info import ModelInfo
from ..inference.optimization import rounded_to_float16
from ..modeling import adapt
from ..tasks import BOXES as BOX_TASK
from ..tasks import PIXELS
from .boxes import BoxDecoder, box_decoding
from .resizing import MatrixResizing


def describe(
    model: nn.Module,
    model_info: ModelInfo,
    *,
    size: tuple[int, int] | None = None,
    labels: bool = False,
    raw_boxes: bool = False,
    with_preprocessing: bool = False,
) -> ExportInfo:
    """What the exported network takes and gives; the arguments are export_model's.

    Raises:
        InputError: `model` has no such output, or is of a kind that is not exported.
    """
    model = adapt(model)
    has_pixels, has_boxes = PIXELS.name in model.tasks, BOX_TASK.name in model.tasks
    if has_boxes and not model.has_anchors:
        raise InputError(
            f"MODEL.META_ARCHITECTURE {type(model).__name__!r} cannot be exported: its boxes are "
            "not decoded as RetinaNet's; RetinaNet, LiteRetinaNet and TopFormerMultiTask can"
        )
    if has_pixels and not hasattr(model.sem_seg_head, "layers"):
        raise InputError(
            f"MODEL.SEM_SEG_HEAD.NAME {type(model.sem_seg_head).__name__!r} cannot be exported: "
            "it needs a method `layers`, from the features to the logits"
        )
    for name, given, has_task in (
        ("labels", labels, has_pixels),
        ("raw_boxes", raw_boxes, has_boxes),
    ):
        if given and not has_task:
            raise InputError(f"`{name}` does not go with a {type(model).__name__}")
    if size is not None and min(size) < 1:
        raise InputError(f"`size` is {tuple(size)}; 1 is the least")
    _check_padding(model, size)
    outputs = []
    if has_pixels:
        outputs.append(LABELS if labels else LOGITS)
    if has_boxes and raw_boxes:
        for start in (CLASS_LOGITS, BOX_DELTAS):
            outputs += [start + level for level in model.head_in_features]
    elif has_boxes:
        outputs += BOXES
    is_single = with_preprocessing or size is not None or BOXES[0] in outputs
    return ExportInfo(
        model=model_info,
        outputs=tuple(outputs),
        size=None if size is None else (size[0], size[1]),
        batch=1 if is_single else None,
        with_preprocessing=with_preprocessing,
        decoding=box_decoding(model) if has_boxes else None,
    )


def _check_padding(model: nn.Module, size: tuple[int, int] | None) -> None:
    """Detectron2's own backbones with FPN and heads have images padded, which no graph does."""
    multiple = model.size_divisor
    what = f"BACKBONE.NAME is one ({type(model.backbone).__name__})"
    if multiple > max(1, model.backbone.size_divisibility):
        what = f"SEM_SEG_HEAD.NAME is one ({type(model.sem_seg_head).__name__})"
    if multiple > 1 and (size is None or any(side % multiple for side in size)):
        given = "left out" if size is None else f"{size[0]} {size[1]}"
        raise InputError(
            f"MODEL.{what} that takes multiples of {multiple} alone, and `size` is {given}: "
            "give a height and a width that are"
        )


class ExportNetwork(nn.Module):
    """A copy of a meta-architecture in inference, with the input and the outputs of `info`.

    Its numbers are the model's, or those of its weights in float16; the sizes of what it makes may
    be traced.
    """

    def __init__(self, model: nn.Module, info: ExportInfo, *, matrix_resizing: bool = False):
        """
        Args:
            model: any with a `network` (modeling.meta_arch.contract).
            info: what describe() made of it.
            matrix_resizing: resize the model's maps as MatrixResizing does, for ONNX Runtime.
        """
        super().__init__()
        is_float16 = info.precision == "float16"
        self.model = (rounded_to_float16 if is_float16 else copy.deepcopy)(adapt(model)).cpu()
        self.prepare = Preprocessing(info.model, info.size) if info.with_preprocessing else None
        self.decoder = BoxDecoder(self.model) if BOXES[0] in info.outputs else None
        self.gives_labels = LABELS in info.outputs
        self.is_static = info.size is not None
        self.matrix_resizing = matrix_resizing
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The input that ExportInfo describes to its outputs, in their order."""
        images = x if self.prepare is None else self.prepare(x)
        sides = x.shape[2:] if self.prepare is None else x.shape[:2]
        with MatrixResizing(self.is_static) if self.matrix_resizing else nullcontext():
            raw = self.model.network(images)
        outputs: list[Tensor] = []
        if raw.logits is not None:
            logits = raw.logits
            if self.gives_labels:
                sizes = [images.shape[2:]] + ([] if self.prepare is None else [sides])
                logits = _label_map(logits, sizes)
            outputs.append(logits)
        if raw.class_logits is None:
            return tuple(outputs)
        if self.decoder is None:
            return (*outputs, *raw.class_logits, *raw.box_deltas)
        boxes, scores, classes = self.decoder(raw.class_logits, raw.box_deltas)
        boxes = _clip(boxes, images.shape[2:])
        if self.prepare is not None:
            boxes = boxes * _scale(sides, images.shape[2:])
        return (*outputs, boxes, scores, classes)


class Preprocessing(nn.Module):
    """Resizing, channel order and normalisation of an image as it is decoded.

    As the protocol does it, but that the resized image is not rounded to integers.
    """

    def __init__(self, info: ModelInfo, size: tuple[int, int] | None):
        """
        Args:
            info: of the model.
            size: (height, width) that images are stretched to; None = they are fitted as the
                protocol has it.
        """
        super().__init__()
        self.size = size
        self.resizing = info.resizing()
        self.is_rgb = info.image_format == "RGB"
        self.register_buffer("mean", torch.tensor(info.pixel_mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(info.pixel_std).view(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(H0, W0, 3) uint8 BGR to (1, 3, H, W) float32, normalised."""
        images = image.permute(2, 0, 1).unsqueeze(0).float()
        for size in self._sizes(image):
            images = resize(images, size)
        if self.is_rgb:
            images = images.flip(1)
        if self.size is not None:
            images = images.reshape(1, 3, *self.size)  # the graph's sizes are static from here on
        return (images - self.mean) / self.std

    def _sizes(self, image: Tensor) -> list:
        """The sizes (height, width) that the image is resized to, one after the other."""
        if self.size is not None:
            return [self.size]
        protocol = self.resizing
        sides = torch._shape_as_tensor(image)[:2]
        sizes = []
        if protocol.short:
            # The protocol's floor(side * scale + 0.5), in integers, as not all runtimes have double
            # precision. Of all images up to 2200x2200 and (800, 1333), 30 become a pixel larger:
            # those where the protocol's scale is rounded down and the result would be a half.
            longest, shortest = sides.max(), sides.min()
            is_long = protocol.long * shortest <= protocol.short * longest
            numerator = torch.where(is_long, protocol.long, protocol.short)
            denominator = torch.where(is_long, longest, shortest)
            sides = torch.div(
                2 * sides * numerator + denominator, 2 * denominator, rounding_mode="trunc"
            ).clamp(min=1)
            sizes.append(sides)
        if protocol.divisor > 1:
            more = torch.div(sides + protocol.divisor - 1, protocol.divisor, rounding_mode="trunc")
            sizes.append(more * protocol.divisor)
        return [(size[0], size[1]) for size in sizes]


def _label_map(logits: Tensor, sizes: list) -> Tensor:
    """The best class (N, H, W) of logits (N, K, h, w) resized to each of `sizes` in turn."""
    for size in sizes:
        logits = resize(logits, size)
    kind = torch.uint8 if logits.shape[1] <= 256 else torch.int32
    return logits.argmax(dim=1).to(kind)


def resize(x: Tensor, size: Sequence[int | Tensor]) -> Tensor:
    """Bilinear, align_corners=False, to (height, width), which may be traced."""
    # Not modeling.layers.resize, which would leave out what is needless at the size traced.
    return F.interpolate(x, size=(size[0], size[1]), mode="bilinear", align_corners=False)


def _clip(boxes: Tensor, size: Sequence[int | Tensor]) -> Tensor:
    """Boxes (n, 4) XYXY within (height, width), which may be traced."""
    height, width = (torch.as_tensor(side).float() for side in size)
    return torch.minimum(boxes.clamp(min=0), torch.stack((width, height, width, height)))


def _scale(to: Sequence[int | Tensor], source: Sequence[int | Tensor]) -> Tensor:
    """(4,): the factor of XYXY boxes from the size `source` to the size `to`."""
    height, width = (
        torch.as_tensor(a).float() / torch.as_tensor(b).float()
        for a, b in zip(to, source, strict=True)
    )
    return torch.stack((width, height, width, height))

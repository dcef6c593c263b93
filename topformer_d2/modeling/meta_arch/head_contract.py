"""Running segmentation heads: ours by `layers`, others by Detectron2's interface."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ..heads import SegmentationHead
from ..layers import resize


def head_divisor(backbone: nn.Module, head: nn.Module) -> int:
    """What the sides of a batch must be a multiple of; 1 for this toolkit's own.

    Heads of others double maps until they fit, which takes sides that the coarsest stride divides.
    """
    divisor = max(1, getattr(backbone, "size_divisibility", 1))
    # A backbone that is not one of Detectron2's does not say its strides.
    if isinstance(head, SegmentationHead) or not hasattr(backbone, "output_shape"):
        return divisor
    strides = (shape.stride for shape in backbone.output_shape().values())
    return max(divisor, *strides)


def pad_to_multiple(images: Tensor, divisor: int) -> Tensor:
    """(N, C, H, W) with zeros to the right and below until `divisor` divides both sides."""
    if divisor == 1:
        return images
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % divisor, 0, -height % divisor))


def run_head(
    head: nn.Module, features: dict[str, Tensor], images: Tensor, size: Sequence[int]
) -> Tensor:
    """A head's logits in inference.

    Args:
        head: with `layers` (features to logits of any stride), or `forward` as Detectron2 has it.
        features: of `images`.
        images: (N, 3, H, W), padded to the right and below.
        size: (height, width) without the padding.

    Returns:
        (N, K, h, w): where images are padded or the head has no `layers`, h and w are `size`; else
        they are those of `layers`.
    """
    whole = tuple(images.shape[-2:])
    if hasattr(head, "layers"):
        # Called as a module where that gives the same, so that hooks on the head see it.
        is_ours = isinstance(head, SegmentationHead) and not head.training
        logits = head(features)[0] if is_ours else head.layers(features)
        if whole == tuple(size):
            return logits
    else:
        logits = head(features, None)[0]
    return resize(logits, whole)[..., : size[0], : size[1]]

"""The label map of resized logits, without resizing the logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..modeling.layers import resize
from ..native.labels import native_label_map
from .cells import Band
from .resampling import compose_axis
from .tiles import TiledLogits

# Logits whose largest are looked for at a time.
_BAND = 1 << 22
# Resized logits that are held at a time, where they are: on a CPU, and elsewhere.
_RESIZED = 1 << 22
_RESIZED_ELSEWHERE = 1 << 26
# Output pixels for each low-resolution pixel. Up to this ratio all logits are resized, which is
# then faster than finding out which of them need not be (see cells.py).
_DENSE = 8
_NOT_FINITE = (
    "the logits have NaN or infinite values: the weights or the image do not fit the model"
)


@torch.no_grad()
def label_map(
    logits: Tensor | TiledLogits,
    size: Sequence[int],
    *,
    input_size: Sequence[int] | None = None,
    valid_size: Sequence[int] | None = None,
    confidence: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The class with the largest resized logit at each pixel.

    It is the argmax of the bilinearly resized logits (align_corners=False), float32 rounding aside,
    but on a CPU those are not computed: each is a convex combination of a few nodes of the
    low-resolution map. A class that is the largest at all of them is the answer. Where they
    differ, a class that is below one weighted mean of two winners at every node is below the larger
    of the two everywhere between the nodes; few classes are left, and these are resized. The
    library of topformer_d2/native does this where it was compiled (native_status), else PyTorch and
    NumPy do. On another device all logits are resized, some classes at a time; without the library
    so they are to few pixels.

    Args:
        logits: (K, h, w), finite, of magnitudes below 1e38; a tensor or, on a CPU, TiledLogits.
        size: (H, W) of the label map.
        input_size: (height, width) to which the logits are resized first, the network input's;
            None = straight to `size`.
        valid_size: (height, width) of the part of input_size, from the upper left corner, that is
            then resized to `size`; the rest is padding. None = all of it.
        confidence: also return the softmax probability of the winner, to within 1e-4.

    Returns:
        the labels (H, W), uint8 up to 256 classes, else int32; with `confidence` a pair of these
        and float32 (H, W).

    Raises:
        InputError: a logit is NaN or infinite, or a size does not fit.
    """
    _check(logits, size, input_size, valid_size)
    if logits.device.type == "cpu":
        try:
            found = native_label_map(logits, size, input_size, valid_size, confidence)
        except FloatingPointError:
            raise InputError(_NOT_FINITE) from None
        if found is not None:
            return found if confidence else found[0]
    # One (size, kept) a resize.
    steps: list[tuple[tuple[int, int], ...]] = [((int(side), int(side)),) for side in size]
    if input_size is not None:
        kept = input_size if valid_size is None else valid_size
        resized = [(int(i), int(k)) for i, k in zip(input_size, kept, strict=True)]
        steps = [(step, *rest) for step, rest in zip(resized, steps, strict=True)]
    if logits.device.type != "cpu":
        return _resize_by_classes(logits, steps, confidence, _RESIZED_ELSEWHERE)
    if isinstance(logits, Tensor) and _largest_map(steps) <= _DENSE * logits[0].numel():
        return _resize_by_classes(logits, steps, confidence, _RESIZED)
    rows, columns = (compose_axis(n, s) for n, s in zip(logits.shape[1:], steps, strict=True))
    labels = torch.empty(rows.size, columns.size, dtype=_label_type(logits.shape[0]))
    scores = torch.empty(rows.size, columns.size) if confidence else None
    per_band = max(1, _BAND // (logits.shape[0] * logits.shape[2]))
    for start in range(0, len(rows.nodes), per_band):
        groups = slice(start, min(start + per_band, len(rows.nodes)))
        first, last = int(rows.nodes[groups.start, 0]), int(rows.nodes[groups.stop - 1, -1])
        values = logits[:, first : last + 1].float()
        _check_finite(values)
        Band(values, rows, columns, groups).write(labels, scores)
    return labels if scores is None else (labels, scores)


def _largest_map(steps: Sequence[Sequence[tuple[int, int]]]) -> int:
    """Pixels of the largest map that a chain of resizes passes."""
    return max(rows[0] * columns[0] for rows, columns in zip(*steps, strict=True))


def _check(
    logits: Tensor | TiledLogits,
    size: Sequence[int],
    input_size: Sequence[int] | None,
    valid_size: Sequence[int] | None,
) -> None:
    if not isinstance(logits, Tensor | TiledLogits):
        raise InputError(f"logits must be a torch.Tensor (K, h, w), got {type(logits).__name__}")
    if len(logits.shape) != 3 or 0 in logits.shape:
        raise InputError(f"logits must be (K, h, w), got {tuple(logits.shape)}")
    for name, sides in {"size": size, "input_size": input_size, "valid_size": valid_size}.items():
        if sides is None:
            continue
        if len(sides) != 2 or any(side != int(side) or side < 1 for side in sides):
            raise InputError(f"{name} must be (height, width), whole and 1 or more, got {sides}")
    if valid_size is not None and (
        input_size is None or any(v > i for v, i in zip(valid_size, input_size, strict=True))
    ):
        raise InputError(
            f"valid_size {tuple(valid_size)} must be a part of input_size, which is {input_size}"
        )


def _check_finite(logits: Tensor) -> None:
    # The sum is faster to have; that of finite values may yet be too large.
    if not logits.sum().isfinite() and not logits.isfinite().all():
        raise InputError(_NOT_FINITE)


def _label_type(num_classes: int) -> torch.dtype:
    return torch.uint8 if num_classes <= 256 else torch.int32


def _resize_by_classes(
    logits: Tensor, steps: Sequence[Sequence[tuple[int, int]]], confidence: bool, most: int
) -> Tensor | tuple[Tensor, Tensor]:
    """label_map by resizing all logits, at most about `most` numbers at a time."""
    per_block = max(1, most // _largest_map(steps))
    best = labels = total = None
    for first in range(0, len(logits), per_block):
        block = logits[None, first : first + per_block].float()
        _check_finite(block)
        if block.device.type == "cpu":  # its resizing is then several times as fast
            block = block.contiguous(memory_format=torch.channels_last)
        for (height, kept_height), (width, kept_width) in zip(*steps, strict=True):
            block = resize(block, (height, width))[..., :kept_height, :kept_width]
        values, index = _max_of_classes(block[0])
        found = (block[0] - values).exp_().sum(dim=0) if confidence else None
        index = index.add_(first).to(_label_type(len(logits)))
        if best is None:
            best, labels, total = values, index, found
            continue
        labels = torch.where(values > best, index, labels)
        new_best = torch.maximum(values, best)
        if confidence:
            total = total * (best - new_best).exp_() + found * (values - new_best).exp_()
        best = new_best
    return (labels, total.reciprocal_()) if confidence else labels


def _max_of_classes(values: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of (K, H, W), and its class; of classes side by side NumPy is fast at that."""
    if values.device.type != "cpu":
        return values.max(dim=0)
    index = torch.from_numpy(values.permute(1, 2, 0).numpy().argmax(axis=2))
    return values.gather(0, index[None])[0], index

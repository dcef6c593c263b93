"""Images and pixel labels in batches, and the logits of a batch at each image's own size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..layers import resize

# From an image's logits (K, h, w), the network input's size and the output's, both (height, width),
# to what the model gives as "sem_seg".
FinishLogits = Callable[[Tensor, Sequence[int], Sequence[int]], Tensor | tuple[Tensor, Tensor]]
# Number of classes that resize_logits resizes at a time.
_CLASSES = 8


def check_inference(model: nn.Module) -> None:
    """InputError in training mode, where BatchNorm takes its statistics of the test images."""
    if model.training:
        raise InputError(
            f"predict() of a {type(model).__name__} in training mode: call its eval() first"
        )


def group_by_size(batched_inputs: list[dict]) -> list[list[int]]:
    """Indices of inputs whose "image" (C, H, W) has equal height and width, in order."""
    groups = defaultdict(list)
    for i, x in enumerate(batched_inputs):
        groups[tuple(map(int, x["image"].shape[-2:]))].append(i)
    return list(groups.values())


def run_by_size(run: Callable[[list[dict]], list[dict]], batched_inputs: list[dict]) -> list[dict]:
    """What `run` returns for batches of equal size, in the order of the inputs.

    Images of differing sizes in one batch would be padded, which changes their results.
    """
    if len(batched_inputs) == 1:  # whose sizes, in a trace, are tensors
        return run(batched_inputs)
    results: list[dict] = [{}] * len(batched_inputs)
    for members in group_by_size(batched_inputs):
        outputs = run([batched_inputs[i] for i in members])
        for i, output in zip(members, outputs, strict=True):
            results[i] = output
    return results


def output_size(x: dict, image_size: Sequence[int]) -> tuple[int, int]:
    """(height, width) that the output for an input is to have; by default its image's."""
    return x.get("height", image_size[0]), x.get("width", image_size[1])


def resize_logits(logits: Tensor, input_size: Sequence[int], size: Sequence[int]) -> Tensor:
    """An image's logits (K, h, w) to the network input's size, then to the output's.

    Some classes are resized at a time: those of the first resizing can be as large as the result.
    """
    if torch.jit.is_tracing() or tuple(input_size) == tuple(size):
        return resize(resize(logits[None], input_size), size)[0]
    resized = logits.new_empty((len(logits), *size))
    for part, result in zip(logits.split(_CLASSES), resized.split(_CLASSES), strict=True):
        result.copy_(resize(resize(part[None], input_size), size)[0])
    return resized


def training_layout(device: torch.device) -> torch.memory_format:
    """The memory format of a training batch, which all maps of a convolutional network then have.

    On a CPU channels-last convolutions and norms take half to two thirds of the time. The weights
    keep their own format, and so do checkpoints and the optimizer's state.

    PyTorch's BatchNorm adds up in float32 there and not in float64. Its outputs are rounded to 3e-5
    with 4 crops of 512x512, and T's gradient on CamVid's 4 crops of 352x352 to 1.3% (0.04% in the
    usual format).
    """
    # A GPU keeps the usual one: there, channels last has not been measured.
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def pad_labels(
    labels: Sequence[Tensor | None], size: Sequence[int], ignore_value: int, device: torch.device
) -> Tensor:
    """Labels (H_i, W_i) to (N, *size) int64, padded to the right and below by `ignore_value`.

    Of an image without labels, None, all is ignored.
    """
    given = next((label.device for label in labels if label is not None), device)
    batch = torch.full((len(labels), *size), ignore_value, dtype=torch.int64, device=given)
    for padded, label in zip(batch, labels, strict=True):
        if label is not None:
            padded[: label.shape[0], : label.shape[1]] = label
    return to_device(batch, device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`. The CPU does not wait for what a GPU has to do before the copy."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)

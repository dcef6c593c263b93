"""A segmentation network's time on a GPU, in the forms in which it can run there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from ..inference import label_map

_WARM_UP = 10


@torch.inference_mode()
def time_on_gpu(
    network: nn.Module, size: tuple[int, int], batch: int, repetitions: int
) -> dict[str, float]:
    """Median milliseconds of a batch by form; "label map" is what follows, for one image.

    Args:
        network: from (N, 3, H, W) to a list whose first is the logits (N, K, h, w); it is left on
            the GPU.
        size: (H, W) of the images.
        batch: N.
    """
    network = network.cuda()
    images = torch.rand(batch, 3, *size, device="cuda")
    times = {name: _median_time(call, repetitions) for name, call in _forms(network, images)}
    logits = network(images)[0][0].float()
    times["label map"] = _median_time(lambda: label_map(logits, size, input_size=size), repetitions)
    return times


def _forms(network: nn.Module, images: Tensor) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names and calls, each valid until the next is asked for."""
    for layout in (torch.contiguous_format, torch.channels_last):
        placed = images.contiguous(memory_format=layout)
        network.to(memory_format=layout)
        for precision in ("float32", "bf16"):
            context = (
                nullcontext() if precision == "float32" else torch.autocast("cuda", torch.bfloat16)
            )
            name = precision + (", channels last" if layout is torch.channels_last else "")
            with context:
                yield name, lambda x=placed: network(x)
                yield f"{name}, CUDA graph", _capture(network, placed)


def _capture(network: nn.Module, images: Tensor) -> Callable[[], object]:
    """The network on these images as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(images)
    return graph.replay


def _median_time(call: Callable[[], object], repetitions: int) -> float:
    times = []
    for _ in range(_WARM_UP + repetitions):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return float(np.median(times[_WARM_UP:]))


def format_gpu_times(times: dict[int, dict[str, float]]) -> str:
    """A table of time_on_gpu's by batch."""
    forms = next(iter(times.values()))
    rows = [[form, *(f"{by_form[form]:.2f}" for by_form in times.values())] for form in forms]
    headers = ["form", *(f"batch {batch}, ms" for batch in times)]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)

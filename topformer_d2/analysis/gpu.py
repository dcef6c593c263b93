"""A network's time on a GPU, by data type and memory layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from ..inference import label_map
from ..modeling import adapt
from ..tasks import PIXELS
from .complexity import Network
from .latency import time_alternately

_WARM_UP = 10


@torch.inference_mode()
def time_on_gpu(
    model: nn.Module, size: tuple[int, int], batch: int, repetitions: int, device: str = "cuda"
) -> dict[str, float]:
    """Median milliseconds of a batch by form, until the GPU is done; all forms alternate.

    The forms are float32 and bfloat16 weights, channels last or not, each also as a CUDA graph.
    PyTorch's settings hold: by default float32 convolutions may run in TF32. "label maps" is what
    follows the network of a segmentation model, for all images of the batch.

    Args:
        model: a meta-architecture; it stays as it is.
        size: (H, W) of the images.
        batch: N.
        device: "cpu" leaves CUDA graphs out.
    """
    images = torch.rand(batch, 3, *size)
    on_cuda = torch.device(device).type == "cuda"
    calls: dict[str, Callable[[], object]] = {}
    for dtype, layout in product(
        (torch.float32, torch.bfloat16), (torch.contiguous_format, torch.channels_last)
    ):
        network = Network(model).to(device, dtype, memory_format=layout)
        placed = images.to(device, dtype, memory_format=layout)
        name = _name(dtype, layout)
        calls[name] = partial(network, placed)
        if on_cuda:
            calls[f"{name}, CUDA graph"] = _capture(network, placed)
    if PIXELS.name in adapt(model).tasks:
        logits = network(placed)[0].float()
        calls["label maps"] = lambda: [label_map(x, size, input_size=size) for x in logits]

    def finish(call: Callable[[], object]) -> None:
        call()
        if on_cuda:
            torch.cuda.synchronize()

    waiting = [partial(finish, call) for call in calls.values()]
    times = time_alternately(waiting, _WARM_UP + repetitions)[_WARM_UP:]
    return dict(zip(calls, np.median(times, axis=0).tolist(), strict=True))


def _name(dtype: torch.dtype, layout: torch.memory_format) -> str:
    precision = "bfloat16"
    if dtype is torch.float32:
        precision = "float32" + (" (TF32 allowed)" if torch.backends.cudnn.allow_tf32 else "")
    return precision + (", channels last" if layout is torch.channels_last else "")


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


def format_gpu_times(times: dict[int, dict[str, float]]) -> str:
    """A table of time_on_gpu's by batch."""
    forms = next(iter(times.values()))
    rows = [[form, *(f"{by_form[form]:.2f}" for by_form in times.values())] for form in forms]
    headers = ["form", *(f"batch {batch}, ms" for batch in times)]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)

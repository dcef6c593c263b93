"""The share of each part of a model in its parameters, operations, activations and time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from ..modeling import TopFormer
from .complexity import Cost, Network, ancestors, complexity

OTHER = "other"
QUANTITIES = ("parameters", "macs", "activation_bytes", "milliseconds")


@dataclass(frozen=True)
class Part:
    """One part, without the parts inside it.

    Attributes:
        label: such as "token pyramid"; "other" is what belongs to no part, such as the pooling of
            tokens.
        parameters, macs, activation_bytes: as in Cost.
        milliseconds: median over the repetitions.
    """

    label: str
    parameters: int
    macs: int
    activation_bytes: int
    milliseconds: float


def part_names(model: nn.Module) -> dict[str, str]:
    """Module name to the label of its part; a part inside another one is not part of it."""
    given = dict(model.named_modules())
    bottom_up = "backbone.bottom_up" if "backbone.bottom_up" in given else "backbone"
    if isinstance(given[bottom_up], TopFormer):
        names = {
            "": OTHER,
            bottom_up: OTHER,
            f"{bottom_up}.pyramid": "token pyramid",
            f"{bottom_up}.semantics": "semantics extractor",
            f"{bottom_up}.injection": "semantics injection",
        }
    else:
        names = {"": OTHER, bottom_up: "backbone"}
    names.setdefault("backbone", "feature pyramid")
    names |= {"sem_seg_head": "segmentation head", "head": "detection head"}
    return {name: label for name, label in names.items() if name in given}


def profile_parts(model: nn.Module, height: int, width: int, repetitions: int) -> list[Part]:
    """The parts of a model that takes one image, "other" last; together they are the whole.

    Args:
        model: as for complexity; timed on the device where it is.
        height, width: of the network's input.
        repetitions: of the timing.
    """
    names = part_names(model)
    costs = complexity(model, height, width)
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, dtype=np.int64))
    for name, label in names.items():
        own = _counts(costs[name])
        totals[label] += own
        around = next((n for n in ancestors(name) if n != name and n in names), None)
        if around is not None:
            totals[names[around]] -= own
    times = _time_parts(model, names, height, width, repetitions)
    labels = [label for label in dict.fromkeys(names.values()) if label != OTHER] + [OTHER]
    return [
        Part(
            label,
            parameters=parameters,
            macs=macs,
            activation_bytes=size,
            milliseconds=times[label],
        )
        for label in labels
        for parameters, macs, size in [totals[label].tolist()]
    ]


def _counts(cost: Cost) -> np.ndarray:
    return np.array([cost.parameters, cost.macs, cost.activation_bytes])


class _Clock:
    """Milliseconds by label; time within a nested label is that one's alone."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = defaultdict(float)
        self._labels: list[str] = []
        self._since = 0.0

    def enter(self, label: str) -> None:
        self._charge()
        self._labels.append(label)

    def leave(self) -> None:
        self._charge()
        self._labels.pop()

    def _charge(self) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._labels:
            self.milliseconds[self._labels[-1]] += 1e3 * (now - self._since)
        self._since = now


@torch.inference_mode()
def _time_parts(
    model: nn.Module, names: dict[str, str], height: int, width: int, repetitions: int
) -> dict[str, float]:
    """Median milliseconds by label."""
    network = Network(model)
    image = torch.zeros(1, 3, height, width, device=model.device)
    clock = _Clock()
    for module, label in _timed_modules(network, names, image):
        module.register_forward_pre_hook(lambda *_, label=label: clock.enter(label))
        module.register_forward_hook(lambda *_: clock.leave())
    labels = list(dict.fromkeys(names.values()))
    times = np.zeros((repetitions + 1, len(labels)))
    for repetition in times:
        clock.milliseconds.clear()
        clock.enter(OTHER)
        network(image)
        clock.leave()
        repetition[:] = [clock.milliseconds[label] for label in labels]
    medians = np.median(times[1:], axis=0)  # the first is a warm-up
    return dict(zip(labels, map(float, medians), strict=True))


def _timed_modules(
    network: Network, names: dict[str, str], image: Tensor
) -> list[tuple[nn.Module, str]]:
    """The outermost modules of each part that are called, for a ModuleDict is not; with labels."""
    called = set()
    handles = [
        module.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, module in network.model.named_modules()
    ]
    network(image)
    for handle in handles:
        handle.remove()

    def label_of(name: str) -> str:
        return next(names[n] for n in ancestors(name) if n in names)

    timed = []
    for name, module in network.model.named_modules():
        if name in called:
            around = next((n for n in ancestors(name) if n != name and n in called), "")
            if label_of(name) != label_of(around):
                timed.append((module, label_of(name)))
    return timed


def shares(parts: Sequence[Part]) -> dict[str, np.ndarray]:
    """For each of QUANTITIES, the parts' shares, which sum to 1."""
    values = {name: np.array([getattr(part, name) for part in parts]) for name in QUANTITIES}
    return {name: value / value.sum() for name, value in values.items()}


def format_parts(parts: Sequence[Part]) -> str:
    """A table of the parts, with their shares, and the whole in the last line."""
    columns = shares(parts)
    units = {"parameters": 1e6, "macs": 1e9, "activation_bytes": 2**20, "milliseconds": 1.0}
    rows = []
    for i, part in enumerate(parts):
        row = [part.label]
        for name, unit in units.items():
            row += [f"{getattr(part, name) / unit:.3f}", f"{columns[name][i]:.1%}"]
        rows.append(row)
    whole = ["all"]
    for name, unit in units.items():
        whole += [f"{sum(getattr(part, name) for part in parts) / unit:.3f}", "100.0%"]
    headers = ["part", "parameters, M", "", "GMACs", "", "activations, MiB", "", "ms", ""]
    return tabulate(
        [*rows, whole], headers=headers, colalign=("left", *["right"] * 8), disable_numparse=True
    )

"""How far a file in 8-bit integers is from the float32 file that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..inference.export_info import LOGITS
from .differences import Difference

# The most that the error of an output may be, as a share of what its values vary by. That of
# camvid_t's logits was 0.043 (docs/formats.md); a constant's is 1.
MOST_NOISE = 0.5

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def compare_int8(before: Run, after: Run, inputs: Iterable[np.ndarray]) -> dict[str, Difference]:
    """The largest difference in each output, whose `where` also has the noise and the agreement.

    The noise is the root of the mean squared error over the standard deviation of the float32
    values, over all inputs.

    Args:
        before: the float32 network: its input to its outputs by name.
        after: the same in int8.
        inputs: (1, 3, H, W) float32 each.

    Raises:
        InputError: an output's noise is above MOST_NOISE; the message names it.
    """
    sums: dict[str, _Sums] = {}
    for x in inputs:
        outputs = after(x)
        for name, expected in before(x).items():
            sums.setdefault(name, _Sums(name)).add(expected, outputs[name])
    for each in sums.values():
        if not each.noise <= MOST_NOISE:  # nor where it is no number
            raise InputError(
                f"the network in int8 is not float32's. {each.difference()}; a noise of "
                f"{MOST_NOISE:.0%} is the most. It was not written: take other `images`, or float32"
            )
    return {name: each.difference() for name, each in sums.items()}


@dataclass
class _Sums:
    """Over the images, of one output."""

    output: str
    images: int = 0
    values: int = 0
    total: float = 0.0
    squares: float = 0.0
    errors: float = 0.0
    largest: float = 0.0
    scale: float = 0.0
    positions: int = 0
    same: int = 0

    def add(self, expected: np.ndarray, given: np.ndarray) -> None:
        error = np.abs(given.astype(np.float64) - expected)
        self.images += 1
        self.values += expected.size
        self.total += float(expected.sum(dtype=np.float64))
        self.squares += float(np.square(expected, dtype=np.float64).sum())
        self.errors += float(np.square(error).sum())
        self.largest = max(self.largest, float(error.max(initial=0)))
        self.scale = max(self.scale, float(np.abs(expected).max(initial=0)))
        if self.output == LOGITS:
            same = expected.argmax(axis=1) == given.argmax(axis=1)
            self.positions += same.size
            self.same += int(same.sum())

    @property
    def noise(self) -> float:
        varies = self.squares - self.total**2 / max(self.values, 1)
        if self.errors == 0:
            return 0.0
        return float(np.sqrt(self.errors / varies)) if varies > 0 else float("inf")

    def difference(self) -> Difference:
        where = f"from the float32 file: a noise of {self.noise:.1%}, over {self.images} images"
        if self.positions:
            where += f"; {self.same / self.positions:.2%} of the positions have the same best class"
        return Difference(self.output, self.largest, where, float("inf"), self.scale)

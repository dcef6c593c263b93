"""In which order the records of several datasets come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch


class MixedSampler:
    """An endless sampler over several datasets, each drawn in proportion to its weight.

    Of a dataset every record comes once before any comes again. All processes of a run get the
    whole stream.
    """

    def __init__(self, parts: Sequence[tuple[int, float]], seed: int):
        """
        Args:
            parts: (number of records, weight) of each dataset.
            seed: equal on all processes.
        """
        self._sizes = [size for size, _ in parts]
        self._weights = torch.tensor([weight for _, weight in parts], dtype=torch.float64)
        self._seed = seed

    def __iter__(self) -> Iterator[int]:
        firsts = np.cumsum([0, *self._sizes]).tolist()
        indices = [_shuffled(size, (self._seed, i)) for i, size in enumerate(self._sizes)]
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            for part in torch.multinomial(
                self._weights, 1024, replacement=True, generator=generator
            ).tolist():
                yield firsts[part] + next(indices[part])


def _shuffled(size: int, seed: tuple[int, ...]) -> Iterator[int]:
    """Endless permutations of range(size), one after the other."""
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.permutation(size).tolist()

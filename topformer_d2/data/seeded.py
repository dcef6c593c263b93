"""Samples as a function of the seed and of their position in the stream."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from torch.utils.data import Dataset

from .packed import PackedRecords

Mapper = Callable[..., dict]  # from a record to a sample


class SeededMap(Dataset):
    """Maps the record at `index` with all randomness drawn from (seed, position)."""

    def __init__(
        self,
        records: PackedRecords | Sequence[dict],
        mapper: Mapper,
        seed: int,
        kinds: np.ndarray | None = None,
    ):
        """
        Args:
            records: Detectron2 dataset dicts.
            mapper: record to sample.
            seed: equal on all processes.
            kinds: (n,) int, of each record; one that is mixed with others is so with those of its
                kind. None = all are of one kind.
        """
        self.records = records
        self.mapper = mapper
        self.seed = seed
        self._kinds = np.zeros(len(records), np.int64) if kinds is None else kinds
        self._members = [
            np.flatnonzero(self._kinds == kind) for kind in range(self._kinds.max(initial=-1) + 1)
        ]

    def __getitem__(self, position_and_index: tuple[int, int]) -> dict:
        position, index = position_and_index
        state = np.random.SeedSequence([self.seed, position]).generate_state(2)
        np.random.seed(state[0])
        random.seed(int(state[1]))
        record = self.records[index]
        if getattr(self.mapper, "mixing", None) is None:
            return self.mapper(record)
        return self.mapper(record, lambda: self.records[self._draw_like(index)])

    def _draw_like(self, index: int) -> int:
        """A record of the same kind as that at `index`, which it may be itself."""
        members = self._members[self._kinds[index]]
        return int(members[np.random.randint(len(members))])


def kinds_of(records: Sequence[dict], sizes: Sequence[int] = ()) -> np.ndarray:
    """(n,) int: equal for records that are of one dataset and have labels for the same tasks.

    Args:
        records: Detectron2 dataset dicts.
        sizes: how many of them each dataset has, in order; empty = they are of one.
    """
    datasets = np.repeat(np.arange(len(sizes)), sizes) if sizes else [0] * len(records)
    numbers: dict[tuple, int] = {}
    return np.array(
        [
            numbers.setdefault((dataset, tuple(sorted(r.get("tasks", ())))), len(numbers))
            for dataset, r in zip(datasets, records, strict=True)
        ],
        np.int64,
    )

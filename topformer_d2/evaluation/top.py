"""The few largest of many values, in bounded memory."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class Top(Generic[T]):
    """Keeps the items with the largest keys; of equal keys the one that came first."""

    def __init__(self, most: int):
        """
        Args:
            most: items that are kept.
        """
        self._most = most
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0

    def wants(self, key: float) -> bool:
        """Whether an item with this key would be kept, so that a costly one need not be made."""
        return len(self._heap) < self._most or key > self._heap[0][0]

    def add(self, key: float, item: T) -> None:
        """Keep the item where its key is among the largest."""
        if not self.wants(key):
            return
        self._count += 1
        entry = (key, -self._count, item)  # so that items are never compared
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heapreplace(self._heap, entry)

    def merge(self, other: Top[T]) -> None:
        """Add what another one has kept."""
        for key, _, item in sorted(other._heap, key=lambda entry: entry[:2], reverse=True):
            self.add(key, item)

    def items(self) -> list[T]:
        """Those that are kept, the largest key first."""
        return [entry[2] for entry in sorted(self._heap, key=lambda e: e[:2], reverse=True)]

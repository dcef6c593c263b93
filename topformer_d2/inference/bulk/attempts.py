"""Images that end the process which works on them are found, and left out.

A process that dies, as of a lost node or a lack of memory, is replaced and its work done again. An
image that ends each process which reads it would keep that going for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from ...errors import printable
from ..batches import FilePrediction
from .partitions import Item
from .work import Read, Result

T = TypeVar("T")

# Times that several images are begun together, and then that one is begun alone.
_TOGETHER, _ALONE = 3, 3


class Attempts:
    """Counts how often a piece of work was begun and not ended."""

    def __init__(self) -> None:
        self._begun: Counter[tuple] = Counter()

    def begin(self, key: tuple) -> int:
        """The number of this attempt, from 1 on."""
        self._begun[key] += 1
        return self._begun[key]

    def end(self, key: tuple) -> None:
        """It is done, so that what is done again later begins anew."""
        self._begun.pop(key, None)


class Counting(Protocol):
    """Attempts, or what speaks to those of another process."""

    def begin(self, key: tuple) -> int: ...

    def end(self, key: tuple) -> None: ...


def read_counted(
    items: Sequence[Item],
    read: Callable[[Sequence[Item]], Iterator[list[Read]]],
    attempts: Counting,
) -> Iterator[list[Read]]:
    """read(items), and image by image once several processes have died as they read.

    What the caller does with a block, in this process or another, is not counted.
    """
    blocks, done = read(items), 0
    while done < len(items):
        key = "read", items[done].place, len(items)
        if attempts.begin(key) > _TOGETHER:
            for item in items[done:]:
                yield [_read_alone(item, read, attempts)]
            attempts.end(key)
            return
        block = next(blocks)
        attempts.end(key)
        done += len(block)
        yield block


def _read_alone(
    item: Item, read: Callable[[Sequence[Item]], Iterator[list[Read]]], attempts: Counting
) -> Read:
    key = "read alone", item.place
    if attempts.begin(key) > _ALONE:
        return item, FilePrediction(item.path, problem=_problem(item.path, "reads"))
    ((found,),) = read([item])
    attempts.end(key)
    return found


def predict_counted(
    batch: Sequence[Read],
    predict: Callable[[Sequence[Read]], list[Result]],
    attempts: Counting,
) -> list[Result]:
    """predict(batch), and image by image once several processes have died of it."""
    if not batch:
        return []
    key = "predict", batch[0][0].place, len(batch)
    if attempts.begin(key) <= _TOGETHER:
        results = predict(batch)
    else:
        results = []
        for item, found in batch:
            one = "predict alone", item.place
            if attempts.begin(one) > _ALONE:
                problem = _problem(item.path, "predicts")
                results.append(Result(item.partition, item.place, problem=problem))
                continue
            results += predict([(item, found)])
            attempts.end(one)
    attempts.end(key)
    return results


def _problem(path: str, verb: str) -> str:
    shown = printable(path, newlines=True)
    return f"{shown}: it ended each process that {verb} it, {_ALONE} times alone"

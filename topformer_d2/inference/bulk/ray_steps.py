"""What Ray Data calls in the processes of a Ray: reading in tasks, and predicting in actors."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from ...errors import InputError, import_optional
from ..batches import FilePrediction
from .attempts import predict_counted, read_counted
from .partitions import Item
from .tables import INSTALL, images_table, items_of, read_of, results_table, rows_of
from .work import Result, Work, read_items

# The partition of a row that is an error, which ends the run; Ray adds words to one that is raised.
_NO_PARTITION = -1


class _Remote:
    """The Attempts of another process."""

    def __init__(self, handle: Any):
        self._handle = handle
        self._ray = import_optional("ray", "the engine ray", INSTALL)

    def begin(self, key: tuple) -> int:
        return self._ray.get(self._handle.begin.remote(key))

    def end(self, key: tuple) -> None:
        self._handle.end.remote(key)


def read_block(
    table: Any, *, max_pixels: int, others: Sequence[str], counting: Any
) -> Iterator[Any]:
    """A table of items to tables of images.

    Args:
        table: from items_table.
        max_pixels, others: as read_items takes them.
        counting: the handle of an actor of Attempts.
    """
    items = items_of(table)
    if items:
        read = partial(read_items, max_pixels=max_pixels, others=others)
        try:
            for block in read_counted(items, read, _Remote(counting)):
                yield images_table(block)
        except (InputError, OSError) as e:
            ended = Item(_NO_PARTITION, 0, "", "", 0)
            yield images_table([(ended, FilePrediction("", problem=_packed(e).hex()))])


class PredictingActor:
    """Predicts tables of images with a model of its own."""

    def __init__(self, work: bytes, counting: Any):
        """
        Args:
            work: a pickled Work, whose model is opened for the first table.
            counting: the handle of an actor of Attempts.
        """
        self._work: Work | None = None
        self._pickled = work
        self._counting = _Remote(counting)

    def __call__(self, table: Any) -> Any:
        """A table of images to one of results."""
        batch = list(map(read_of, rows_of(table)))
        for item, found in batch:
            if item.partition == _NO_PARTITION:
                error = bytes.fromhex(found.problem or "")
                return results_table([Result(_NO_PARTITION, 0, error)])
        try:
            if self._work is None:
                self._work = pickle.loads(self._pickled)  # opens the model
            results = predict_counted(batch, self._work.predict, self._counting)
        except (InputError, OSError) as e:
            results = [Result(_NO_PARTITION, 0, _packed(e))]
        return results_table(results)


def results_of(table: Any) -> list[Result]:
    """The results of a table, as PredictingActor gives it.

    Raises:
        InputError, OSError: what ended the work there.
    """
    results = [Result(**row) for row in table.to_pylist()]
    for result in results:
        if result.partition == _NO_PARTITION:
            raise pickle.loads(result.label or b"")
    return results


def _packed(error: Exception) -> bytes:
    """An error of a reader or actor, without what only its process has."""
    if isinstance(error, OSError):
        return pickle.dumps(OSError(error.errno, error.strerror or str(error), error.filename))
    return pickle.dumps(InputError(str(error)))

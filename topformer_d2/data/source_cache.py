"""What a source of records, such as a COCO JSON, was parsed to: kept while its files are the same.

A run asks for a dataset many times: its classes when the config is loaded, its records for checks,
for training and for each evaluation, its truth for each evaluator. The source is parsed once.

What is kept is bytes, from which every caller gets values of its own. So nobody changes what others
get, and the values take a fraction of their memory as objects. The bytes are pickled, and are safe
to unpickle because they never leave the process: forked processes inherit them, others parse anew.
A file of them would have to be JSON, because anybody may have written it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ..files import Stamp, is_remote, stamp
from .output_folders import is_output

T = TypeVar("T")

# Of all that is kept. A COCO JSON of 100,000 images and 700,000 boxes takes 44 MiB.
_MOST_BYTES = 1 << 29


class SourceCache:
    """Parsed sources by the function that parsed them and their paths; the last ones used.

    Threads may share one. A source that two of them ask for at once may be parsed twice.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES):
        """
        Args:
            most_bytes: of all that is kept; what was not used for longest is given up.
        """
        self._most_bytes = most_bytes
        # In the order of use: what they were made from, and the pickled values; no bytes where a
        # value cannot be pickled or is too large.
        self._kept: OrderedDict[tuple, tuple[list[Stamp], bytes]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def parse(self, parser: Callable[..., T], *sources: str, beyond: Sequence[str] = ()) -> T:
        """parser(*sources), which is called only where a source is new or has changed.

        Args:
            parser: a function of a module, which reads these sources and `beyond` alone. What it
                returns can be pickled; what it raises is not kept.
            sources: files and folders, which `stamp` tells apart, without what runs have written
                into them. Remote ones are parsed each
                time, because nobody knows whether they changed.
            beyond: further files and folders that it reads.

        Returns:
            values that the caller may change.
        """
        stamps = [
            stamp(source, is_output) for source in (*sources, *beyond) if not is_remote(source)
        ]
        if len(stamps) < len(sources) + len(beyond):
            return parser(*sources)
        key = parser, *sources
        content = self._look_up(key, stamps)
        with without_collection():
            if content:
                return pickle.loads(content)
            value = parser(*sources)
            if content is None:
                self._keep(key, stamps, _pickled(value))
        return value

    @property
    def num_bytes(self) -> int:
        """How many are kept."""
        return self._bytes

    def renew_lock(self) -> None:
        """For a forked process, in which a thread that is not there may hold the lock."""
        self._lock = threading.Lock()
        self._bytes = sum(len(content) for _, content in self._kept.values())

    def _look_up(self, key: tuple, stamps: list[Stamp]) -> bytes | None:
        """What is kept of the sources as they are now; None = nothing is known of them."""
        with self._lock:
            known, content = self._kept.get(key, (None, b""))
            if known == stamps:
                self._kept.move_to_end(key)
                return content
            self._drop(key)  # an old value would take memory while the new one is parsed
            return None

    def _keep(self, key: tuple, stamps: list[Stamp], content: bytes) -> None:
        if len(content) > self._most_bytes:
            content = b""
        with self._lock:
            self._drop(key)
            self._kept[key] = stamps, content
            self._bytes += len(content)
            while self._bytes > self._most_bytes:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple) -> None:
        _, content = self._kept.pop(key, (None, b""))
        self._bytes -= len(content)


def _pickled(value: object) -> bytes:
    """Empty where a value cannot be pickled, as one that is nested too deep."""
    try:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except (RecursionError, pickle.PicklingError, AttributeError, TypeError):
        return b""


# The cache of this process.
_cache = SourceCache()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_cache.renew_lock)
parse_once = _cache.parse


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Make many objects at once without a search for garbage among them.

    Python searches again and again while objects are made. For the 700,000 boxes of a COCO JSON
    that takes more than half of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

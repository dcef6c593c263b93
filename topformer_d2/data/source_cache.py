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
import pickle
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..files import Stamp, is_remote, stamp

T = TypeVar("T")

# Of all that is kept. A COCO JSON of 100,000 images and 700,000 boxes takes 44 MiB.
_MOST_BYTES = 1 << 29


class SourceCache:
    """Parsed sources by the function that parsed them and their paths; the last ones used."""

    def __init__(self, most_bytes: int = _MOST_BYTES):
        """
        Args:
            most_bytes: of all that is kept; what was not used for longest is given up.
        """
        self._most_bytes = most_bytes
        # In the order of use: what they were made from, and the pickled values.
        self._kept: dict[tuple, tuple[list[Stamp], bytes]] = {}

    def parse(self, parser: Callable[..., T], *sources: str) -> T:
        """parser(*sources), which is called only where a source is new or has changed.

        Args:
            parser: a function of a module, which reads these sources alone. What it returns can
                be pickled; what it raises is not kept.
            sources: files and folders. Of a folder, the files below it count by name, time and
                size. Remote ones are parsed each time, because nobody knows whether they changed.

        Returns:
            values that the caller may change.
        """
        stamps = [stamp(source) for source in sources if not is_remote(source)]
        if len(stamps) < len(sources):
            return parser(*sources)
        key = parser, *sources
        known, content = self._kept.pop(key, (None, b""))
        with without_collection():
            if known == stamps:
                value = pickle.loads(content)
            else:
                value = parser(*sources)
                content = _pickled(value)
        if 0 < len(content) <= self._most_bytes:
            self._kept[key] = stamps, content
        while self.bytes > self._most_bytes:
            del self._kept[next(iter(self._kept))]
        return value

    @property
    def bytes(self) -> int:
        """How many are kept."""
        return sum(len(content) for _, content in self._kept.values())


def _pickled(value: object) -> bytes:
    """Empty where a value is nested too deep."""
    try:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except RecursionError:
        return b""


# The cache of this process.
parse_once = SourceCache().parse


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

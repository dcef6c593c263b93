"""Which folders a run has written, so that their files are not taken for images and labels."""

from __future__ import annotations

import os
from collections.abc import Callable

# Of a run's output: what is made of labels that are not used as they lie.
CACHE = "dataset_cache"


def is_output(folder: str) -> bool:
    """Whether it is the OUTPUT_DIR of a run with such labels, or its CACHE."""
    return os.path.basename(folder) == CACHE or os.path.isdir(os.path.join(folder, CACHE))


def output_of(cache: str) -> str:
    """The OUTPUT_DIR that a dataset's cache is in; "" where it is in none."""
    above = os.path.dirname(os.path.abspath(cache))
    return os.path.dirname(above) if os.path.basename(above) == CACHE else ""


def is_output_or(own: str) -> Callable[[str], bool]:
    """is_output, and true of the OUTPUT_DIR `own` before it has its CACHE."""

    def check(folder: str) -> bool:
        return is_output(folder) or (bool(own) and os.path.abspath(folder) == own)

    return check

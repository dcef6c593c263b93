"""The one exception for what a user can mend, and how the tools show it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """A config, dataset, image or weight file is not usable; the message names it and the mend."""


@contextmanager
def show_input_errors() -> Iterator[None]:
    """Turn an InputError into one message on stderr and exit status 1, without a traceback.

    An OSError, such as a full disk or a folder that is a file, is the user's to mend as well.
    """
    try:
        yield
    except (InputError, OSError) as e:
        # One raised in a loader's worker arrives wrapped in the text of its traceback.
        message = str(e).rpartition(f"{InputError.__qualname__}: ")[2].rstrip()
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1) from None

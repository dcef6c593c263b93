"""The libraries that only the export needs."""

from __future__ import annotations

import importlib
from types import ModuleType

from ..errors import InputError


def import_extra(module: str) -> ModuleType:
    """A library of the extra "export"; InputError with what installs it where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise InputError(f'export needs {module} ({e}): pip install -e ".[export]"') from e

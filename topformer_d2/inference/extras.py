"""The libraries that only exported files need."""

from __future__ import annotations

from types import ModuleType

from ..errors import import_optional


def import_extra(module: str) -> ModuleType:
    """A library of the extra "export"; InputError with what installs it where it is missing."""
    return import_optional(module, "export", '-e ".[export]"')

"""Merging what a user wrote into a config; what is wrong is said with its file, key and fix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode, downgrade_config, upgrade_config
from detectron2.config.compat import guess_version

from ..errors import InputError, cut, did_you_mean, shortened
from .files import BASE_KEY, REPLACED, read_config
from .ranges import RANGES

# What yacs and fvcore raise for an unknown key or a value of the wrong type, and what Python raises
# for text that is taken for a value and is not one, such as a thousand brackets.
_MERGE_ERRORS = (
    *(KeyError, ValueError, AssertionError, TypeError, AttributeError),
    *(MemoryError, RecursionError),
)
_TYPE_MISMATCH = re.compile(
    r"Type mismatch \(<class '([\w.]+)'> vs. <class '([\w.]+)'>\) with values "
    r"\((.*?) vs. (.*)\) for config key: (.*)",
    re.S,
)
_COMMAND = "command line"
_TYPES = {
    "int": "a whole number (without point or exponent)",
    "float": "a number with a point",
    "str": "text",
    "bool": "True or False",
    "list": "a list",
    "tuple": "a list",
    "detectron2.config.config.CfgNode": "keys of its own",
}


def merge_file(cfg: CfgNode, path: str, *, allow_remote: bool = False) -> None:
    """As cfg.merge_from_file, of read_config's values; old versions are converted likewise.

    Raises:
        InputError: as read_config; or the file is of a version that this Detectron2 does not know,
            or has an unknown key or a value of the wrong type.
    """
    values = read_config(path, allow_remote=allow_remote)
    try:
        loaded = CfgNode(values)
        version = loaded.get("VERSION", cfg.VERSION)
        if "VERSION" not in loaded and all(isinstance(v, CfgNode) for v in loaded.values()):
            version = guess_version(loaded, path)
        if type(version) is not int or not 1 <= version <= cfg.VERSION:
            known = f"this Detectron2 takes 1 to {cfg.VERSION}"
            raise InputError(f"{path}: VERSION is {version!r}; {known}")
        if version == cfg.VERSION:
            cfg.merge_from_other_cfg(loaded)
            return
        old = downgrade_config(cfg, to_version=version)
        old.merge_from_other_cfg(loaded)
        new = upgrade_config(old)
    except InputError:
        raise
    except _MERGE_ERRORS as e:
        raise _config_error(path, e, cfg) from e
    cfg.clear()
    cfg.update(new)


def merge_opts(cfg: CfgNode, opts: Sequence[str]) -> None:
    """As cfg.merge_from_list.

    Raises:
        InputError: `opts` is not pairs, a key is unknown, or its value is of the wrong type.
    """
    pairs: list[Any] = [opts] if isinstance(opts, str) else list(opts)
    if options := [text for text in pairs if isinstance(text, str) and re.match("--[a-z]", text)]:
        raise InputError(
            f"{_COMMAND}: {cut(options[0])} stands among the pairs of KEY VALUE; options come "
            "before them"
        )
    if len(pairs) % 2 or not all(isinstance(key, str) for key in pairs[::2]):
        raise InputError(f"{_COMMAND}: {shortened(pairs)}; it takes pairs of KEY VALUE")
    for name, (other, off) in REPLACED.items():  # as complete_schedule does for a file
        if f"SOLVER.{name}" in pairs[::2] and f"SOLVER.{other}" not in pairs[::2]:
            pairs += [f"SOLVER.{other}", off]
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        *sections, name = key.split(".")
        node = cfg
        for section in sections:
            node = node.get(section) if isinstance(node, CfgNode) else None
        try:
            if (
                key == BASE_KEY
                or not isinstance(node, CfgNode)
                or isinstance(node.get(name), CfgNode)
            ):
                raise KeyError(f"Non-existent key: {key}")
            cfg.merge_from_list([key, value])
            str(node.get(name))  # raises of a whole number that is too long to be written
        except _MERGE_ERRORS as e:
            raise _config_error(_COMMAND, e, cfg, key) from e
    if "SOLVER.MAX_ITER" in pairs[::2] and cfg.SOLVER.get("EPOCHS"):
        raise InputError(
            f"{_COMMAND}: SOLVER.EPOCHS is {cfg.SOLVER.EPOCHS}, from which SOLVER.MAX_ITER "
            "follows: name one of the two"
        )


def flat_keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings by their whole names, such as "SOLVER.BASE_LR"."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from flat_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _config_error(source: str, error: Exception, cfg: CfgNode, key: str = "") -> InputError:
    """What yacs says of an unknown key or of a value's type, in words that name the fix."""
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    if mismatch := _TYPE_MISMATCH.match(text):
        kind, given, old, new, key = mismatch.groups()
        hint = f" (write {new}.0)" if (kind, given) == ("float", "int") else ""
        if hint and key in RANGES and not RANGES[key].accepts(float(new)):
            return InputError(f"{source}: {key} is {cut(new)}; it takes {RANGES[key]}")
        if kind == "str" and given in ("int", "float"):  # which the command takes for Python's
            hint = """ (write "'...'")""" if source == _COMMAND else " (write '...')"
            hint = hint.replace("...", cut(new, 40))
        example, *_ = old.partition("\n")  # of a node's keys the first one
        takes = f"{_TYPES.get(kind, kind)}, such as {cut(example)}"
        return InputError(f"{source}: {key} is {cut(new)}{hint}; it takes {takes}")
    # yacs words it differently for files and for lists.
    _, unknown, name = text.replace(" config key", " key").partition("Non-existent key: ")
    if unknown:
        known = [name for name, _ in flat_keys(cfg)]
        hint = did_you_mean(name, known)
        if below := [key for key in known if key.startswith(f"{name}.")]:
            hint = f": it is a section of keys, such as {below[0]}"
        if name in known:  # as one word, or as a name of today in a file of an old VERSION
            hint = f"; in a file {name.replace('.', ': {')}: ...{'}' * name.count('.')}"
            hint += ", and VERSION 2"
        return InputError(f"{source}: Non-existent key: {cut(name)}{hint}")
    what = f"{key}: its value" if key else "a value"
    said = f"{type(error).__name__}{': ' * bool(text)}{cut(text)}"
    return InputError(f"{source}: {what} cannot be used ({said})")

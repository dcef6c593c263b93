"""Config files as data: YAML that cannot run code, through every `_BASE_`.

Detectron2's cfg.merge_from_file builds any Python object that a file names, and fetches a `_BASE_`
from the network. Here both are refused before anything of the file is made.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any

import yaml

from ..errors import InputError, about, shortened
from ..files import is_remote, read_text

BASE_KEY = "_BASE_"
_MERGE_TAG = "tag:yaml.org,2002:merge"

# PyYAML's own, and those that its constructors let pass for a number, truth value or date that is
# not one, as in `!!bool maybe`, or that Python cannot hold.
_YAML_ERRORS = (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError)

# Far more than any config needs. A file of this size takes seconds to parse.
MAX_BYTES = 1 << 18
# Characters of a whole number; Python refuses to write those of 4,300 digits.
MAX_DIGITS = 300
# Values when every alias is written out, and levels of nesting.
MAX_VALUES, MAX_DEPTH = 20_000, 40
# Files that are read for one config.
MAX_FILES = 50


def read_config(path: str, *, allow_remote: bool = False) -> dict[str, Any]:
    """The values of a YAML file merged over those of its `_BASE_`, a file or a list of files.

    A relative `_BASE_` starts at the folder of the file that names it; "~" is the home folder.

    Args:
        path: of the file.
        allow_remote: fetch files whose path has a scheme, such as https://; they stay data.

    Raises:
        InputError: a file is missing, remote, too large or not a mapping in safe YAML of unique
            keys; or a `_BASE_` leads back to itself.
    """
    return _Reader(allow_remote).read(path, ())


class _Reader:
    def __init__(self, allow_remote: bool):
        self._allow_remote = allow_remote
        self._count = 0

    def read(self, path: str, below: tuple[str, ...]) -> dict[str, Any]:
        """`below`: the files whose `_BASE_` led here, the first one first."""
        self._count += 1
        chain = (*below, path)
        if below and os.path.realpath(path) in map(os.path.realpath, below):
            raise InputError(f"{BASE_KEY} leads back to the same file: {' -> '.join(chain)}")
        if self._count > MAX_FILES:
            raise InputError(f"{chain[0]}: {BASE_KEY} leads to more than {MAX_FILES} files")
        values = parse_config(self._read_text(path, below), path)
        complete_schedule(values)
        bases = values.pop(BASE_KEY, [])
        merged: dict[str, Any] = {}
        for base in bases if isinstance(bases, list) else [bases]:
            if not isinstance(base, str) or not base or "\0" in base:
                raise InputError(f"{path}: {BASE_KEY} is {bases!r}; it takes a path or a list")
            _merge(self.read(_path_of_base(base, path), chain), merged, path)
        _merge(values, merged, path)
        return merged

    def _read_text(self, path: str, below: tuple[str, ...]) -> str:
        named = (
            f"{path}, which {below[-1]} names as {BASE_KEY}," if below else f"config file {path}"
        )
        if is_remote(path):
            if not self._allow_remote:
                raise InputError(
                    f"{named} is remote, and a config is not fetched unasked: download it and name "
                    "the local file, or call load_config with allow_remote=True"
                )
        elif "\0" not in path and not os.path.lexists(path):
            raise InputError(f"{named} does not exist")
        try:
            return read_text(path, most=MAX_BYTES)
        except ValueError as e:  # InputError, or iopath's, for what can be no address
            source = f" ({below[-1]} names it as {BASE_KEY})" if below else ""
            raise InputError(f"{e if isinstance(e, InputError) else f'{path}: {e}'}{source}") from e


# What a file or a command that names the first key alone gives the second, whatever its base has.
REPLACED = {"LR_SCHEDULER_NAME": ("SCHEDULE", ""), "MAX_ITER": ("EPOCHS", 0)}


def complete_schedule(values: dict[str, Any]) -> None:
    """A file that names SOLVER.LR_SCHEDULER_NAME or MAX_ITER alone means that (REPLACED).

    Args:
        values: of one file, without its `_BASE_`; changed in place.
    """
    solver = values.get("SOLVER")
    for key, (other, off) in REPLACED.items():
        if isinstance(solver, dict) and key in solver:
            solver.setdefault(other, off)


def _path_of_base(base: str, path: str) -> str:
    base = os.path.expanduser(base)
    return base if is_remote(base) else os.path.join(os.path.dirname(path), base)


def _merge(values: dict, into: dict, path: str, prefix: str = "") -> None:
    """Merge `values` into `into`, over what is there; `path` and `prefix` are for the message."""
    for key, value in values.items():
        if isinstance(value, dict) and key in into:
            if not isinstance(into[key], dict):
                raise InputError(
                    f"{path}: {prefix}{key} has keys of its own, but in its {BASE_KEY} it is "
                    f"{into[key]!r}"
                )
            _merge(value, into[key], path, f"{prefix}{key}.")
        else:
            into[key] = value


def parse_config(text: str, path: str) -> dict[str, Any]:
    """The mapping of a YAML text that was read from `path`, which the messages name.

    Raises:
        InputError: it is not safe YAML or not a mapping, a key is not text or comes twice, or it
            grows beyond MAX_VALUES or MAX_DEPTH by its aliases.
    """
    with about(path):
        try:
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            if node is None:
                raise InputError("the config is empty; it takes KEY: VALUE lines")
            _Checker().check(node)
            values = loader.construct_document(node)
        except RecursionError as e:
            raise InputError("the YAML is nested too deep to be read") from e
        except InputError:
            raise
        except _YAML_ERRORS as e:
            said = str(e) if isinstance(e, (yaml.YAMLError, ValueError)) else repr(e)
            raise InputError(f"this is not YAML that can be read: {said}") from e
        if not isinstance(values, dict):
            raise InputError(
                f"the config is {_kind(values)}, {shortened(values, 80)}; it takes KEY: VALUE lines"
            )
        return values


class _Checker:
    """Looks at a document before any of its values is made."""

    def __init__(self) -> None:
        # (values, levels) of each node that is done; None while it is looked at.
        self._sizes: dict[int, tuple[int, int] | None] = {}

    def check(self, node: yaml.Node) -> None:
        self._size(node)

    def _size(self, node: yaml.Node) -> tuple[int, int]:
        if id(node) in self._sizes:
            known = self._sizes[id(node)]
            if known is None:
                raise InputError(f"{_line(node)}: a value contains itself by an alias")
            return known
        self._sizes[id(node)] = None
        self._check_tag(node)
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        else:
            self._check_scalar(node)
        sizes = [self._size(child) for child in children]
        count = 1 + sum(size for size, _ in sizes)
        depth = 1 + max((depth for _, depth in sizes), default=0)
        if count > MAX_VALUES or depth > MAX_DEPTH:
            raise InputError(
                f"{_line(node)}: with its aliases written out the config has more than "
                f"{MAX_VALUES} values or {MAX_DEPTH} levels, which is more than it can need"
            )
        self._sizes[id(node)] = count, depth
        return count, depth

    @staticmethod
    def _check_tag(node: yaml.Node) -> None:
        if node.tag in yaml.SafeLoader.yaml_constructors or node.tag == _MERGE_TAG:
            return
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise InputError(
            f"{_line(node)}: the tag {tag!r} asks for a Python object, which can run code, and a "
            "config is data: write the value itself (a list for a tuple)"
        )

    @staticmethod
    def _check_scalar(node: yaml.Node) -> None:
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MAX_DIGITS:
            raise InputError(
                f"{_line(node)}: a whole number has {len(node.value)} characters; it takes at most "
                f"{MAX_DIGITS}"
            )
        try:
            node.value.encode()
        except UnicodeEncodeError as e:
            raise InputError(
                f"{_line(node)}: text has half a character (a lone surrogate), {node.value!r:.80}: "
                "write the whole character"
            ) from e

    @classmethod
    def _check_keys(cls, node: yaml.MappingNode) -> None:
        seen: set[Hashable] = set()
        for key, _ in node.value:
            if key.tag == _MERGE_TAG:
                continue
            if key.tag == "tag:yaml.org,2002:int" and key.value.isdecimal():
                key.tag = "tag:yaml.org,2002:str"  # a label of LABEL_MAP; keys of configs are text
            if key.tag != "tag:yaml.org,2002:str":
                cls._check_tag(key)
                shown = f"{key.value!r:.80}" if isinstance(key, yaml.ScalarNode) else "not text"
                raise InputError(f"{_line(key)}: a key is {shown}; put it in quotes")
            if key.value in seen:
                raise InputError(f"{_line(key)}: the key {key.value!r} is there twice; keep one")
            seen.add(key.value)


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _kind(value: Any) -> str:
    names: dict[type, str] = {list: "a list", str: "text"}
    return names.get(type(value), "a value")

"""Arguments: a parser that names the nearest option, and those that several verbs share."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from ..errors import InputError, did_you_mean

_PARAMETER = re.compile(r"`(\w+)`")
_DEFAULT_MIN_SCORE = 0.5
# How argparse begins a message.
_MISSING = "the following arguments are required: "


# Parameters that name a file which is written.
_RESULTS = ("output", "out", "json", "save_json", "chart")


class Parser(argparse.ArgumentParser):
    """A parser that names the nearest option, and puts the library's messages in its own words.

    Args:
        description: of the verb, with examples; it is shown as it is.
        names: options by those parameters of the library that are called otherwise, as in
            {"path": "--output"}.
    """

    def __init__(self, description: str = "", names: Mapping[str, str] | None = None, **keys: Any):
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **keys,
        )
        self._names = dict(names or {})
        self._words: list[str] = []

    def reword(self, message: str) -> str:
        """`message` with options for the parameters that it has in backticks."""
        options: dict[str, Any] = {
            a.dest: (a.option_strings or [str(a.metavar or a.dest)])[-1] for a in self._actions
        }
        options |= self._names
        return _PARAMETER.sub(lambda found: options.get(found[1], found[0]), message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = list(sys.argv[1:] if args is None else args)
        found, unknown = super().parse_known_args(args, namespace)
        self._check_paths(found)
        # KEY VALUE pairs take all words up to the end, mistyped options among them.
        pairs = getattr(found, "opts", None) or []
        return found, [*unknown, *(word for word in pairs if self._is_mistyped(word))]

    def _check_paths(self, found: argparse.Namespace) -> None:
        """Refuse an empty option, as of a shell's unset variable, and a result over a source."""
        given = [
            ("/".join(action.option_strings) or str(action.metavar or action.dest), action, value)
            for action in self._actions
            for value in _texts(getattr(found, action.dest, None))
            if value != action.default and action.nargs not in ("*", argparse.REMAINDER)
        ]
        for name, _, value in given:
            if not value:
                self.error(f"{name} is empty")
        results = [each for each in given if each[1].dest in _RESULTS]
        for name, result, path in results:
            for other, source, of in given:
                if source is not result and _is_same_file(path, of):
                    self.error(f"{name} {path} is the file of {other}, and would replace it")

    def error(self, message: str) -> NoReturn:
        """Print the message, or the options nearest to mistyped ones; exit status 2.

        argparse takes what follows a mistyped option for KEY VALUE pairs, and its own message would
        be that options are missing which are there.
        """
        mistyped = [w.partition("=")[0] for w in self._words if self._is_mistyped(w)]
        if mistyped:
            known = [*self._option_string_actions]
            told = [f"{option}{did_you_mean(option, known)}" for option in mistyped]
            message = f"there is no {' and no '.join(told)}"
        elif message.startswith(_MISSING):
            missing = message.removeprefix(_MISSING).split(", ")
            if after := [option for option in missing if option in self._words]:
                message = f"{after[0]} stands among the pairs of KEY VALUE: options come first"
        super().error(message)

    def _is_mistyped(self, word: str) -> bool:
        option = word.partition("=")[0]
        return re.match("--[a-z]", option) is not None and not any(
            known.startswith(option) for known in self._option_string_actions
        )

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            hint = did_you_mean(str(value), known)
            raise argparse.ArgumentError(action, f"{value!r}{hint}; known: {', '.join(known)}")


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


def _is_same_file(path: str, other: str) -> bool:
    try:
        return os.path.isfile(path) and os.path.samefile(path, other)
    except (OSError, ValueError):  # the other is not there, or cannot be a path
        return False


def config_parser(description: str, names: Mapping[str, str] | None = None) -> Parser:
    """A parser with --config-file and, at the end, KEY VALUE pairs as `opts`."""
    parser = Parser(description, names)
    parser.add_argument("--config-file", required=True, metavar="FILE")
    add_opts(parser)
    return parser


def add_opts(parser: argparse.ArgumentParser) -> None:
    """KEY VALUE pairs at the end, as `opts`."""
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config"
    )


def add_min_score(parser: argparse.ArgumentParser) -> None:
    """--min-score; it is None where it was not given, and min_score_of has the value."""
    parser.add_argument(
        "--min-score",
        type=float,
        help=f"boxes below it are not drawn; default: {_DEFAULT_MIN_SCORE}",
    )


def min_score_of(args: argparse.Namespace) -> float:
    """The value of --min-score, which is checked."""
    value = _DEFAULT_MIN_SCORE if args.min_score is None else args.min_score
    if not 0 <= value <= 1:
        raise InputError(f"--min-score is {value}; it takes 0 to 1")
    return value

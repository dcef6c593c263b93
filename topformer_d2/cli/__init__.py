"""The command `topformer`. Each verb is a module of this package, imported when it is called.

Nothing here imports PyTorch, so that --help and a mistyped verb are answered at once.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from .. import __version__, load
from ..errors import InputError, did_you_mean, show_input_errors
from .parsing import Parser

# Each with its module and what --help says of it.
VERBS = {
    "train": ("train", "train a model with Detectron2's usual arguments"),
    "eval": ("evaluate", "evaluate a checkpoint or an exported file on a dataset"),
    "compare": ("compare", "show what two evaluated models get wrong, side by side"),
    "predict": ("predict", "segment images or a video, or find objects in them"),
    "export": ("export", "write a trained model as a file for another runtime"),
    "web": ("web", "write a page that runs a model in the browser, and serve it"),
    "quantize": ("quantize", "write an exported file in 8-bit integers"),
    "convert": ("convert", "convert weights: official keys, one task out of two, two into one"),
    "analyze": ("analyze", "print what a model costs, or the paper's tables"),
    "analyze batch": ("analyze_batch", "find the largest training batch for a GPU's memory"),
    "analyze lr": ("analyze_lr", "try rising learning rates, and suggest one"),
    "benchmark": ("benchmark", "time models on this machine, by backend"),
    "benchmark train": ("benchmark_train", "time a training step by part, and its memory"),
    "data check": ("data_check", "read every file of datasets and say what is wrong"),
    "data view": ("data_view", "draw images with their labels, boxes and predictions"),
    "data convert": ("data_convert", "write a dataset of any label format as plain files"),
    "data prepare": ("data_prepare", "make a dataset out of what its official site hands out"),
    "demo": ("demo", "make a small dataset, train both tasks on it, and draw what came out"),
    "doctor": ("doctor", "say what is installed, which datasets are here, and what to fix"),
    "install-detectron2": ("install", "install Detectron2 without a compiler"),
}
# What other tools call a verb of ours.
_SYNONYMS = {
    **{"test": "eval", "val": "eval", "validate": "eval", "evaluate": "eval"},
    **{"infer": "predict", "inference": "predict", "segment": "predict", "detect": "predict"},
    **{"fit": "train", "check": "data check", "view": "data view", "prepare": "data prepare"},
}
# They say or repair what is wrong with an installation, so they run in one that is not whole.
_NEED_NOTHING = ("doctor", "install-detectron2")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb, as in `main(["predict", "--input", "a.png", ...])`.

    Args:
        argv: the command's words without its name; None = those of this process.

    Returns:
        the exit status: 0, 1 after an error or what the verb finds wrong, 130 and 143 after Ctrl-C
        and SIGTERM, 141 where the reader of its output has left.

    Raises:
        SystemExit: argparse's own, after --help and where the words cannot be understood.
    """
    _open_closed_streams()
    verb, words = _choose_verb(list(sys.argv[1:] if argv is None else argv))
    parser = Parser()  # the verb's own once it is imported
    try:
        with show_input_errors(lambda message: parser.reword(message)):
            if verb not in _NEED_NOTHING:
                _load_package()
            module = importlib.import_module(f"{__name__}.{VERBS[verb][0]}")
            parser = module.make_parser()
            parser.prog = f"topformer {verb}"
            return module.run(parser.parse_args(words), parser) or 0
    except SystemExit as stop:
        if stop.code in (None, 0, 2):  # argparse's own
            raise
        return int(stop.code)


def _choose_verb(words: list[str]) -> tuple[str, list[str]]:
    """The verb, of one word or two, and the words after it."""
    for length in (2, 1):  # "benchmark train" before "benchmark"
        if (verb := " ".join(words[:length])) in VERBS:
            return verb, words[length:]
    group = "data " if words[:1] == ["data"] else ""
    verbs = {name: about for name, (_, about) in VERBS.items() if name.startswith(group)}
    parser = Parser(
        "TopFormer on Detectron2: segmentation, detection, and both from one pass.",
        prog=f"topformer {group}".strip(),
        usage=f"topformer {group}VERB ...",
        epilog="\n".join(
            [
                "verbs:",
                *(f"  {name:<20}{about}" for name, about in verbs.items()),
                f"\n`topformer {group}VERB --help` shows its options, with examples.",
            ]
        ),
    )
    parser.add_argument("--version", action="version", version=__version__)
    if group:
        words = words[1:]
    if words and not words[0].startswith("-"):
        given = group + words[0]
        hint = did_you_mean(_SYNONYMS.get(given, given), list(verbs))
        parser.error(f"{given!r} is not a verb{hint}; --help lists them")
    parser.parse_args(words)
    parser.print_help()
    raise SystemExit(2)


def _open_closed_streams() -> None:
    """Drop what is written to a stdout or stderr that is closed, as by `2>&-`.

    Python has None for it, on which progress bars fail. And its number would be that of the next
    file, into which libraries write what they say.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _load_package() -> None:
    """Import all of topformer_d2, which registers it with Detectron2."""
    try:
        load()
    except ImportError as e:
        raise InputError(str(e)) from e
    # Detectron2's anchors leave out a keyword, of which PyTorch warns.
    warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)

"""All kinds of faults by name, what must hold of each, and the fast tests that hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from tests.faults import disks, hostile, kills
from tests.faults.child import Task, run
from tests.faults.report import Row
from tests.faults.world import World

_AGAIN = "no half file is left, and the next run gives the same files"
_ONE_MESSAGE = "one message that names the file; no code runs"
_FULL = "one message, nothing half left, other files stay"

# (what holds, fast tests) of each kind.
_HOLDS = {
    "kill: training": (
        "resumed until its end, the weights are equal to the bit",
        "engine/test_resume.py, files/test_writing.py",
    ),
    "kill: preparation of pixels": (_AGAIN, "data/test_prepare_official.py"),
    "kill: preparation of boxes": (_AGAIN, "data/test_prepare_voc.py"),
    "kill: prediction of a folder": (_AGAIN, "files/test_writing.py"),
    "kill: prediction of a video": (_AGAIN, "inference/test_video.py"),
    "full disk: training": (_FULL, "engine/test_failures.py"),
    "full disk: preparation of pixels": (_FULL, "data/test_prepare_hostile.py"),
    "full disk: preparation of boxes": (_FULL, "data/test_prepare_hostile.py"),
    "full disk: prediction of a folder": (_FULL, "visualization/test_predictions.py"),
    "full disk: prediction of a video": (_FULL, "inference/test_video.py"),
    "full disk: export": (_FULL, "export/test_refusals.py"),
    "full disk: conversion of weights": (_FULL, "files/test_writing.py"),
    "hostile: image": ("a message for the image, all others are done", "data/test_images.py"),
    "hostile: label PNG": (_ONE_MESSAGE, "data/test_inspection.py"),
    "hostile: COCO JSON": (_ONE_MESSAGE, "data/test_boxes.py, files/test_reading.py"),
    "hostile: classes file": (_ONE_MESSAGE, "data/test_folders.py"),
    "hostile: config": (_ONE_MESSAGE, "test_config_files.py"),
    "hostile: weights": (_ONE_MESSAGE, "test_checkpoint_damage.py"),
    "hostile: ONNX file": (_ONE_MESSAGE, "inference/test_hostile_files.py"),
    "hostile: description in an ONNX file": (_ONE_MESSAGE, "inference/test_export_info.py"),
    "hostile: OpenVINO pair": (_ONE_MESSAGE, "inference/test_hostile_files.py"),
    "hostile: archive": (_ONE_MESSAGE, "data/test_prepare_hostile.py"),
    "hostile: VOC XML": (_ONE_MESSAGE, "data/test_prepare_voc.py"),
    "hostile: video": ("what can be read is done, the rest is told", "inference/test_video.py"),
}

# (seed, world) -> what is wrong with each try, "" where nothing is.
Trial = Callable[[int, World], Iterator[str]]


def trials() -> dict[str, Trial]:
    """{kind: what tries it once or several times}."""
    return {
        **{f"kill: {name}": trial for name, trial in kills.KINDS.items()},
        **{f"full disk: {name}": partial(_full_disk, name) for name in disks.KINDS},
        **{f"hostile: {name}": partial(_hostile, make) for name, make in hostile.KINDS.items()},
    }


def rows() -> dict[str, Row]:
    """An empty row for each kind."""
    return {kind: Row(kind, *_HOLDS[kind]) for kind in trials()}


def _full_disk(name: str, seed: int, world: World) -> Iterator[str]:
    yield from disks.full_disk(name, seed, world)


def _hostile(make: hostile.Maker, seed: int, world: World) -> Iterator[str]:
    task: Task = make(seed, world)
    _, wrong = run(task)
    yield wrong

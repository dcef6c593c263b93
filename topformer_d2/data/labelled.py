"""Which tasks a record has labels for: "sem_seg" (pixels), "instances" (boxes), both, or "cls"."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.data import MetadataCatalog

from ..errors import InputError
from ..tasks import ALL_TASKS, TASKS

# What a dataset has by its evaluator_type, unless its metadata have "tasks".
_TASKS_OF_TYPE: dict[str, tuple[str, ...]] = {
    kind: (t.name,) for t in ALL_TASKS.values() for kind in t.evaluator_types
}
_TASKS_OF_TYPE["multitask"] = tuple(TASKS)  # of a program's own registration


def tasks_of(records: Sequence[dict]) -> tuple[str, ...]:
    """The tasks that a dataset has labels for: those that any of its records has."""
    return tuple(
        name
        for name, task in ALL_TASKS.items()
        if any(name in r["tasks"] if "tasks" in r else task.record_key in r for r in records)
    )


def flag_tasks(records: Sequence[dict]) -> list[dict]:
    """The records, each with "tasks", the tasks that it has labels for.

    A loader sets it where images of a dataset differ. In a dataset of one task all are labelled for
    that; so an image with no annotations is, in a dataset of boxes, one without objects.

    Raises:
        InputError: a record of a dataset with both kinds has one of them and no "tasks".
    """
    tasks = tasks_of(records)
    for record in records if len(tasks) > 1 else ():
        keys = [ALL_TASKS[task].record_key for task in tasks]
        without = [key for key in keys if key not in record]
        if without and "tasks" not in record:
            raise InputError(
                f"the record of {record['file_name']} has no {without[0]!r}, which others of its "
                'dataset have: set its "tasks" to those that it is labelled for, '
                "('sem_seg',) or ('instances',)"
            )
    return [{"tasks": tasks, **record} for record in records]


def registered_tasks(name: str) -> tuple[str, ...]:
    """The tasks that a registered dataset has labels for by its metadata; empty if they do not say.

    "tasks" in the metadata say so, else the evaluator_type.
    """
    metadata = MetadataCatalog.get(name)
    return tuple(metadata.get("tasks") or _TASKS_OF_TYPE.get(metadata.get("evaluator_type"), ()))


def known_evaluator_types() -> list[str]:
    """Those that say what a dataset has."""
    return list(_TASKS_OF_TYPE)


def has_task(name: str, task: str) -> bool:
    """Whether a registered dataset has labels for a task, as far as its metadata say.

    By its evaluator_type first: Detectron2's Cityscapes of pixels has thing_classes as well.
    """
    tasks = registered_tasks(name)
    return (
        task in tasks
        if tasks
        else bool(MetadataCatalog.get(name).get(ALL_TASKS[task].classes_field))
    )

"""Which tasks a record has labels for: "sem_seg" (pixels), "instances" (boxes), or both."""

from __future__ import annotations

from collections.abc import Sequence

# What a dataset has by its evaluator_type; of others the records tell.
TASKS_OF_TYPE = {
    "sem_seg": ("sem_seg",),
    "cityscapes_sem_seg": ("sem_seg",),
    "coco": ("instances",),
    "multitask": ("sem_seg", "instances"),
}

# What a record has where it is labelled for a task.
_KEYS = {"sem_seg": "sem_seg_file_name", "instances": "annotations"}


def tasks_of(records: Sequence[dict]) -> tuple[str, ...]:
    """The tasks that a dataset has labels for: those that any of its records has."""
    return tuple(
        task
        for task, key in _KEYS.items()
        if any(task in r["tasks"] if "tasks" in r else key in r for r in records)
    )


def flag_tasks(records: Sequence[dict]) -> list[dict]:
    """The records, each with "tasks", the tasks that it has labels for.

    A loader of a dataset in which they differ sets it; all others are labelled for what the dataset
    is. So an image with no annotations is, in a dataset of boxes, one without objects.
    """
    tasks = tasks_of(records)
    return [{"tasks": tasks, **record} for record in records]

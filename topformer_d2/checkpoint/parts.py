"""The parts of a checkpoint: TopFormer, and the head of each task.

A segmenter has TopFormer as "backbone." and sem_seg_head.*. A detector has it as
"backbone.bottom_up.", its pyramid as the other backbone.*, and head.*. A joint model has all of
these, with TopFormer as a detector has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from ..errors import InputError, look_up
from ..tasks import BOXES, TASKS

_TOPFORMER = ("pyramid.", "semantics.", "injection.")
_MARKER = "pyramid.stem.weight"
# What training alone has: the classifiers of the auxiliary loss, and what is learnt beside a
# teacher.
TRAINING_ALONE = ("sem_seg_head.auxiliary.", "distillation.")


def topformer_prefix(keys: Iterable[str]) -> str | None:
    """The prefix of TopFormer's keys, such as "backbone."; None where there are no such keys."""
    return next((key.removesuffix(_MARKER) for key in keys if key.endswith(_MARKER)), None)


def place_topformer(weights: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """`weights` with TopFormer's keys where `own`, a model's keys, have them.

    So ImageNet's weights, or the other task's, start a model of either task or of both.
    """
    given, wanted = topformer_prefix(weights), topformer_prefix(own)
    if given is None or wanted is None or given == wanted:
        return dict(weights)
    parts = tuple(given + part for part in _TOPFORMER)
    return {
        wanted + key.removeprefix(given) if key.startswith(parts) else key: value
        for key, value in weights.items()
    }


def split_parts(state_dict: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors of each part of a model.

    Returns:
        "TopFormer", whose keys are without the prefix that it has in the model; "pyramid", what
        else is below "backbone."; every other part under the first word of its keys, such as
        "head" and "sem_seg_head". What TRAINING_ALONE names is left out.

    Raises:
        InputError: there is no TopFormer with this toolkit's keys.
    """
    prefix = topformer_prefix(state_dict)
    if prefix is None:
        raise InputError(
            f"no checkpoint of this toolkit: its keys are like {[*state_dict][:3]}. An official "
            "one is converted by `topformer convert IN OUT`, without an option"
        )
    parts: dict[str, dict[str, Tensor]] = {"TopFormer": {}}
    for key, value in state_dict.items():
        if key.startswith(TRAINING_ALONE):
            continue
        if key.startswith(tuple(prefix + part for part in _TOPFORMER)):
            parts["TopFormer"][key.removeprefix(prefix)] = value
        else:
            name = key.split(".")[0]
            parts.setdefault("pyramid" if name == "backbone" else name, {})[key] = value
    return parts


def extract_task(state_dict: Mapping[str, Tensor], task: str) -> dict[str, Tensor]:
    """The single-task model in a joint one, with the keys and the tensors that it has alone.

    Args:
        state_dict: a joint model's.
        task: "sem_seg" for a segmenter's state dict, "instances" for a detector's.

    Raises:
        InputError: `task` is neither, or `state_dict` is not a joint model's.
    """
    own = look_up(TASKS, task, "task")
    parts = split_parts(state_dict)
    tasks = _tasks(parts)
    if task not in tasks:
        raise InputError(f"the checkpoint has no {task!r}: its parts are {[*parts]}")
    if len(tasks) == 1:
        raise InputError(
            f"the checkpoint is not a joint model's: it has {task!r} alone, and is used as it is"
        )
    return _assemble(own.topformer_prefix, parts["TopFormer"], *(parts[n] for n in own.parts))


def extract_backbone(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """TopFormer alone, under "backbone.", of any model: a start for any other."""
    return _assemble("backbone.", split_parts(state_dict)["TopFormer"])


def merge_tasks(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A joint model from a segmenter and a detector, in either order.

    TopFormer is the first one's. The second one's heads were trained on another, so what comes out
    is a start for training; merging what was extracted from one joint model gives that model, less
    its loss_weighting.

    Raises:
        InputError: one of them is not a single-task model's, both are of one task, or their
            TopFormers differ in shape.
    """
    split = {"first": split_parts(first), "second": split_parts(second)}
    tasks = [_only_task(which, parts) for which, parts in split.items()]
    if tasks[0] == tasks[1]:
        raise InputError(
            f"both checkpoints are of {tasks[0]!r}: a joint model takes a segmenter and a detector"
        )
    _check_same_shapes(split["first"]["TopFormer"], split["second"]["TopFormer"])
    heads = [
        parts[name]
        for task, parts in zip(tasks, split.values(), strict=True)
        for name in TASKS[task].parts
    ]
    return _assemble(BOXES.topformer_prefix, split["first"]["TopFormer"], *heads)


def _tasks(parts: Mapping[str, dict]) -> list[str]:
    return [name for name, task in TASKS.items() if set(task.parts) <= parts.keys()]


def _only_task(which: str, parts: Mapping[str, dict]) -> str:
    tasks = _tasks(parts)
    if len(tasks) == 2:
        raise InputError(
            f"the {which} checkpoint is a joint model's already; `extract_task` takes one task out "
            "of it"
        )
    if not tasks:
        raise InputError(
            f"the {which} checkpoint has no whole head: its parts are {[*parts]}. A backbone alone "
            "starts a joint model as MODEL.WEIGHTS"
        )
    return tasks[0]


def _check_same_shapes(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    for key in [*first, *(key for key in second if key not in first)]:
        if key.endswith("num_batches_tracked"):  # old files lack it, and so do frozen norms
            continue
        shapes = [tuple(part[key].shape) if key in part else "absent" for part in (first, second)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"the two checkpoints' TopFormers differ: {key} is {shapes[0]} in the first and "
                f"{shapes[1]} in the second. They have to be of one MODEL.TOPFORMER"
            )


def _assemble(
    prefix: str, topformer: Mapping[str, Tensor], *others: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    weights = {prefix + key: value for key, value in topformer.items()}
    for part in others:
        weights |= part
    return weights

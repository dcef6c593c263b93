"""The records of an entry of DATASETS.FOLDERS, made once and kept beside the run's output."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detectron2.structures import BoxMode

from ...errors import InputError, printable
from ...files import make_folder, stamp, waiting_for_lock, write_json
from ...logs import get_logger
from ...tasks import BOXES, PIXELS
from ..categories import Categories
from ..formats import files_beyond
from ..formats.contract import BACKGROUND, Problem
from ..output_folders import is_output_or, output_of
from ..severity import is_error
from .cache import (
    INDEX,
    LABELS,
    add_outlines,
    keep_in_use,
    read_classes,
    read_index,
    write_classes,
    write_outlines,
)
from .making import make_records
from .rendering import VERSION
from .source import LabelSource

logger = get_logger(__name__)

_LOCK = ".lock"


class DatasetProblems(InputError):
    """Labels of a dataset cannot be used.

    Attributes:
        problems: all that is wrong.
        records: of the images whose labels can be used.
    """

    def __init__(self, message: str, problems: list[Problem], records: list[dict]):
        super().__init__(message)
        self.problems = problems
        self.records = records


class LabelledFolder(LabelSource):
    """Images with labels of any format, as a dataset: its records, kept for the next run."""

    def metadata(self, task: str) -> dict[str, Any]:
        """The fields of Detectron2's metadata that say what the classes of a task are.

        Raises:
            InputError: the labels, or the file that names the classes, cannot be used.
        """
        listed = self.listed(task)
        if listed is not None:  # the labels, which may be many, are not read for their names
            if task == PIXELS.name:
                return listed.stuff_metadata()
            return _thing_fields([name for name in listed.names if name != BACKGROUND])
        kept = read_classes(self.cache, self._key(), task)
        if kept is None:
            classes = self.classes(task)
            kept = classes.names, classes.colors, self.class_ids(task)
        names, colors, ids = kept
        if task == PIXELS.name:
            named = Categories(names, colors, tuple(range(len(names))), self.ignore_value)
            return named.stuff_metadata()
        fields = _thing_fields(names, ids)
        if colors:
            fields["thing_colors"] = [list(color) for color in colors]
        return fields

    def records(self) -> list[dict]:
        """Detectron2 records.

        Raises:
            DatasetProblems: labels of some images cannot be used.
            InputError: no label can be used.
        """
        records, problems = self.checked_records()
        errors = [problem for problem in problems if is_error(problem.kind)]
        if errors:
            more = f" ({len(errors) - 1} more)" if errors[1:] else ""
            raise DatasetProblems(f"{errors[0].message}{more}", problems, records)
        if not records:
            raise InputError(f"{self.where}: no image has labels that can be used")
        for kind, count in Counter(problem.kind for problem in problems).items():
            first = next(problem for problem in problems if problem.kind == kind)
            more = f" ({count - 1} more)" if count > 1 else ""
            logger.warning("%s: %s%s", self.where, printable(first.message), more)
        return records

    def checked_records(self) -> tuple[list[dict], list[Problem]]:
        """The records of the images whose labels can be used, and all that is wrong with labels.

        Raises:
            InputError: no label can be used.
        """
        stored, problems = self._load()
        return [self._record(each) for each in stored], problems

    def _load(self) -> tuple[list[dict], list[Problem]]:
        """The records as they are stored, and the problems; made where the files have changed."""
        key = self._key()
        index: dict[str, Any] | None = self._kept(key)
        if index is None:
            with self._alone():
                index = self._kept(key)  # another process may have made it
                if index is None:
                    index = dict(make_records(self), key=key)
                    if self.with_outlines:
                        write_outlines(self.cache, key, index["records"])
                    write_json(os.path.join(self.cache, INDEX), index)
                    tasks = self.entry.tasks
                    write_classes(
                        self.cache,
                        key,
                        {task: self.classes(task) for task in tasks},
                        {task: self.class_ids(task) for task in tasks},
                    )
                    keep_in_use(self.cache)
                    if self.with_outlines:
                        add_outlines(self.cache, key, index["records"])
        return index["records"], [Problem(*each) for each in index["problems"]]

    def _kept(self, key: str) -> dict[str, Any] | None:
        """The index of the cache with all that is wanted of it."""
        index = read_index(self.cache, key)
        if index is None or not self.with_outlines:
            return index
        return index if add_outlines(self.cache, key, index["records"]) else None

    def _key(self) -> str:
        """What changes with all that the dataset is made of."""
        made_of = [VERSION, repr(self.entry), self.ignore_value, *self._stamps()]
        return hashlib.sha256(repr(made_of).encode("utf-8", "replace")).hexdigest()

    def _stamps(self) -> Iterator[object]:
        entry = self.entry
        paths = [entry.images, entry.labels, entry.boxes, entry.list_file]
        paths += [entry.classes] if isinstance(entry.classes, str) else []
        for path in (path for path in (entry.labels, entry.boxes) if path):
            paths += files_beyond(path, entry.images)
        for path in dict.fromkeys(filter(None, paths)):  # images and labels may be one folder
            yield stamp(path, is_output_or(output_of(self.cache)))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Within it no other process makes this dataset."""
        make_folder(self.cache)
        with waiting_for_lock(os.path.join(self.cache, _LOCK)):
            yield

    def _record(self, stored: Mapping[str, Any]) -> dict:
        width, height = stored["size"]
        record: dict[str, Any] = {
            "file_name": os.path.join(self.entry.images, stored["file"]),
            "image_id": stored.get("id", stored["file"]),
            "width": width,
            "height": height,
        }
        if "label" in stored:
            record[PIXELS.record_key] = os.path.join(self.cache, LABELS, stored["label"])
        elif self.entry.labels:
            record["tasks"] = (BOXES.name,)
        if "boxes" in stored:
            record[BOXES.record_key] = [
                {
                    "bbox": [x0, y0, x1, y1],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": index,
                    "iscrowd": int(is_crowd),
                }
                for x0, y0, x1, y1, index, is_crowd in stored["boxes"]
            ]
            # Those that are their boxes, as all of some formats are, need none.
            for annotation, outline in zip(
                record[BOXES.record_key], stored.get("outlines", ()), strict=False
            ):
                if outline:
                    annotation["segmentation"] = outline
        return record


def _thing_fields(names: Sequence[str], ids: Sequence[int] = ()) -> dict[str, Any]:
    """Those of Detectron2's metadata; without ids, those that write_plain writes."""
    numbers = ids or range(1, len(names) + 1)
    to_index = {number: index for index, number in enumerate(numbers)}
    return {"thing_classes": list(names), "thing_dataset_id_to_contiguous_id": to_index}

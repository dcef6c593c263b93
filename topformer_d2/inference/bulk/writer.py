"""The results of partitions, each written beside its folder and renamed to it when it is whole."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError, import_optional, printable, trouble_of_one
from ...files import folder_beside
from ..prediction_files import LABEL
from .partitions import RECORD, Partitions, Record, partition_folder
from .work import Result

BOX_FORMATS = ("jsonl", "parquet")
REJECTS = "rejects.jsonl"
# PNGs have a folder of their own, so that no name of an image is a file's beside it.
LABELS = "labels"


@dataclass
class _Open:
    """A partition of which some results are there.

    Attributes:
        folder: where they are written, removed by `stack` unless it was renamed.
        done: the lines of the images that are done, RLE and boxes, by place.
        problems: what is wrong with the others, by place.
        files: bytes of each file.
    """

    folder: Path
    stack: contextlib.ExitStack
    done: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)

    def has(self, index: int) -> bool:
        return index in self.done or index in self.problems


class PartitionWriter:
    """Takes results in any order; a partition's folder appears when all of its images have one.

    A result that comes a second time is left out. At the end of the `with` block the partitions
    that are not whole are removed.
    """

    def __init__(
        self,
        output: Path,
        partitions: Partitions,
        *,
        label_format: str,
        box_format: str,
        finds_boxes: bool,
    ):
        """
        Args:
            output: folder of the partitions' folders.
            partitions: of all images.
            label_format: "png" or "rle".
            box_format: one of BOX_FORMATS.
            finds_boxes: whether there is a file of boxes.
        """
        if box_format not in BOX_FORMATS:
            raise InputError(f"`box_format` is {box_format!r}; known: {', '.join(BOX_FORMATS)}")
        if finds_boxes and box_format == "parquet":
            import_optional("pyarrow", "`box_format` parquet", "topformer_d2[ray]")
        self._output = output
        self._partitions = partitions
        self._label_format = label_format
        self._box_format = box_format if finds_boxes else None
        # Ids are of one type in all files, also in one without boxes.
        self._is_numbered = all(isinstance(each, int) for each in partitions.image_ids)
        self._open: dict[int, _Open] = {}
        self._written: set[int] = set()

    def __enter__(self) -> PartitionWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open.values():
            each.stack.close()
        self._open.clear()

    def add(self, result: Result) -> bool:
        """Whether the result is new.

        Raises:
            OSError: one that the next image would meet as well, such as a full disk.
        """
        number = result.partition
        if number in self._written:
            return False
        if number not in self._open:
            stack = contextlib.ExitStack()
            folder = stack.enter_context(folder_beside(partition_folder(self._output, number)))
            self._open[number] = _Open(folder, stack)
        found = self._open[number]
        if found.has(result.place):
            return False
        try:
            self._keep(found, result)
            places = self._partitions.places(number)
            if len(found.done) + len(found.problems) == len(places):
                self._finish(number, found)
        except OSError as e:  # the name of what is written beside means nothing to the user
            raise OSError(e.errno, e.strerror, str(partition_folder(self._output, number))) from e
        return True

    def _keep(self, found: _Open, result: Result) -> None:
        problem, line = result.problem, b""
        if problem is None and result.label is not None:
            if self._label_format == "rle":
                line = result.label
            else:
                problem = self._write_label(found, result)
        if problem is None:
            found.done[result.place] = line, result.boxes or b""
        else:
            found.problems[result.place] = problem

    def _write_label(self, found: _Open, result: Result) -> str | None:
        """What is wrong with this one name, as where it is too long."""
        name = f"{LABELS}/{self._partitions.names[result.place]}{LABEL}"
        path = found.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(result.label)
        except OSError as e:  # also here the name of what is written beside means nothing
            target = partition_folder(self._output, result.partition) / name
            named = OSError(e.errno, e.strerror, str(target))
            problem = trouble_of_one(named, self._partitions.paths[result.place])
            if problem is None:
                raise
            return problem
        found.files[name] = len(result.label)
        return None

    def _finish(self, number: int, found: _Open) -> None:
        """Write what is one file for all of a partition's images, its record last, and rename."""
        order = sorted(found.done)
        if self._label_format == "rle" and any(found.done[i][0] for i in order):
            self._write(found, "labels.jsonl", b"".join(found.done[i][0] for i in order))
        if self._box_format is not None:
            lines = b"".join(found.done[i][1] for i in order)
            if self._box_format == "parquet":
                lines = _as_parquet(lines, self._is_numbered)
            self._write(found, f"boxes.{self._box_format}", lines)
        if found.problems:
            rejects = [
                {"path": printable(self._partitions.paths[i], newlines=True), "reason": problem}
                for i, problem in sorted(found.problems.items())
            ]
            lines = "".join(f"{json.dumps(reject)}\n" for reject in rejects).encode()
            self._write(found, REJECTS, lines)
        places = self._partitions.places(number)
        record = Record(
            first=places.start,
            inputs=len(places),
            done=len(found.done),
            rejected=len(found.problems),
            digest=self._partitions.digest_of(number),
            files=dict(sorted(found.files.items())),
        )
        (found.folder / RECORD).write_bytes(record.to_json())
        readable = (found.folder / RECORD).stat().st_mode & 0o666  # as the user's umask has it
        os.chmod(found.folder, readable | (readable & 0o444) >> 2)
        target = partition_folder(self._output, number)
        os.rename(found.folder, target)  # fails where a folder with files is there
        self._written.add(number)
        self._open.pop(number).stack.close()

    def _write(self, found: _Open, name: str, content: bytes) -> None:
        (found.folder / name).write_bytes(content)
        found.files[name] = len(content)


def _as_parquet(lines: bytes, numbered: bool) -> bytes:
    """Lines of COCO's results as a table: image_id, category_id, bbox, score.

    Args:
        lines: of JSON.
        numbered: whether image ids are numbers, and no names.
    """
    arrow: Any = import_optional("pyarrow", "`box_format` parquet", "topformer_d2[ray]")
    parquet = import_optional("pyarrow.parquet", "`box_format` parquet", "topformer_d2[ray]")
    found = [json.loads(line) for line in lines.splitlines()]
    ids = arrow.int64() if numbered else arrow.string()
    schema = arrow.schema(
        [
            ("image_id", ids),
            ("category_id", arrow.int64()),
            ("bbox", arrow.list_(arrow.float64())),
            ("score", arrow.float64()),
        ]
    )
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.Table.from_pylist(found, schema=schema), sink)
    return sink.getvalue().to_pybytes()

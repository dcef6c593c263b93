"""A whole run: what is missing is predicted and written, and at the end all is counted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ...data.images import MAX_PIXELS
from ...errors import InputError
from ...files import check_output, is_remote, locked_output, writing_beside
from ..prediction_files import image_ids_of, output_names
from ..results import check_results
from .manifest import note_counts, open_manifest
from .partitions import (
    PARTITION_SIZE,
    Partitions,
    done_partitions,
    partition_folder,
    read_lines,
)
from .reading import some_of
from .work import Engine, Work, in_process
from .writer import REJECTS, PartitionWriter


@dataclass(frozen=True)
class BulkResult:
    """What a run has come to.

    Attributes:
        inputs: images.
        done: that are predicted, now or by earlier runs.
        rejected: that could not be.
        earlier: of the `done`, those by earlier runs.
    """

    inputs: int
    done: int
    rejected: int
    earlier: int


def predict_in_bulk(
    predictor: Any,
    paths: Sequence[str],
    output: str | os.PathLike,
    *,
    identity: Mapping[str, Any],
    engine: Engine = in_process,
    label_format: str = "png",
    box_format: str = "jsonl",
    max_pixels: int = MAX_PIXELS,
    partition_size: int = PARTITION_SIZE,
) -> BulkResult:
    """Predict images in partitions, each of which is written once and whole, or not at all.

    A partition's folder `part-000000` is written beside and renamed. A run that ends early, however
    it ends, leaves whole partitions, and the next one does the others. `output` then has

        part-000000/record.json        says that the partition is done
        part-000000/labels/<name>_label.png, of label_format "png", where pixels are labelled;
        part-000000/labels.jsonl       of "rle": a line an image, as Scene.to_dict has labels
        part-000000/boxes.jsonl        where boxes are found: COCO's results, or .parquet
        part-000000/rejects.jsonl      where images could not be done: path and reason
        rejects.jsonl, manifest.json   of all

    Names and image ids are those of write_predictions for the same paths.

    Args:
        predictor: a Predictor, which is sent to other processes where the engine has some.
        paths: of images, sorted and each once, as from list_inputs.
        output: folder on this machine, or one that all see; no other run may write there now.
        identity: of the model, from identify_model; a later run must have the same.
        engine: where the work is done: in_process, or a RayEngine.
        label_format: "png" or "rle".
        box_format: "jsonl" or "parquet".
        max_pixels: of an image; a larger one is rejected.
        partition_size: images of a partition.

    Raises:
        InputError: `output` is in use, has results of something else or damaged ones, or the
            model's boxes have no category ids.
        OSError: one that the next image would meet as well, such as a full disk.
    """
    if is_remote(output):
        raise InputError(
            f"`output` {os.fspath(output)} is a remote store's, which renames no folder: name a "
            "folder on this machine, and copy it when all is done"
        )
    info = predictor.info
    finds_boxes = "instances" in info.tasks
    folder = Path(output)
    if finds_boxes:
        check_results(os.fspath(folder / f"part-000000/boxes.{box_format}"), info)
    names = output_names(paths)
    dataset = info.objects.dataset if finds_boxes else ""
    partitions = Partitions(paths, names, image_ids_of(paths, names, dataset), partition_size)
    work = Work(predictor, label_format, max_pixels, some_of(paths))
    formats = {"label_format": label_format, "box_format": box_format}
    writer = PartitionWriter(folder, partitions, **formats, finds_boxes=finds_boxes)
    made_of = {
        "model": dict(identity),
        "settings": {
            "labels": label_format if "sem_seg" in info.tasks else None,
            "boxes": box_format if finds_boxes else None,
            "max_pixels": max_pixels,
        },
        "inputs": {
            "count": len(paths),
            "sha256": partitions.digest,
            "partition_size": partition_size,
        },
    }
    with locked_output(folder, "predicting images"):
        if (folder / REJECTS).is_dir():
            raise InputError(
                f"{folder / REJECTS} is a folder, and the run writes a file of this name: move it "
                "away, or name another `output`"
            )
        check_output(folder / REJECTS, "output")
        open_manifest(folder, made_of)
        records = done_partitions(folder, partitions)
        missing = [number for number in range(len(partitions)) if number not in records]
        if missing:
            _predict(engine, work, writer, partitions, missing)
        return _account(folder, partitions, sum(record.done for record in records.values()))


def _predict(
    engine: Engine,
    work: Work,
    writer: PartitionWriter,
    partitions: Partitions,
    missing: Sequence[int],
) -> None:
    """Predict the partitions that are missing, and show how far it is."""
    total = len(partitions.paths)
    settled = total - sum(len(partitions.places(number)) for number in missing)
    results = engine((partitions.items(number) for number in missing), work)
    with writer, closing(results), tqdm(total=total, initial=settled, unit="image") as shown:
        for some in results:
            shown.update(sum(map(writer.add, some)))


def _account(folder: Path, partitions: Partitions, earlier: int) -> BulkResult:
    """Count what is on the disk, and write what is one file for all partitions."""
    records = done_partitions(folder, partitions)
    done = sum(record.done for record in records.values())
    rejected = sum(record.rejected for record in records.values())
    inputs = len(partitions.paths)
    if done + rejected != inputs:
        raise InputError(
            f"{folder}: {done} images are done and {rejected} rejected, of {inputs}: run the same "
            "command again, which does the others"
        )
    rejects = [partition_folder(folder, number) / REJECTS for number in sorted(records)]
    with writing_beside(folder / REJECTS) as file:
        file.writelines(read_lines(rejects))
    counts = {"inputs": inputs, "done": done, "rejected": rejected, "partitions": len(records)}
    note_counts(folder, counts)
    return BulkResult(inputs, done, rejected, earlier)

"""What is done to the images of a partition, wherever that is: they are read, then predicted."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...data.images import encode_image
from ...data.scene import Scene
from ...errors import InputError
from ..batches import BatchPredictor, FilePrediction, noting_trouble, one_ahead
from ..prediction_files import LABEL
from ..results import result_lines
from .partitions import Item
from .reading import read_pixels

LABEL_FORMATS = ("png", "rle")
# Images are handed on when they have so many bytes, so that large ones do not fill the memory.
BLOCK_BYTES = 1 << 24


class Result(NamedTuple):
    """What became of one image.

    Attributes:
        partition, place: as an Item's.
        label: the content of its PNG, or its line of label maps as RLE; None = there is none.
        boxes: its lines of COCO's results; None = there are none.
        problem: one line that names the file; None = it is done.
    """

    partition: int
    place: int
    label: bytes | None = None
    boxes: bytes | None = None
    problem: str | None = None


Read = tuple[Item, FilePrediction]
# From the partitions, each a list of images, and the work to the results, in any order.
Results = Generator[list[Result], None, None]
Engine = Callable[[Iterable[Sequence[Item]], "Work"], Results]


@dataclass
class Work:
    """The two steps, which may run in two processes: reading, and predicting with one model.

    Attributes:
        predictor: a Predictor, or what is called as it is and has its `info` and `backend.batch`;
            it can be pickled.
        label_format: one of LABEL_FORMATS.
        max_pixels: of an image; a larger one is not read.
        others: paths of a few images of the run, by which it is found whether one that cannot be
            read is the only one.
    """

    predictor: Any
    label_format: str
    max_pixels: int
    others: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.label_format not in LABEL_FORMATS:
            raise InputError(
                f"`label_format` is {self.label_format!r}; known: {', '.join(LABEL_FORMATS)}"
            )
        self._batches = BatchPredictor(self.predictor, self.predictor.backend.batch)

    def predict(self, batch: Sequence[Read]) -> list[Result]:
        """The results of images that were read, in their order; the images are let go."""
        self._batches([found for _, found in batch if found.image is not None])
        results = [self._result(item, found) for item, found in batch]
        for _, found in batch:
            found.image = found.scene = None
        return results

    def _result(self, item: Item, found: FilePrediction) -> Result:
        label, boxes = None, None
        if found.scene is not None:
            with noting_trouble(found):
                tasks = self.predictor.info.tasks
                if "sem_seg" in tasks:
                    label = self._label(item, found.scene)
                if "instances" in tasks:
                    ids = self.predictor.info.objects.ids
                    boxes = "".join(result_lines(found.scene, item.image_id, ids)).encode()
        if found.problem is not None:
            return Result(item.partition, item.place, problem=found.problem)
        return Result(item.partition, item.place, label, boxes)

    def _label(self, item: Item, scene: Scene) -> bytes:
        if self.label_format == "png":
            return encode_image(item.name + LABEL, scene.label)
        found = scene.to_dict()
        line = {"image_id": item.image_id, "size": found["size"], "label": found["label"]}
        return f"{json.dumps(line)}\n".encode()


def read_items(
    items: Sequence[Item], max_pixels: int, others: Sequence[str] = ()
) -> Iterator[list[Read]]:
    """Read images in turn, in lists of up to about BLOCK_BYTES of pixels.

    Args:
        items: to read.
        max_pixels: of an image; a larger one is not read.
        others: as a Work's.
    """
    block: list[Read] = []
    size = 0
    others = [*others, *(item.path for item in items)]
    for item in items:
        found = read_item(item, max_pixels, others)
        block.append((item, found))
        size += 0 if found.image is None else found.image.nbytes
        if size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def read_item(item: Item, max_pixels: int, others: Sequence[str] = ()) -> FilePrediction:
    """Read one image; the arguments are as in read_pixels."""
    found = FilePrediction(item.path)
    with noting_trouble(found):
        found.image = read_pixels(item.path, max_pixels, others)
    return found


def in_process(partitions: Iterable[Sequence[Item]], work: Work) -> Results:
    """The engine that does all in this process, one partition after the other.

    The next images are read, in a thread of its own, while the model predicts.
    """
    for block in one_ahead(_read_in_turn(partitions, work)):
        yield work.predict(block)


def _read_in_turn(partitions: Iterable[Sequence[Item]], work: Work) -> Iterator[list[Read]]:
    for items in partitions:
        yield from read_items(items, work.max_pixels, work.others)

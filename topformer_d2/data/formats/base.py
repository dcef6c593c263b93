"""What a format of datasets is: how the images' labels lie on the disk, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

# The key of an entry of DATASETS.FOLDERS that every format takes: the folder of the images.
IMAGES = "IMAGES"
# An entry of DATASETS.FOLDERS: the path of each key.
Paths = Mapping[str, str]


@dataclass(frozen=True)
class DatasetFormat:
    """One format of datasets; a module of this package defines it.

    Readers that parse more than the names of files do it through source_cache.parse_once, which
    is told the files.

    Attributes:
        name: of the format.
        tasks: that its labels are for: "sem_seg" (pixels), "instances" (boxes) or both.
        keys: of an entry of DATASETS.FOLDERS, beside IMAGES; each is a path.
        class_keys: those of them that name the files which `classes` reads.
        classes: from the paths and the label that is ignored to the fields of Detectron2's metadata
            that say what the classes are; InputError where a file is wrong.
        metadata: from the paths to further fields of Detectron2's metadata.
        records: from the dataset's name and the paths to its Detectron2 records, which the caller
            may change; InputError where a file is missing or wrong.
        labels: of a format for pixels: from the paths to {stem of an image: the fields of its
            record that name its label}, for images that a format for boxes lists. None = the
            format stands alone.
    """

    name: str
    tasks: tuple[str, ...]
    keys: tuple[str, ...]
    class_keys: tuple[str, ...]
    classes: Callable[[Paths, int], dict]
    records: Callable[[str, Paths], list[dict]]
    metadata: Callable[[Paths], dict] = lambda paths: {}
    labels: Callable[[Paths], dict[str, dict]] | None = None

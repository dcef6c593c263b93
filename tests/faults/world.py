"""What is whole, and is then killed or damaged: a dataset, weights, exported files, archives."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.faults.child import Task, run
from tests.helpers import REPOSITORY, photo

# A detector and a segmenter that share their images, small enough for a run of seconds.
SMALL = [
    *("INPUT.CROP.SIZE", "[64, 64]", "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "80"),
    *("SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0", "TEST.EVAL_PERIOD", "0"),
    *("MODEL.DEVICE", "cpu", "SEED", "1"),
]
CONFIG = str(REPOSITORY / "configs/multitask_lite_topformer_t_synthetic.yaml")


def call_tool(name: str, *arguments: object) -> Callable[[], object]:
    """What runs tools/<name>.py (or datasets/<name>.py) in this process, as its command would."""
    folder = "datasets" if name.startswith("prepare_") else "tools"
    path = str(REPOSITORY / folder / f"{name}.py")

    def call() -> None:
        sys.argv = [path, *map(str, arguments)]
        runpy.run_path(path, run_name="__main__")

    return call


def load_libraries() -> None:
    """Import what the verbs import, for the processes that are forked: most of a try's time."""
    for name in ("train", "predict", "export", "convert", "data_prepare"):
        importlib.import_module(f"topformer_d2.cli.{name}")


class World:
    """Whole files below a folder, made once.

    Attributes:
        folder: of all that is made.
        weights: .pth of the small joint model.
        onnx, openvino: it, exported.
        images: a folder of a few photos.
        archive: .zip that prepare_camvid takes.
        voc: folder that prepare_voc_detection takes.
        video: an .avi.
        boxes: COCO JSON; labels: folder of label PNGs; classes: a classes file, all of `images`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.weights = str(folder / "model.pth")
        self.safetensors = str(folder / "model.safetensors")
        self.onnx, self.openvino = str(folder / "model.onnx"), str(folder / "model.xml")
        self.images, self.labels = folder / "images", folder / "labels"
        self.boxes, self.classes = folder / "boxes.json", folder / "classes.txt"
        self.archive, self.voc = folder / "camvid.zip", folder / "voc"
        self.video = str(folder / "video.avi")
        for make in (self._make_data, self._make_models):
            # In a process of its own: the parent forks later, which threads do not survive.
            outcome, _ = run(Task(make, lambda _: "", seconds=600, memory=6000))
            if outcome.status:
                raise RuntimeError(f"{make.__name__} failed:\n{outcome.output}")

    def _make_data(self) -> None:
        import cv2
        import numpy as np

        from topformer_d2.data.synthetic import write_synthetic

        write_synthetic(os.environ["DETECTRON2_DATASETS"], num_train=8, num_val=2, size=(64, 80))
        self.images.mkdir()
        self.labels.mkdir()
        rng = np.random.default_rng(0)
        for i in range(4):
            photo(self.images / f"{i}.png", 60, 80, seed=i)
            label = rng.integers(0, 3, (60, 80)).astype(np.uint8)
            cv2.imwrite(str(self.labels / f"{i}.png"), label)
        self.classes.write_text("road\ncar\nsky\n")
        self.boxes.write_text(json.dumps(_coco()))
        with zipfile.ZipFile(self.archive, "w") as archive:
            for split in ("train", "val", "test"):
                for i in range(3):
                    archive.write(self.images / f"{i}.png", f"CamVid/{split}/{split}{i}.png")
                    archive.write(self.labels / f"{i}.png", f"CamVid/{split}annot/{split}{i}.png")
        _write_voc(self.voc, self.images)
        writer = cv2.VideoWriter(self.video, cv2.VideoWriter_fourcc(*"MJPG"), 10, (80, 64))
        for i in range(12):
            writer.write(np.full((64, 80, 3), 20 * i, np.uint8))
        writer.release()

    def _make_models(self) -> None:
        from tests.helpers import save_untrained
        from topformer_d2.checkpoint import read_weights, save_state_dict
        from topformer_d2.config import load_config
        from topformer_d2.export import export_model

        cfg = load_config(CONFIG, SMALL)
        save_untrained(cfg, self.weights)
        save_state_dict(read_weights(self.weights), self.safetensors)
        images = str(self.images)
        export_model(cfg, self.weights, self.onnx, size=(64, 96), images=images)
        export_model(
            cfg, self.weights, self.openvino, size=(64, 96), images=images, file_format="openvino"
        )

    def fresh(self, name: str) -> Path:
        """An empty folder of this name."""
        folder = self.folder / "work" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def _coco() -> dict:
    return {
        "images": [
            {"id": i + 1, "file_name": f"{i}.png", "width": 80, "height": 60} for i in range(4)
        ],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "spot"}],
        "annotations": [
            {
                **{"id": i + 1, "image_id": i % 4 + 1, "category_id": i % 2 + 1},
                **{"bbox": [5 + i, 6, 20, 14], "area": 280, "iscrowd": 0},
            }
            for i in range(8)
        ],
    }


def _write_voc(folder: Path, images: Path) -> None:
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    for image in images.iterdir():
        shutil.copy(image, folder / "JPEGImages")
        box = "".join(
            f"<{key}>{value}</{key}>"
            for key, value in zip(("xmin", "ymin", "xmax", "ymax"), (3, 4, 30, 40), strict=True)
        )
        (folder / "Annotations" / f"{image.stem}.xml").write_text(
            f"<annotation><filename>{image.name}</filename>"
            "<size><width>80</width><height>60</height><depth>3</depth></size>"
            f"<object><name>cell</name><difficult>0</difficult><bndbox>{box}</bndbox></object>"
            "</annotation>"
        )

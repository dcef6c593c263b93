"""What is trained on: CamVid and BCCD where they are prepared, else images made here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from topformer_d2 import InputError
from topformer_d2.config import load_config
from topformer_d2.data.registered import check_dataset_present
from topformer_d2.data.synthetic import SHAPES, write_synthetic
from topformer_d2.files import write_json

REPOSITORY = Path(__file__).resolve().parents[2]

MODELS = {
    "segmentation": ("seg_topformer_t_camvid", "camvid_sem_seg_train"),
    "detection": ("det_retinanet_lite_topformer_t_bccd", "bccd_train"),
}
# Noise that each device draws for itself would hide a difference.
_STEADY = ["MODEL.TOPFORMER.DROP_PATH_RATE", 0.0, "MODEL.SEM_SEG_HEAD.DROPOUT", 0.0]


@dataclass(frozen=True)
class Setting:
    """Where the checks run, and how long.

    Attributes:
        device: "cuda" or "cpu".
        is_short: tiny sizes, for a CPU.
        folder: of all that is written, to be removed afterwards.
        crop: sides of the training images in pixels.
        batch: images of a training iteration.
        iterations: of a training.
    """

    device: str
    is_short: bool
    folder: str

    @property
    def crop(self) -> int:
        return 64 if self.is_short else 352

    @property
    def batch(self) -> int:
        return 2 if self.is_short else 8

    @property
    def iterations(self) -> int:
        return 4 if self.is_short else 60

    def config(self, kind: str, name: str, *opts: object, device: str = "") -> CfgNode:
        """A training of MODELS[kind] whose OUTPUT_DIR has that name."""
        config, dataset = MODELS[kind]
        own = [
            *("MODEL.DEVICE", device or self.device, "INPUT.CROP.SIZE", [self.crop] * 2),
            *("SOLVER.IMS_PER_BATCH", self.batch, "SOLVER.MAX_ITER", self.iterations),
            *("SOLVER.WARMUP_ITERS", self.iterations // 4, "TEST.EVAL_PERIOD", 0),
            *("DATASETS.TEST", (), "DATALOADER.NUM_WORKERS", 0 if self.is_short else 4),
            *("OUTPUT_DIR", os.path.join(self.folder, name), "SEED", 0),
        ]
        return load_config(self._config_file(kind, config, dataset), [*_STEADY, *own, *opts])

    def _config_file(self, kind: str, config: str, dataset: str) -> str:
        """The shipped config, where its dataset is prepared; else one with images made here."""
        shipped = str(REPOSITORY / "configs" / f"{config}.yaml")
        try:
            if not self.is_short:
                check_dataset_present(dataset)
                return shipped
        except InputError:
            pass
        count, size = (4, (64, 80)) if self.is_short else (48, (360, 480))
        images = write_synthetic(self.folder, num_train=count, num_val=1, size=size)
        entry = {"IMAGES": f"{images}/images/train"}
        if kind == "segmentation":
            classes = os.path.join(self.folder, "classes.txt")
            with open(classes, "w", encoding="utf-8") as file:
                file.write("\n".join(("ground", *SHAPES)))
            entry |= {"LABELS": f"{images}/annotations_detectron2/train", "CLASSES": classes}
        else:
            entry["BOXES"] = f"{images}/annotations/instances_train.json"
        datasets = {"TRAIN": [f"made_{kind}"], "FOLDERS": {f"made_{kind}": entry}}
        content: dict = {"_BASE_": shipped, "DATASETS": datasets}
        if self.is_short:
            content["INPUT"] = {"MIN_SIZE_TRAIN": [64], "MIN_SIZE_TEST": 64}
        path = os.path.join(self.folder, f"{kind}.yaml")
        write_json(path, content)  # which is YAML as well
        return path

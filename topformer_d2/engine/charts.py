"""Charts after evaluation and training; a chart that fails is logged and stops nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable

from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from ..logs import get_logger

logger = get_logger(__name__)


def draw_evaluation_charts(folders: Iterable[str]) -> None:
    """confusion.png and iou.png in each folder that has an evaluation of segmentation.

    In other processes than the main one it does nothing.
    """
    for folder in folders if comm.is_main_process() else ():
        if PathManager.isfile(os.path.join(folder, "sem_seg_evaluation.json")):
            _draw("draw_evaluation", folder)


class DrawCurves(HookBase):
    """When training ends or is stopped, draws metrics.json as curves.png.

    It comes after the hook that writes metrics.json, on the main process.
    """

    def __init__(self, folder: str):
        """
        Args:
            folder: where metrics.json is.
        """
        self._folder = folder

    def after_train(self) -> None:
        if PathManager.isfile(os.path.join(self._folder, "metrics.json")):
            _draw("draw_curves", self._folder)


def _draw(name: str, folder: str) -> None:
    try:
        from ..visualization import charts  # matplotlib, which nothing else here needs

        getattr(charts, name)(folder)
    except Exception as e:  # whatever it is, the figures in the files are what counts
        logger.warning("no chart was drawn in %s: %s: %s", folder, type(e).__name__, e)

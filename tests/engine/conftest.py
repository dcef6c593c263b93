"""A training that many tests compare theirs with."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.helpers import SMALL_SEGMENTER
from topformer_d2 import get_config


@dataclass(frozen=True)
class Plain:
    """What a run of 6 iterations with seed 5 gave: nothing of it is to be changed."""

    losses: dict[int, float]
    weights: dict[str, torch.Tensor]
    folder: Path

    def copy(self, folder: Path) -> None:
        """Its OUTPUT_DIR as another, with checkpoints after iterations 2 and 5."""
        shutil.copytree(self.folder, folder)


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory) -> Plain:
    """The uninterrupted run of `options(tmp_path, "5", ...)`."""
    from tests.engine.test_resume import options, run

    folder = tmp_path_factory.mktemp("plain")
    cfg = get_config("seg_topformer_t_synthetic", [*SMALL_SEGMENTER, *options(folder, "5", "run")])
    return Plain(*run(cfg), folder / "run")

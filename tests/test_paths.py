"""Path objects are taken wherever text is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from topformer_d2 import get_config
from topformer_d2.checkpoint import read_weights, save_state_dict
from topformer_d2.config import load_config
from topformer_d2.data.image_files import list_images
from topformer_d2.data.images import read_image, read_label, write_image
from topformer_d2.files import check_output, read_json, read_text, write_beside, write_json


def _weights(path: Path) -> None:
    save_state_dict({"x": torch.ones(2)}, path)
    assert read_weights(path)["x"].tolist() == [1, 1]


def _picture(path: Path) -> None:
    write_image(path, np.zeros((4, 6), np.uint8))
    assert read_image(path).shape == (4, 6, 3) and read_label(path).shape == (4, 6)
    assert list_images(path) == list_images(path.parent) == [str(path)]


def _json(path: Path) -> None:
    write_json(path, {"a": np.float32("nan"), "b": np.arange(2), "c": np.int64(3)})
    assert read_json(path) == {"a": None, "b": [0, 1], "c": 3}
    write_beside(path, b"x")
    assert read_text(path) == "x"
    check_output(path, "json")


def _config(path: Path) -> None:
    path.write_text(get_config(Path("seg_topformer_t_synthetic.yaml")).dump())
    assert load_config(path).MODEL.META_ARCHITECTURE


@pytest.mark.parametrize(
    ("use", "name"),
    [
        *((_weights, "x.pth"), (_weights, "x.safetensors"), (_picture, "x.png")),
        *((_json, "x.json"), (_config, "x.yaml")),
    ],
)
def test_a_path_is_taken(tmp_path, use, name):
    use(tmp_path / name)

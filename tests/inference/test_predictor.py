"""Detectron2's DefaultPredictor, on this project's models."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import photo, save_untrained
from topformer_d2 import get_config
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.data.images import read_image
from topformer_d2.errors import InputError
from topformer_d2.inference import Predictor, build_predictor

CONFIG = "seg_topformer_t_synthetic"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_untrained(get_config(CONFIG), tmp_path_factory.mktemp("weights") / "m.safetensors")


def test_default_predictor_in_a_script_of_its_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np, topformer_d2\n"
        "from detectron2.engine import DefaultPredictor\n"
        "predictor = DefaultPredictor(topformer_d2.get_config('seg_topformer_t'))\n"
        "for h, w in ((50, 70), (301, 203)):\n"
        "    image = np.full((h, w, 3), 90, np.uint8)\n"
        "    print(tuple(predictor(image)['sem_seg'].shape))\n"
    )
    result = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert result.stdout.splitlines()[-2:] == ["(150, 50, 70)", "(150, 301, 203)"], result.stderr


def test_predictor_resizes_as_the_evaluation_does(weights, tmp_path):
    predictor = build_predictor(get_config(CONFIG), weights)
    image = read_image(photo(tmp_path / "a.png"))
    out = predictor(image)["sem_seg"]
    small = cv2.resize(image[:, :, ::-1], (171, 128))
    tensor = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))
    with torch.no_grad():
        expected = predictor.model([{"image": tensor, "height": 90, "width": 120}])[0]["sem_seg"]
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_weights_that_fit_in_part_are_refused(weights, tmp_path):
    with pytest.raises(InputError, match=r"classifier\.weight is \(6, .*NUM_CLASSES"):
        Predictor(get_config(CONFIG, ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "9"]), weights)
    backbone = {k: v for k, v in load_file(weights).items() if k.startswith("backbone.")}
    path = str(tmp_path / "backbone.pth")
    save_state_dict(backbone, path)
    with pytest.raises(InputError, match=r"sem_seg_head\.\S+ is missing"):
        Predictor(get_config(CONFIG), path)

"""LiteRT files in 8-bit integers: what is in them, and that they answer alike."""

import os
from importlib.util import find_spec

import numpy as np
import pytest

from tests.helpers import exported
from topformer_d2.data.image_files import list_images
from topformer_d2.data.images import read_image
from topformer_d2.errors import InputError
from topformer_d2.export.quantize import quantize_model
from topformer_d2.inference import Predictor
from topformer_d2.inference.formats import FORMATS

pytestmark = pytest.mark.slow  # the converter takes half a minute


@pytest.fixture
def images():
    return os.path.join(os.environ["DETECTRON2_DATASETS"], "synthetic", "images", "train")


def test_it_answers_as_before(trained, tmp_path, images):
    for library in (*FORMATS["litert"].libraries, "ai_edge_quantizer"):
        if find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    cfg, _, weights = trained("multitask_lite_topformer_t_synthetic", "INPUT.MIN_SIZE_TEST", "64")
    path, output = (str(tmp_path / name) for name in ("m.tflite", "int8.tflite"))
    exported(cfg, weights, path, file_format="litert", size=(64, 80))
    assert quantize_model(path, images, output) == 12
    assert sorted(os.listdir(tmp_path)) == [
        *("int8.json", "int8.tflite", "m.json", "m.tflite", "weights.pth")
    ]
    assert os.path.getsize(output) < 0.45 * os.path.getsize(path)
    before, after = Predictor(path, num_threads=1), Predictor(output, num_threads=1)
    assert after.info == before.info
    assert after.backend.export.precision == "int8"
    pictures = [read_image(file) for file in list_images(images)]
    scenes = zip(before(pictures), after(pictures), strict=True)
    assert np.mean([(a.label == b.label).mean() for a, b in scenes]) > 0.8
    with pytest.raises(InputError, match="8-bit integers already"):
        quantize_model(output, images, path)

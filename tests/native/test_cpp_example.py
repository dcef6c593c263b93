"""The C++ program of examples/cpp, built as its page says and run on an exported joint model."""

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers import exported, photo, save_untrained
from topformer_d2 import Predictor, get_config
from topformer_d2.data.images import read_image

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/cpp"
HEADERS = ("nlohmann/json.hpp", "stb/stb_image.h")
MISSING = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
MISSING += [name for name in HEADERS if not Path("/usr/include", name).exists()]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("cpp_example"),  # which is compiled once
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    openvino = pytest.importorskip("openvino.utils")
    folder = tmp_path_factory.mktemp("cpp")
    found = f"-DOpenVINO_DIR={openvino.get_cmake_path()}"
    for words in (["-S", EXAMPLE, "-B", folder, found], ["--build", folder]):
        built = subprocess.run(["cmake", *words], capture_output=True, text=True)
        assert built.returncode == 0, built.stdout + built.stderr
    return folder / "predict"


def run(program, model, image, output):
    found = subprocess.run([program, model, image, output], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


@pytest.mark.parametrize("size", [None, (96, 128)])
def test_its_pixels_are_the_predictors(program, tmp_path, size):
    cfg = get_config("camvid_t", ["INPUT.MIN_SIZE_TEST", "100"])
    flags = {"file_format": "openvino", "size": size}
    model = exported(cfg, cfg.MODEL.WEIGHTS, tmp_path / "pixels.xml", **flags)
    image = photo(tmp_path / "street.png", 90, 120)
    lines = run(program, model, image, tmp_path / "seen.png")
    predictor = Predictor(model)
    expected = predictor(read_image(image)).label
    painted = cv2.imread(str(tmp_path / "seen.png"))[:, :, ::-1]
    colors = np.array(predictor.info.pixels.colors, np.uint8)
    # OpenCV resizes in fixed point, so that some values of the input differ by 1 of 255.
    assert (painted == colors[expected]).all(axis=2).mean() > 0.99
    shares = dict(line.removesuffix("%").rsplit(maxsplit=1) for line in lines)
    counts = np.bincount(expected.ravel())
    for name, count in zip(predictor.info.pixels.names, counts, strict=False):
        assert float(shares.get(name, 0)) == pytest.approx(100 * count / expected.size, abs=1.0)


@pytest.mark.parametrize("size", [None, (96, 128)])
def test_its_boxes_are_the_predictors(program, tmp_path, size):
    cfg = get_config("multitask_lite_topformer_t", ["INPUT.MIN_SIZE_TEST", "100"])
    weights = save_untrained(cfg, tmp_path / "joint.pth")
    flags = {"file_format": "openvino", "size": size}
    model = exported(cfg, weights, tmp_path / "raw.xml", raw_boxes=True, **flags)
    image = photo(tmp_path / "street.png", 90, 120)
    lines = run(program, model, image, tmp_path / "seen.png")
    found = np.array([line.rsplit(maxsplit=5)[-4:] for line in lines if "%" not in line], float)
    expected = Predictor(exported(cfg, weights, tmp_path / "boxes.xml", **flags))(read_image(image))
    expected = expected.boxes[expected.scores > 0.5]
    assert len(found) == len(expected) == 100
    # Scores are so near to each other that some boxes change places, and at the end some are left
    # out.
    distances = np.abs(found[:, None] - expected).max(axis=2).min(axis=1)
    assert (distances < 0.5).mean() > 0.95


@pytest.mark.parametrize("flag", [{}, {"labels": True, "raw_boxes": True}])
def test_what_is_done_in_the_graph_is_refused(program, tmp_path, flag):
    cfg = get_config("multitask_lite_topformer_t", ["INPUT.MIN_SIZE_TEST", "100"])
    weights = save_untrained(cfg, tmp_path / "joint.pth")
    flags = {"file_format": "openvino", "size": (96, 128), **flag}
    model = exported(cfg, weights, tmp_path / "joint.xml", **flags)
    image, output = photo(tmp_path / "street.png"), tmp_path / "seen.png"
    found = subprocess.run([program, model, image, output], capture_output=True, text=True)
    assert found.returncode == 1 and not output.exists()
    assert ("--labels" if flag else "--raw-boxes") in found.stderr


@pytest.mark.parametrize(("model", "image"), [("none.xml", "a.png"), ("", "")])
def test_what_it_cannot_read_is_an_error(program, tmp_path, model, image):
    run = subprocess.run(
        [program, tmp_path / model, tmp_path / image, tmp_path / "o.png"], capture_output=True
    )
    assert run.returncode == 1 and not (tmp_path / "o.png").exists()

"""The page's resizing and normalisation, run by Node.js, held against the Predictor's."""

import dataclasses
import json
import shutil
import subprocess

import cv2
import numpy as np
import pytest

from tests.helpers import REPOSITORY
from tests.inference.test_export_info import make_info
from tests.web.test_decoder import SCRIPTS

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


def draw_cases(count):
    """Descriptions and images: random sizes up and down, halves, chains, both channel orders."""
    rng = np.random.default_rng(0)
    sizes = [(128, 96), (100, 50), (33, 100), (1, 1), (64, 64)]
    sizes += [tuple(int(n) for n in rng.integers(1, 220, 2)) for _ in range(count - len(sizes))]
    for i, size in enumerate(sizes):
        info = make_info()
        model = dataclasses.replace(
            info.model,
            image_format=("RGB", "BGR")[i % 2],
            short_side=int(rng.choice([0, 64, 150])),
            long_side=int(rng.choice([100, 200])),
            size_divisor=int(rng.choice([1, 32])),
        )
        fixed = tuple(int(n) for n in rng.integers(1, 150, 2)) if i % 3 == 2 else None
        if i < 2:
            fixed = size[0] // 2, size[1] // 2
        yield dataclasses.replace(info, model=model, size=fixed, batch=1), size


def expected(info, image):
    """The Predictor's steps: (height, width, 3) BGR and (3, height, width) float32."""
    if info.size is None:
        image = info.model.resizing().get_transform(image).apply_image(image)
    else:
        image = cv2.resize(image, info.size[::-1], interpolation=cv2.INTER_LINEAR)
    mean, std = np.array([info.model.pixel_mean, info.model.pixel_std], np.float32)[:, :, None]
    tables = (np.arange(256, dtype=np.float32) - mean) / std
    ordered = image if info.model.image_format == "BGR" else image[:, :, ::-1]
    channels = np.moveaxis(ordered, 2, 0)
    planes = [table[each] for table, each in zip(tables, channels, strict=True)]
    return image, np.stack(planes)


def test_the_networks_input_is_the_predictors(tmp_path):
    rng, cases, answers = np.random.default_rng(1), [], []
    for i, (info, (height, width)) in enumerate(draw_cases(40)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        channels = 3 + i % 2
        seen = cv2.cvtColor(image, cv2.COLOR_BGR2RGBA)[:, :, :channels]
        (tmp_path / f"{i}.image").write_bytes(np.ascontiguousarray(seen).tobytes())
        description = json.loads(info.to_json())
        sides = {"height": height, "width": width, "channels": channels}
        cases.append({"description": description, **sides})
        answers.append(expected(info, image))
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    words = ["node", REPOSITORY / "tests/web/pixels.mjs", SCRIPTS, tmp_path]
    subprocess.run(words, check=True, timeout=300)
    for i, (image, planes) in enumerate(answers):
        assert tuple(json.loads((tmp_path / f"{i}.size").read_text())) == image.shape[:2]
        pixels = np.fromfile(tmp_path / f"{i}.pixels", np.uint8).reshape(image.shape)
        # OpenCV's own forms for other processors may differ by one.
        different = np.abs(pixels[:, :, ::-1].astype(int) - image)
        assert different.max() <= 1 and np.mean(different) < 1e-3, cases[i]
        found = np.fromfile(tmp_path / f"{i}.input", np.float32).reshape(planes.shape)
        if not different.any():
            assert np.array_equal(found, planes)
    assert len(answers) == 40

"""The page of joint models in Chromium: label map and boxes are Python's, drawn and listed."""

import cv2
import numpy as np
import pytest

from tests.helpers import exported
from tests.web.browser import NEEDS, Browser, Serving
from tests.web.conftest import JOINT, picture
from topformer_d2 import get_config
from topformer_d2.data.synthetic import make_sample
from topformer_d2.web import SiteServer, model_for_web, runtime_files, write_site

pytestmark = NEEDS


def listed(browser):
    """The rows of the page's list of objects."""
    return browser.js(
        "return [...document.querySelectorAll('#objects li')].map((e) => e.innerText)"
    )


@pytest.mark.parametrize("decoded", ["by the page", "in the graph"])
def test_labels_and_boxes_of_a_joint_model(made, tmp_path, decoded):
    site, predictor = made(JOINT)
    if decoded == "in the graph":
        cfg = get_config(JOINT, ["MODEL.DEVICE", "cpu"])
        model = exported(cfg, str(site.parent.parent / "joint.pth"), tmp_path / "joint.onnx")
        info = model_for_web(model, None, tmp_path)[1]
        site = tmp_path / "site"
        write_site(site, model, info, JOINT, runtime_files(None))
    image = picture(tmp_path / "a.png", 200, 300)
    expected = predictor(image)
    with Serving(SiteServer(site, 0)) as serving, Browser() as browser:
        browser.load(serving.url)
        assert browser.choose(tmp_path / "a.png"), browser.said()
        assert np.mean(browser.labels() == expected.label) >= 0.999
        found = browser.js("return topformer.boxes")
        assert 5 < len(found) == len(expected.scores)
        scores = np.array([each["score"] for each in found])
        np.testing.assert_allclose(scores, expected.scores, atol=1e-3)
        boxes = np.array([each["box"] for each in found])
        # Boxes of nearly equal scores may be in another order.
        distances = np.abs(boxes[:, None] - expected.boxes[None]).max(axis=2)
        same = np.array([each["index"] for each in found])[:, None] == expected.classes[None]
        assert np.mean(((distances < 0.1) & same).any(axis=1)) > 0.95
        assert len(listed(browser)) == np.sum(expected.scores >= 0.5)


def test_the_demos_boxes_are_drawn_and_listed(made, tmp_path):
    """In pytest's folder demo.png shows the page."""
    site, predictor = made("demo_t")
    image = np.ascontiguousarray(make_sample(3, 360, 480)[0][:, :, ::-1])
    cv2.imwrite(str(tmp_path / "shapes.png"), image)
    expected = predictor(image)
    assert len(np.unique(expected.label)) > 2
    sure = expected.scores >= 0.5
    boxes = expected.boxes[sure]
    names = [predictor.info.objects.names[i] for i in expected.classes[sure]]
    assert len(names) >= 2
    with Serving(SiteServer(site, 0)) as serving, Browser() as browser:
        browser.load(serving.url)
        assert browser.choose(tmp_path / "shapes.png"), browser.said()
        assert np.mean(browser.labels() != expected.label) <= 0.001
        found = [each for each in browser.js("return topformer.boxes") if each["score"] >= 0.5]
        np.testing.assert_allclose([each["box"] for each in found], boxes, atol=0.1)
        scores = [each["score"] for each in found]
        np.testing.assert_allclose(scores, expected.scores[sure], atol=1e-3)
        assert [row.split("\n")[0] for row in listed(browser)] == names
        drawn = browser.drawn_boxes()
        browser.shot(tmp_path / "demo.png")
    scale = np.array(drawn.shape[::-1] * 2) / (480, 360, 480, 360)
    for x0, y0, x1, y1 in np.round(boxes * scale).astype(int):
        middle = (y0 + y1) // 2
        for x in (x0, x1):
            assert drawn[middle, max(x - 2, 0) : x + 2].max() > 100
    assert np.mean(drawn == 0) > 0.8

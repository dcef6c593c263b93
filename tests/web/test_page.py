"""The page in Chromium: the answers of Python, without freezing, leaking or the network."""

import dataclasses
import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.helpers import REPOSITORY
from tests.web.browser import NEEDS, Browser, Serving, requests_of
from tests.web.conftest import picture
from topformer_d2 import Predictor
from topformer_d2.web import SiteServer, write_site
from topformer_d2.web.site import POLICY

pytestmark = NEEDS
# A photo of a street; docs/web.png is made of it.
STREET = os.environ.get("TOPFORMER_STREET_PHOTO")


@pytest.fixture(scope="module")
def page(made):
    """A Browser that shows the page of camvid_t."""
    with Serving(SiteServer(made("camvid_t")[0], 0)) as serving, Browser() as browser:
        assert browser.load(serving.url) == "wasm"
        browser.url = serving.url
        yield browser


@pytest.mark.parametrize("size", [(360, 480), (517, 333), (720, 1280), (40, 50)])
def test_labels_are_pythons(page, made, tmp_path, size):
    image = picture(tmp_path / "a.png", *size)
    assert page.choose(tmp_path / "a.png"), page.said()
    expected = made("camvid_t")[1](image).label
    assert len(np.unique(expected)) > 1
    different = np.mean(page.labels() != expected)
    print(f"{size}: {100 * different:.4f} % of the pixels differ")
    assert different <= 0.001
    colors = made("camvid_t")[1].info.pixels.colors
    np.testing.assert_array_equal(page.mask(), np.array(colors, np.uint8)[page.labels()])
    shares = page.js("return [...document.querySelectorAll('#classes li')].map((e) => e.innerText)")
    assert len(shares) == len(np.unique(expected))


def test_a_corrupt_file_gives_a_message(page, tmp_path):
    picture(tmp_path / "good.png", 90, 120)
    content = (tmp_path / "good.png").read_bytes()
    (tmp_path / "bad.png").write_bytes(content[:100])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "none.mp4").write_text("no video")
    for name in ("bad.png", "text.jpg", "none.mp4"):
        assert not page.choose(tmp_path / name)
        error = page.driver.find_element("id", "error")
        assert error.is_displayed() and error.text.startswith(f"{name}: ")
    assert page.choose(tmp_path / "good.png")
    assert not page.driver.find_element("id", "error").is_displayed()


def test_a_large_picture_does_not_freeze_the_page(page, made, tmp_path):
    picture(tmp_path / "large.png", 2160, 3840)
    page.js(
        "globalThis.frames_ = []; globalThis.counting = true;"
        "const step = (t) => { frames_.push(t); if (counting) requestAnimationFrame(step); };"
        "requestAnimationFrame(step)"
    )
    assert page.choose(tmp_path / "large.png"), page.said()
    frames = np.array(page.js("counting = false; return frames_"))
    assert page.js("return [topformer.height, topformer.width]") == [2160, 3840]
    milliseconds = sum(page.js("return topformer.milliseconds").values())
    gaps = np.diff(frames)
    print(f"4K: {milliseconds:.0f} ms, {len(frames)} frames, longest gap {gaps.max():.0f} ms")
    assert len(frames) > 10 and gaps.max() < 0.5 * milliseconds
    picture_width = page.js("return document.getElementById('picture').width")
    assert picture_width == 2048
    colors = made("camvid_t")[1].info.pixels.colors
    rows, columns = (((np.arange(n) + 0.5) * 1.875).astype(int) for n in (1152, 2048))
    expected = np.array(colors, np.uint8)[page.labels()[np.ix_(rows, columns)]]
    np.testing.assert_array_equal(page.mask(), expected)


def test_memory_is_bounded(page, tmp_path):
    sizes = [(360, 480), (480, 360), (720, 960), (90, 640)]
    paths = [tmp_path / f"{i}.png" for i in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        picture(path, *size)
    page.choose(*paths * 5)
    before = page.memory()
    page.choose(*paths * 25)
    after = page.memory()
    print(f"memory: {before / 2**20:.0f} MB after 20 images, {after / 2**20:.0f} after 120")
    assert after < before + 100 * 2**20


def test_no_request_leaves_the_machine(made, tmp_path):
    site, _ = made("camvid_t")
    picture(tmp_path / "a.png", 90, 120)
    log = tmp_path / "net.json"
    with Serving(SiteServer(site, 0)) as serving:
        with Browser(f"log-net-log={log}") as browser:
            browser.load(serving.url)
            assert browser.choose(tmp_path / "a.png")
            tried = browser.driver.execute_async_script(
                "const done = arguments[arguments.length - 1];"
                "fetch('http://127.0.0.1:9/').then(() => done('sent'), (e) => done('refused'))"
            )
            assert tried == "refused" and "connect-src" in " ".join(browser.said())
        found = requests_of(log, serving.url.rstrip("/"))
        assert {f"{serving.url}{name}" for name in ("model.onnx", "site.json")} <= set(found)
        assert [address for address in found if not address.startswith(serving.url)] == []


def test_it_works_offline_and_has_threads_at_the_second_visit(made, tmp_path):
    """From a server that sends no headers of its own."""
    site, predictor = made("camvid_t")
    image = picture(tmp_path / "a.png", 90, 120)
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.url = f"http://127.0.0.1:{server.server_address[1]}/"
    with Browser() as browser:
        with Serving(server):
            browser.load(server.url)
            assert browser.js("return crossOriginIsolated") is False
            assert "1 thread)" in browser.said()[0]
        browser.load(server.url)  # the server is gone
        assert browser.js("return crossOriginIsolated") is True
        policy = "(await fetch('scripts/worker.js')).headers.get('Content-Security-Policy')"
        assert browser.js(f"return (async () => {policy})()") == POLICY
        if browser.js("return navigator.hardwareConcurrency") > 1:
            assert "threads)" in browser.said()[0]
        assert browser.choose(tmp_path / "a.png"), browser.said()
        assert np.mean(browser.labels() == predictor(image).label) >= 0.999


def test_a_changed_site_replaces_the_kept_one(made, tmp_path):
    site, _ = made("camvid_t")
    model = site / "model.onnx"
    info = Predictor(str(model)).backend._session.export
    runtime = {path.name: path.read_bytes() for path in (site / "runtime").iterdir()}
    renamed = dataclasses.replace(
        info.model.pixels, names=tuple(f"new {name}" for name in info.model.pixels.names)
    )
    changed = dataclasses.replace(info, model=dataclasses.replace(info.model, pixels=renamed))
    picture(tmp_path / "a.png", 90, 120)
    write_site(tmp_path / "site", model, info, "old title", runtime)
    with Serving(SiteServer(tmp_path / "site", 0)) as serving, Browser() as browser:
        browser.load(serving.url)
        write_site(tmp_path / "site", model, changed, "new title", runtime)
        browser.driver.get(serving.url)  # the old one, which loads the new one
        browser.wait("document.title.startsWith('new title')")
        browser.wait("document.documentElement.dataset.ready")
        browser.choose(tmp_path / "a.png")
        assert browser.js("return document.querySelector('#classes').innerText").startswith("new ")


def test_videos_and_the_camera(made, tmp_path):
    site, _ = made("camvid_t")
    writer = cv2.VideoWriter(
        str(tmp_path / "a.webm"), cv2.VideoWriter_fourcc(*"VP80"), 10, (160, 120)
    )
    if not writer.isOpened():
        pytest.skip("OpenCV writes no VP8 here")
    for i in range(20):
        writer.write(np.full((120, 160, 3), 12 * i, np.uint8))
    writer.release()
    fake = ("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream")
    with Serving(SiteServer(site, 0)) as serving, Browser(*fake) as browser:
        browser.load(serving.url)
        assert browser.choose(tmp_path / "a.webm"), browser.said()
        browser.wait("globalThis.topformer?.width === 160")
        first = browser.js("return globalThis.before = topformer.labels.buffer, topformer.name")
        assert first == "Video"
        browser.wait("topformer.labels.buffer !== before")
        browser.driver.find_element("id", "play").click()
        browser.wait("document.getElementById('play').textContent === 'Play'")
        browser.driver.find_element("id", "camera").click()
        browser.wait("topformer.width > 160")
        assert not browser.driver.find_element("id", "player").is_displayed()
        browser.driver.find_element("id", "camera").click()
        browser.wait("document.getElementById('video').srcObject === null")
        picture(tmp_path / "a.png", 90, 120)
        assert browser.choose(tmp_path / "a.png")
        browser.wait("topformer.name === 'a.png'")


def test_the_class_is_read_by_pointer_and_by_keyboard(page, tmp_path):
    from selenium.webdriver import ActionChains, Keys

    picture(tmp_path / "a.png", 360, 480)
    page.choose(tmp_path / "a.png")
    labels = page.labels()
    names = page.js("return [...document.querySelectorAll('#classes li')].map((e) => e.innerText)")
    stage = page.driver.find_element("id", "stage")
    ActionChains(page.driver).move_to_element(stage).perform()
    reading = page.driver.find_element("id", "reading")
    assert reading.is_displayed()
    middle = labels[170:190, 230:250]
    if len(np.unique(middle)) == 1:
        assert any(name.startswith(reading.text) for name in names)
    stage.send_keys(Keys.ARROW_LEFT)
    assert page.js("return document.getElementById('spoken').textContent") == reading.text
    assert page.driver.find_element("id", "cross").is_displayed()
    # What takes the focus has a name.
    for each in page.driver.find_elements("css selector", "button, input, a, [tabindex]"):
        if each.is_displayed():
            assert each.accessible_name, each.get_attribute("outerHTML")


LOOKS = {
    "web": ((1280, 850), False),
    "dark": ((1280, 800), True),
    "phone": ((390, 844), False),
}


@pytest.mark.skipif(not STREET, reason="TOPFORMER_STREET_PHOTO names no photo")
@pytest.mark.parametrize("look", LOOKS)
def test_pictures_of_the_page(made, tmp_path, look):
    """docs/web.png, and beside it in pytest's folder the dark look and a phone's screen."""
    size, is_dark = LOOKS[look]
    with Serving(SiteServer(made("camvid_t")[0], 0)) as serving, Browser(size=size) as browser:
        features = [{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}]
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1}
        metrics["mobile"] = look == "phone"
        browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.load(serving.url)
        for _ in range(3):  # the first takes longer
            assert browser.choose(Path(STREET).resolve())
        assert browser.js("return document.documentElement.scrollWidth") <= size[0]
        browser.js("document.activeElement.blur()")
        browser.shot(tmp_path / f"{look}.png")
    if look == "web":
        with Image.open(tmp_path / "web.png") as shot:
            shot.convert("RGB").save(REPOSITORY / "docs/web.png", optimize=True)

"""A page of `topformer web` in Chromium, for the tests."""

import base64
import json
import shutil
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from topformer_d2.web.runtime import PACKAGE, VERSION, cache_folder

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
PATIENCE = 120
KEPT = cache_folder() / f"{PACKAGE}-{VERSION}.tgz"
# Of the tests in a browser.
NEEDS = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium or its driver is missing"),
    pytest.mark.skipif(find_spec("selenium") is None, reason="selenium is missing"),
    pytest.mark.skipif(find_spec("onnxruntime") is None, reason="exporting needs onnxruntime"),
    pytest.mark.skipif(
        not KEPT.exists(), reason="topformer web has not fetched ONNX Runtime Web yet"
    ),
]


class Browser:
    """Chromium with a profile of its own, without a window."""

    def __init__(self, *options, size=(1280, 900)):
        from selenium import webdriver

        self._profile = tempfile.TemporaryDirectory(prefix="topformer_chromium_")
        settings = webdriver.ChromeOptions()
        settings.binary_location = CHROMIUM
        for option in (
            *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"),
            *(f"user-data-dir={self._profile.name}", f"window-size={size[0]},{size[1]}"),
            *("hide-scrollbars", "force-color-profile=srgb", *options),
        ):
            settings.add_argument(f"--{option}")
        settings.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(settings, webdriver.ChromeService(DRIVER))
        self.driver.set_script_timeout(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.driver.quit()
        self._profile.cleanup()

    def js(self, code, *values):
        return self.driver.execute_script(code, *values)

    def wait(self, code, *values):
        """What an expression of JavaScript is, once that is true."""
        end = time.monotonic() + PATIENCE
        while not (found := self.js(f"return {code}", *values)):
            assert time.monotonic() < end, f"{code}: {self.said()}"
            time.sleep(0.05)
        return found

    def load(self, url):
        """Open the page, and wait for its model: "wasm" or "webgpu"."""
        self.driver.get(url)
        return self.wait("document.documentElement.dataset.ready")

    def said(self):
        """The page's status and error, and the browser's log."""
        texts = self.js(
            "return ['status', 'error'].map((id) => document.getElementById(id)?.textContent)"
        )
        return [*(texts or []), *(entry["message"] for entry in self.driver.get_log("browser"))]

    def choose(self, *paths):
        """Open files by the page's button, one by one; True where the last one is shown."""
        for path in paths:
            self.js("document.documentElement.dataset.state = ''")
            field = self.driver.find_element("id", "file")
            field.send_keys(str(path))
            self.wait("['done', 'failed'].includes(document.documentElement.dataset.state)")
        return self.js("return document.documentElement.dataset.state") == "done"

    def labels(self):
        """The label map of the picture that is shown."""
        return self._array(
            "const { labels: bytes, width, height } = topformer, shape = [height, width];"
        )

    def mask(self):
        """The colours of the layer of the classes, (H, W, 3) uint8 RGB."""
        pixels = self._array(
            "const mask = document.getElementById('mask'), { width, height } = mask;"
            "const context = new OffscreenCanvas(width, height).getContext('2d');"
            "context.drawImage(mask, 0, 0);"
            "const bytes = context.getImageData(0, 0, width, height).data;"
            "const shape = [height, width, 4];"
        )
        return pixels[:, :, :3]

    def drawn_boxes(self):
        """The opacity of each pixel of the layer that boxes are drawn on, (H, W) uint8."""
        pixels = self._array(
            "const canvas = document.getElementById('boxes'), { width, height } = canvas;"
            "const bytes = canvas.getContext('2d').getImageData(0, 0, width, height).data;"
            "const shape = [height, width, 4];"
        )
        return pixels[:, :, 3]

    def _array(self, code):
        """What JavaScript leaves in `bytes`, an array of uint8, and `shape`."""
        shape, text = self.js(
            f"{code} let text = '';"
            "for (let i = 0; i < bytes.length; i += 8192)"
            " text += String.fromCharCode(...bytes.subarray(i, i + 8192));"
            "return [shape, btoa(text)]"
        )
        return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)

    def memory(self):
        """Bytes that all processes of the browser hold for themselves."""
        total, mine = 0, str(self._profile.name)
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mine.encode() in (folder / "cmdline").read_bytes():
                    lines = (folder / "smaps_rollup").read_text().splitlines()
                    total += sum(
                        int(line.split()[1]) for line in lines if line.startswith("Private_")
                    )
            except OSError:
                continue
        return total * 1024

    def shot(self, path):
        self.driver.save_screenshot(str(path))


def requests_of(net_log, origin):
    """The addresses that pages of an origin and their workers asked for, in Chromium's net log."""
    content = json.loads(Path(net_log).read_text())
    found = [event.get("params", {}) for event in content["events"]]
    return [each["url"] for each in found if each.get("initiator") == origin and "url" in each]


class Serving:
    """A site at 127.0.0.1, in a thread."""

    def __init__(self, server):
        self.server, self.url = server, server.url
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

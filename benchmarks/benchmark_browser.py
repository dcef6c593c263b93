#!/usr/bin/env python
"""Time a page of `topformer web` in Chromium, beside the Predictor in ONNX Runtime.

Pictures of smooth colours are opened in the page, of each size several in turn, with one thread
and with as many as the page takes; "network" and "the rest" are the page's own figures, in
milliseconds: medians, without the first picture of a size. It needs Selenium and Chromium's driver,
and what `topformer web` has fetched from npm.
"""

import argparse
import os
import tempfile
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from tabulate import tabulate

from tests.web.browser import Browser, Serving
from topformer_d2 import Predictor
from topformer_d2.errors import show_input_errors
from topformer_d2.web import SiteServer, model_for_web, runtime_files, write_site

SIZES = ((360, 480), (1080, 1920), (2160, 3840))


def write_pictures(folder: Path) -> dict[tuple[int, int], Path]:
    """A PNG of each size."""
    rng, paths = np.random.default_rng(0), {}
    for height, width in SIZES:
        coarse = rng.integers(0, 256, (9, 16, 3)).astype(np.float32)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        paths[height, width] = folder / f"{height}.png"
        cv2.imwrite(str(paths[height, width]), image.clip(0, 255).astype(np.uint8))
    return paths


def time_page(server: ThreadingHTTPServer, paths: dict, repeats: int) -> tuple[str, dict]:
    """The page's status, and for each size the medians of network and rest."""
    found = {}
    with Serving(server) as serving, Browser() as browser:
        browser.load(serving.url)
        status = browser.said()[0]
        for size, path in paths.items():
            times = []
            for _ in range(repeats + 1):
                browser.choose(path)
                times.append(browser.js("return topformer.milliseconds"))
            found[size] = [median(t[part] for t in times[1:]) for part in ("network", "rest")]
    return status, found


def time_predictor(predictor: Predictor, paths: dict, repeats: int) -> dict:
    """For each size the median of all, of a decoded image, in milliseconds."""
    found = {}
    for size, path in paths.items():
        image, times = cv2.imread(str(path)), []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            predictor(image)
            times.append(1000 * (time.perf_counter() - start))
        found[size] = median(times[1:])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="camvid_t", help="as `topformer web` takes it")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    with show_input_errors(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, info = model_for_web(args.model, None, folder)
        write_site(folder / "site", model, info, "benchmark", runtime_files(None))
        paths = write_pictures(folder)
        print(f"load before: {os.getloadavg()[0]:.2f}")
        # Without the headers of ours a page has one thread at the first visit.
        handler = partial(SimpleHTTPRequestHandler, directory=str(folder / "site"))
        plain = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        plain.url = f"http://127.0.0.1:{plain.server_address[1]}/"
        columns = {}
        for server in (plain, SiteServer(folder / "site", 0)):
            status, times = time_page(server, paths, args.repeats)
            print(status)
            columns[status.partition("(")[2].partition(")")[0]] = times
        python = time_predictor(Predictor(str(model), num_threads=1), paths, args.repeats)
        rows = []
        for size in SIZES:
            pairs = [f"{n:.0f} + {rest:.0f}" for n, rest in (c[size] for c in columns.values())]
            rows.append([f"{size[1]}x{size[0]}", *pairs, f"{python[size]:.0f}"])
        heads = ["picture", *columns, "Predictor, 1 thread, without decoding"]
        print(tabulate(rows, heads, tablefmt="github"))
        print(f"load after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()

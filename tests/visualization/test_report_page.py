"""The page of a report: whole, escaped, without the network, and alive in a real browser."""

import base64
import copy
import html
import html.parser
import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest

from topformer_d2.analysis.mistakes import write_page
from topformer_d2.errors import InputError
from topformer_d2.visualization.report import report_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EVIL = '<script>alert("x")</script>&\'"'
PICTURE = base64.b64encode(
    cv2.imencode(".jpg", np.full((8, 8, 3), 90, np.uint8))[1].tobytes()
).decode()
VOID = {"meta", "img", "br", "link", "circle", "path"}


def report(iou=(10.0, 90.0, 50.0), names=("sky", EVIL, "tree")):
    """What describe_mistakes gives, in small."""
    bins = [
        {"count": 2, "confidence": 0.3, "right": 0.5},
        {"count": 2, "confidence": 0.9, "right": 1},
    ]
    bins.append({"count": 0, "confidence": None, "right": None})
    example = {"file": f"a/{EVIL}.jpg", "picture": PICTURE}
    shared = {
        "calibration": {"ece": 0.15, "bins": bins},
        "pairs": [
            {
                **{"labelled": names[0], "predicted": names[1], "count": 7, "share": 70.0},
                "examples": [example],
            }
        ],
        "worst": [
            {
                **{"file": "a/b.jpg", "caption": "mIoU 3.0"},
                "pictures": dict.fromkeys(("image", "truth", "prediction", "errors"), PICTURE),
            }
        ],
        "suspects": [
            {
                **example,
                **{"box": [0, 0, 1, 1], "labelled": None, "predicted": names[1]},
                **{"confidence": 0.97, "what": "an object without a box"},
            }
        ],
    }
    pixels = {
        "metrics": {"mIoU": sum(iou) / 3, "ECE": 15.0, "boundary mIoU": None},
        "boundary_ratio": 0.02,
        "classes": [
            {"class": n, "share of pixels": 1.0, "IoU": v, "boundary IoU": None, "accuracy": v}
            for n, v in zip(names, iou, strict=True)
        ],
        "confusion": [[3, 7, 0], [0, 9, 1], [0, 0, 0]],
    }
    boxes = {
        "metrics": {"AP": 20.0, "ECE": 5.0},
        "threshold": 0.4,
        "classes": [
            {
                **{"class": n, "objects": 3, "AP": v, "AP50": v, "precision": None, "recall": v},
            }
            for n, v in zip(names, iou, strict=True)
        ],
        "confusion": [[1, 0, 0, 2]] * 4,
        "errors": [
            {"kind": k, "count": 4, "share": 50.0, "AP50 if fixed": 30.0, "gain": 10.0}
            for k in ("classification", "missed")
        ],
    }
    return {
        **{"topformer_report": 1, "title": f"run {EVIL}", "dataset": "d", "images": 3},
        **{"weights": "w.pth", "curves": {"total_loss": [[0, 2.0], [20, 1.0]]}},
        "pixels": {**pixels, **copy.deepcopy(shared)},
        "boxes": {**boxes, **copy.deepcopy(shared)},
    }


class Page(html.parser.HTMLParser):
    """Checks that every element is closed, and collects what the page would load."""

    def __init__(self, content):
        super().__init__()
        self.open, self.counts, self.loaded, self.words, self.ids = [], {}, [], [], []
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        assert not any(name.startswith("on") for name in values), attrs
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.loaded += [values[k] for k in ("src", "href", "data", "action") if k in values]
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "img":
            assert values["alt"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("runs", [1, 2])
def test_the_page_is_whole_loads_nothing_and_escapes_all(runs):
    content = report_page([report(), report(iou=(20.0, 80.0, 50.0))][:runs])
    page = Page(content)
    assert page.counts["script"] == 1 and content.count(EVIL) == 0
    for target in page.loaded:
        assert re.match(r"data:image/jpeg;base64,|#", target), target
    assert not re.search(r"(https?:)?//\w+\.", content)
    assert {link[1:] for link in page.loaded if link.startswith("#")} <= set(page.ids)
    assert page.counts["h1"] == 1 and page.counts["main"] == 1 and page.counts["svg"] == 3
    words = " ".join(page.words)
    assert words.count(EVIL) > 5 and "labelled nothing, predicted" in words


def test_two_runs_have_their_differences():
    a, b = report(names=("sky", "car", "tree")), report((20.0, 80.0, 50.0), ("sky", "car", "bus"))
    page = report_page([a, b])
    (body,) = re.findall(r"press a heading to sort.*?<tbody>(.*?)</tbody>", page)[:1]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in body.split("</tr>")[:-1]]
    assert [row[0] for row in rows] == ["sky", "car"]  # what both have
    head = re.findall(r"IoU: B - A</button>", page)
    assert head
    assert [row[2:5] for row in rows] == [["10.0", "20.0", "+10.0"], ["90.0", "80.0", "-10.0"]]
    assert page.count('class="good">+10.0') and page.count('class="bad">-10.0')
    assert "different images" not in page
    assert "different images" in report_page([a, {**b, "images": 2}])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.pop("title"),
        lambda r: r["pixels"].pop("classes"),
        lambda r: r["pixels"]["classes"][0].update({"IoU": "x"}),
        lambda r: r["boxes"]["worst"][0]["pictures"].update({"image": '"><script>'}),
        lambda r: r.update(pixels=None, boxes=None),
        lambda r: r.update(curves={"total_loss": [["a", 1], [1, 2]]}),
        lambda r: r.update(topformer_report=2),
    ],
)
def test_a_damaged_report_is_refused_by_its_folder(tmp_path, spoil):
    wrong = report()
    spoil(wrong)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/report.json").write_text(json.dumps(wrong))
    with pytest.raises(InputError, match="run"):
        write_page(str(tmp_path / "page.html"), [str(tmp_path / "run")])
    assert not (tmp_path / "page.html").exists()


def test_many_classes_have_no_matrix():
    many = report()
    names = [f"class {i}" for i in range(60)]
    row = many["pixels"]["classes"][0]
    many["pixels"]["classes"] = [{**row, "class": name} for name in names]
    many["pixels"]["confusion"] = np.eye(60, dtype=int).tolist()
    page = report_page([many])
    assert "60 classes has no room" in page and page.count('class="heat"') == 1


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_opens_the_page_sorts_a_table_and_loads_nothing(tmp_path, dark):
    page = report_page([report()])
    check = """<script>
      const buttons = [...document.querySelectorAll("table.sortable th button")];
      const iou = buttons.find((b) => b.textContent === "IoU");
      iou.focus(); iou.click();
      const rows = [...iou.closest("table").tBodies[0].rows].map((r) => r.cells[2].textContent);
      const back = getComputedStyle(document.body).backgroundColor;
      const images = [...document.images].every((i) => i.complete && i.naturalWidth > 0);
      const loads = performance.getEntriesByType("resource");
      const outside = loads.filter((e) => !e.name.startsWith("data:")).length;
      const focused = document.activeElement === iou, order = iou.closest("th").ariaSort;
      document.title = JSON.stringify([rows, order, focused, images, outside, back]);
    </script>"""
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", f"{check}</body>"))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    if dark:
        options.append("--blink-settings=preferredColorScheme=0")
    done = subprocess.run(
        [CHROMIUM, *options, f"--user-data-dir={tmp_path}/profile", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=600,
    )
    title = html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    rows, order, focused, images, loads, back = json.loads(title)
    assert rows == ["90.0", "50.0", "10.0"] and order == "descending"
    assert focused and images and loads == 0
    assert (max(map(int, re.findall(r"\d+", back))) < 60) == dark


def test_what_a_run_without_confidences_lacks_is_said():
    without = report()
    without["pixels"] |= {"calibration": None, "suspects": None}
    del without["pixels"]["metrics"]["ECE"]
    alone, both = (Page(report_page(runs)) for runs in ([without], [report(), without]))
    for page, charts in ((alone, 2), (both, 3)):
        assert sum("without confidences" in words for words in page.words) == 2
        assert page.counts["svg"] == charts  # of the training, and the calibrations there are
    assert sum("without confidences" in words for words in Page(report_page([report()])).words) == 0

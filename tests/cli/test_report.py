"""`topformer eval --report`, `topformer compare` and `topformer data view --list`."""

import json

import cv2
import pytest

from tests.helpers import save_untrained, topformer
from tests.visualization.test_report_page import Page
from topformer_d2 import get_config
from topformer_d2.data.suspects import read_suspects

NAME = "multitask_lite_topformer_t_synthetic"
CONFIG = ["--config-file", f"configs/{NAME}.yaml"]
SMALL = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"]
SEGMENTER = ["--config-file", "configs/seg_topformer_t_synthetic.yaml"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Folders of an untrained model of both tasks, and of a better one that there might be."""
    folder = tmp_path_factory.mktemp("reports")
    weights = save_untrained(get_config(NAME, SMALL), folder / "model.pth")
    opts = [*SMALL, "OUTPUT_DIR", folder / "output"]
    result = topformer("eval", *CONFIG, "--weights", weights, "--report", folder / "a", *opts)
    assert result.returncode == 0, result.stderr
    assert f"wrote {folder}/a/report.html" in result.stdout
    better = json.loads((folder / "a/report.json").read_text())
    better["pixels"]["metrics"]["mIoU"] += 12.34
    (folder / "b").mkdir()
    (folder / "b/report.json").write_text(json.dumps(better))
    return folder / "a", folder / "b"


def test_the_report_has_both_tasks_and_the_evaluations_figures(reports):
    report = json.loads((reports[0] / "report.json").read_text())
    metrics = reports[0].parent / "output/inference/synthetic_multitask_val"
    pixels = json.loads((metrics / "sem_seg_evaluation.json").read_text())
    assert report["pixels"]["metrics"]["mIoU"] == pixels["metrics"]["mIoU"]
    assert report["pixels"]["confusion"] == pixels["confusion"]
    boxes = json.loads((metrics / "bbox_evaluation.json").read_text())
    assert report["boxes"]["metrics"]["AP"] == boxes["metrics"]["AP"]
    assert report["images"] == 4
    page = Page((reports[0] / "report.html").read_text())
    assert {"training", "pixels", "boxes"} <= set(page.ids)
    assert page.counts["img"] > 20
    assert cv2.imread(str(reports[0] / "worst.png")).shape[1] > 4 * 80


@pytest.mark.parametrize(
    "ending, labels",
    [
        (".onnx", False),
        pytest.param(".onnx", True, marks=pytest.mark.slow),
        pytest.param(".xml", False, marks=pytest.mark.slow),
    ],
)
def test_an_exported_file_has_a_report(tmp_path, ending, labels):
    kind, runtime = {".onnx": ("onnx", "onnxruntime"), ".xml": ("openvino", "openvino")}[ending]
    pytest.importorskip(runtime, reason="the export extra is not installed")
    from topformer_d2.export import export_model

    cfg = get_config("seg_topformer_t_synthetic", SMALL)
    weights = save_untrained(cfg, tmp_path / "model.pth")
    model, folder = str(tmp_path / f"model{ending}"), tmp_path / "report"
    export_model(cfg, weights, model, file_format=kind, labels=labels)
    words = ["eval", "--model", model, "--dataset", "synthetic_sem_seg_val"]
    plain, result = topformer(*words), topformer(*words, "--report", folder)
    assert result.returncode == 0, result.stderr
    wrote, _, figures = result.stdout.partition("\n")
    assert wrote == f"wrote {folder}/report.html" and figures == plain.stdout
    report = json.loads((folder / "report.json").read_text())
    pixels = report["pixels"]
    assert (report["images"], report["weights"], report["title"]) == (4, model, f"model{ending}")
    assert f"{pixels['metrics']['mIoU']:.2f}" in figures
    assert cv2.imread(str(folder / "worst.png")).shape[1] > 4 * 80
    samples = 0 if labels else sum(b["count"] for b in pixels["calibration"]["bins"])
    assert samples <= 4 * 16 * 20 and (samples > 0) == ("ECE" in pixels["metrics"]) == (not labels)
    assert (pixels["calibration"] is None) == (pixels["suspects"] is None) == labels
    assert (read_suspects(str(folder / "suspects.json")) == []) == labels
    page = Page((folder / "report.html").read_text())
    assert sum("without confidences" in text for text in page.words) == 2 * labels


def test_two_reports_are_compared_without_the_data(reports, tmp_path):
    output = tmp_path / "compare.html"
    result = topformer("compare", *reports, "--output", output)
    assert result.returncode == 0, result.stderr
    page = Page(output.read_text())
    assert {"pixels", "boxes"} <= set(page.ids)
    assert {"IoU: B - A", "+12.34"} <= set(page.words)


def test_suspects_are_drawn(reports, tmp_path):
    suspects = read_suspects(str(reports[0] / "suspects.json"))
    assert len(suspects) > 2
    sheet = tmp_path / "suspects.png"
    words = ["data", "view", *CONFIG, "--list", reports[0] / "suspects.json", "--output", sheet]
    result = topformer(*words, "--num-images", "2")
    assert result.returncode == 0, result.stderr
    assert [f"row {n + 1}: {suspects[n].file_name}" in result.stdout for n in range(2)] == [
        True
    ] * 2
    height, width = cv2.imread(str(sheet)).shape[:2]
    assert height > 2 * 64 and width > 2 * 80


@pytest.mark.parametrize(
    "words, named",
    [
        (["eval", *SEGMENTER, "--weights", "w.pth", "--report", "{file}"], "--report"),
        (["eval", "--model", "m.onnx", "--dataset", "d", "--report", "{file}"], "--report"),
        (["compare", "{a}", "{folder}/none", "--output", "{folder}/c.html"], "none"),
        (["compare", "{a}", "{a}/suspects.json", "--output", "{folder}/c.html"], "suspects.json"),
        (["compare", "{a}", "{a}", "--output", "{folder}/c.png"], "--output"),
        (
            ["data", "view", *CONFIG, "--list", "{a}/report.json", "--output", "x.png"],
            "report.json",
        ),
        (
            ["data", "view", *SEGMENTER, "--augmented", "--list", "x.json", "--output", "x.png"],
            "--list",
        ),
    ],
)
def test_what_is_wrong_is_named(reports, tmp_path, words, named):
    (tmp_path / "file").touch()
    places = {"file": tmp_path / "file", "folder": tmp_path, "a": reports[0]}
    result = topformer(*(word.format(**places) for word in words))
    assert result.returncode == 1 and named in result.stderr, result.stderr

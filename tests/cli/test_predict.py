"""`topformer predict`."""

import json
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from tests.helpers import photo, save_untrained, topformer
from topformer_d2 import get_config
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.checkpoint.files import EXPORTED
from topformer_d2.cli import predict as verb
from topformer_d2.data.images import read_image
from topformer_d2.errors import InputError
from topformer_d2.inference import prediction_files
from topformer_d2.inference.formats import FORMATS
from topformer_d2.inference.video import VideoReader, VideoWriter

CONFIG = "multitask_lite_topformer_t_synthetic"
SEGMENTER = "seg_topformer_t_synthetic"
KEYS = [
    *("INPUT.MIN_SIZE_TEST", "96", "INPUT.MAX_SIZE_TEST", "96"),
    *("MODEL.DEVICE", "cpu", "TEST.DETECTIONS_PER_IMAGE", "9"),
]


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """--config-file and --weights of a model of both tasks."""
    folder = tmp_path_factory.mktemp("joint")
    cfg = get_config(CONFIG, KEYS)
    (folder / "config.yaml").write_text(cfg.dump())
    weights = save_untrained(cfg, folder / "model.pth")
    return ["--config-file", str(folder / "config.yaml"), "--weights", weights]


def predict(*args):
    return topformer("predict", *args)


def test_images_to_pictures_label_maps_and_json_lines(joint, tmp_path):
    photo(tmp_path / "000000000139.jpg")
    photo(tmp_path / "b.png", 70, 50)
    result = predict(
        *(*joint, "--input", tmp_path, "--output", tmp_path / "out", "--min-score", 0),
        *("--save-json", tmp_path / "boxes.jsonl"),
    )
    assert result.returncode == 0 and "2 of 2 images done" in result.stdout, result.stderr
    lines = (tmp_path / "boxes.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert len(found) == 18 and {r["image_id"] for r in found} == {"000000000139", "b"}
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == [
        *("000000000139_label.png", "000000000139_overlay.jpg"),
        *("b_label.png", "b_overlay.jpg"),
    ]
    assert cv2.imread(str(tmp_path / "out" / "b_label.png"), -1).shape == (70, 50)


def test_without_overlays(joint, tmp_path):
    photo(tmp_path / "a.png")
    arguments = [*joint, "--input", tmp_path / "a.png", "--no-overlays"]
    result = predict(*arguments, "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_label.png"]
    cfg = get_config("det_retinanet_lite_topformer_t", KEYS)
    (tmp_path / "c.yaml").write_text(cfg.dump())
    weights = save_untrained(cfg, tmp_path / "detector.pth")
    detector = ["--config-file", tmp_path / "c.yaml", "--weights", weights]
    result = predict(*detector, *arguments[4:], "--output", tmp_path / "none")
    assert result.returncode == 1 and "name --save-json" in result.stderr
    assert not (tmp_path / "none").exists()


def test_what_an_earlier_run_wrote_is_not_predicted(joint, tmp_path, caplog):
    photo(tmp_path / "a.jpg")
    words = [*joint, "--input", tmp_path, "--output"]
    for _ in range(2):  # into a folder within
        result = predict(*words, tmp_path / "out")
        assert result.returncode == 0 and "1 of 1 images done" in result.stdout, result.stderr
    assert predict(*words, tmp_path).returncode == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("a*")}
    result = predict(*words, tmp_path)
    assert result.returncode == 1 and "a_label.png" in result.stderr and "--output" in result.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.glob("a*")} == before
    for source in (tmp_path, tmp_path / "**"):
        caplog.clear()
        new = tmp_path.parent / f"{tmp_path.name}_{source.name[-1]}"
        result = predict(*joint, "--input", source, "--output", new)
        assert "1 of 1 images done" in result.stdout and "a_label.png" in caplog.text
        assert sorted(p.name for p in new.iterdir()) == ["a_label.png", "a_overlay.jpg"]


@pytest.mark.slow
def test_drawing_is_not_imported_without_overlays(joint, tmp_path):
    """Matplotlib, behind Detectron2's Visualizer, takes longer to import than some networks run."""
    photo(tmp_path / "a.png")
    words = [*joint, "--input", tmp_path / "a.png", "--output", tmp_path / "out", "--no-overlays"]
    script = (
        "import sys; from topformer_d2.cli import main; "
        f"assert main(['predict', *{list(map(str, words))!r}]) == 0; "
        "print(sorted({'matplotlib', 'detectron2.utils.visualizer'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=900
    )
    assert result.stdout.splitlines()[-1:] == ["[]"], result.stderr


def test_a_video_is_not_written_without_what_is_drawn(tmp_path):
    with VideoWriter(str(tmp_path / "a.avi"), 10) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    result = predict(
        *("--input", tmp_path / "a.avi", "--output", tmp_path / "b.avi", "--no-overlays")
    )
    assert result.returncode == 1 and "--no-overlays is for images" in result.stderr


def test_an_exported_model_on_a_video_in_tiles(tmp_path):
    pytest.importorskip("onnxruntime", reason="exporting needs onnxruntime")
    from topformer_d2.export import export_model

    cfg = get_config(SEGMENTER, ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "0"])
    model = str(tmp_path / "m.onnx")
    weights = str(tmp_path / "m.pth")
    torch.manual_seed(0)
    save_state_dict(build_model(cfg).state_dict(), weights)
    export_model(cfg, weights, model)
    # No extension that the tool lists: a file that is no image's is a video.
    source, output = tmp_path / "in.avi", tmp_path / "new" / "out.mp4"
    with VideoWriter(str(source), 10) as writer:
        for shade in (0, 120, 240):
            writer.write(np.full((64, 160, 3), shade, np.uint8))
    source = source.rename(tmp_path / "in.wmv")
    arguments = ["--model", model, "--threads", 1, "--tile-size", 64]
    result = predict(*arguments, "--input", source, "--output", output)
    assert result.returncode == 0 and "3 frames done" in result.stdout, result.stderr
    frames = [*VideoReader(str(output))]
    assert len(frames) == 3 and frames[0].shape == (64, 160, 3) and frames[2].mean() > 100
    content = source.read_bytes()
    source.write_bytes(content[: content.rindex(b"00dc", 0, content.find(b"idx1"))])
    result = predict(*arguments, "--input", source, "--output", tmp_path / "cut.mp4")
    assert result.returncode == 1 and "in.wmv is cut: it ends after" in result.stderr
    assert 0 < len([*VideoReader(tmp_path / "cut.mp4")]) < 3
    source.write_bytes(content)
    result = predict(*arguments[:-1], 65, "--input", source, "--output", output)
    assert result.returncode == 1 and "error: --tile-size is 65" in result.stderr
    assert len([*VideoReader(str(output))]) == 3


def test_a_score_is_between_0_and_1(tmp_path):
    result = predict("--input", tmp_path, "--output", tmp_path, "--min-score", "nan")
    assert result.returncode == 1 and "--min-score is nan; it takes 0 to 1" in result.stderr


def test_a_score_is_not_taken_where_nothing_is_drawn(tmp_path):
    path = photo(tmp_path / "a.png")
    words = ["--input", path, "--output", tmp_path / "out", "--no-overlays", "--min-score", 0.9]
    result = predict(*words)
    assert result.returncode == 1 and "--no-overlays draws none" in result.stderr


@pytest.mark.parametrize(("option", "value"), [("--threads", 0), ("--tile-size", 65)])
def test_a_number_of_no_use_is_told_in_the_commands_words(joint, tmp_path, option, value):
    path = photo(tmp_path / "a.png")
    result = predict(*joint, "--input", path, "--output", tmp_path / "out", option, value)
    assert result.returncode == 1 and f"error: {option} is {value}; it takes" in result.stderr
    assert "None" not in result.stderr


def test_an_exported_file_is_not_weights(joint, tmp_path):
    path, model = photo(tmp_path / "a.png"), tmp_path / "m.onnx"
    model.write_bytes(b"x")
    words = ["--input", path, "--output", tmp_path / "out"]
    result = predict(*joint[:2], "--weights", model, *words)
    assert result.returncode == 1 and "name it as --model" in result.stderr
    assert {each for f in FORMATS.values() for each in f.reads} == set(EXPORTED)


def test_skips_a_corrupt_file_and_says_so(tmp_path):
    weights = save_untrained(get_config(SEGMENTER), tmp_path / "m.safetensors")
    photo(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    arguments = ["--config-file", f"configs/{SEGMENTER}.yaml", "--weights", weights]
    result = topformer(
        "predict", *arguments, "--input", tmp_path / "*.[jp]*g", "--output", tmp_path / "out"
    )
    assert result.returncode == 1
    assert "1 of 2 images done" in result.stdout
    assert "skipped: " in result.stderr and "bad.jpg cannot be read" in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "out" / "good_label.png").exists()
    result = topformer("predict", *arguments, "--input", tmp_path / "no", "--output", tmp_path)
    assert result.returncode == 1 and "error: --input" in result.stderr
    arguments[-1] = ""
    result = topformer(
        "predict", *arguments, "--input", tmp_path / "good.png", "--output", tmp_path
    )
    assert result.returncode == 2 and "error: --weights is empty" in result.stderr
    arguments[-1] = tmp_path / "absent.pth"
    result = topformer(
        "predict", *arguments, "--input", tmp_path / "good.png", "--output", tmp_path
    )
    assert result.returncode == 1 and "absent.pth does not exist" in result.stderr


def test_what_is_neither_an_image_nor_a_video_is_told_so(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"neither")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0 ftypheic")
    os.mkfifo(tmp_path / "pipe.png")
    for name, words in (
        ("a.xyz", "a.xyz is neither an image nor a video"),
        ("pipe.png", "pipe.png is a pipe"),
        ("/dev/zero", "/dev/zero is a device"),
        ("rtsp://host/stream", "streams and URLs are not read"),
    ):
        source = name if "/" in name else tmp_path / name
        words_of_it = ["--input", str(source), "--output", str(tmp_path / "out")]
        args = verb.make_parser().parse_args([*words_of_it, "--max-pixels", "9"])
        with pytest.raises(InputError) as error:
            verb.run(args, verb.make_parser())
        assert words in str(error.value) and ".mp4" not in str(error.value)
    args.input = str(tmp_path / "a.heic")
    assert not verb.shows_video(args)
    with pytest.raises(InputError, match=r"a\.heic cannot be read: .*\(needs pillow-heif\)"):
        read_image(args.input)


def test_one_reason_of_all_images_is_told_once():
    paths = [f"{name}.png" for name in "abc"]
    problems = [f"{path}: its boxes hold NaN" for path in paths]
    assert verb.shortened(problems, paths) == ["all 3 images: its boxes hold NaN"]
    assert verb.shortened(problems[:2], paths) == problems[:2]
    problems[0] = "a.png cannot be read"
    assert verb.shortened(problems, paths) == problems


def test_sigterm_keeps_the_boxes_that_were_found(joint, tmp_path, monkeypatch):
    for name in "abc":
        photo(tmp_path / f"{name}.png")
    out, write = tmp_path / "boxes.jsonl", prediction_files.write_image

    def write_and_stop(path, image):
        if "b_overlay" in path:
            os.kill(os.getpid(), signal.SIGTERM)
        write(path, image)

    monkeypatch.setattr(prediction_files, "write_image", write_and_stop)
    arguments = ["--input", tmp_path, "--output", tmp_path / "out", "--save-json", out]
    before = signal.getsignal(signal.SIGTERM)
    result = topformer("predict", *joint, *arguments)
    assert result.returncode == 143 and "terminated" in result.stderr
    ids = {json.loads(line)["image_id"] for line in out.read_text().splitlines()}
    assert ids == {"a"} and signal.getsignal(signal.SIGTERM) == before


def test_labels_for_a_labelling_tool(joint, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    photo(source / "a.jpg")
    words = [*joint, "--input", source, "--no-overlays", "--save-labels"]
    out = tmp_path / "out"
    result = predict(*words, "labelme", "--output", out, "--min-score", 0)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in out.iterdir()) == ["a_label.png", "labels"]
    shapes = json.loads((out / "labels" / "a.json").read_text())["shapes"]
    kinds = [shape["shape_type"] for shape in shapes]
    assert kinds.count("rectangle") == 9 and "polygon" in kinds
    result = predict(*words, "labelme", "--output", out)
    assert result.returncode == 1 and "name another --output" in result.stderr
    assert predict(*words, "labelm", "--output", out).returncode == 2


def test_labels_of_a_video_are_refused(tmp_path):
    with VideoWriter(str(tmp_path / "a.avi"), 10) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    words = ["--input", tmp_path / "a.avi", "--output", tmp_path / "b.avi"]
    result = predict(*words, "--save-labels", "coco")
    assert result.returncode == 1 and "--save-labels is for images" in result.stderr

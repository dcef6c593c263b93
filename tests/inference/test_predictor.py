"""Detectron2's DefaultPredictor, and files in, files out by our own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from PIL import Image
from safetensors.torch import load_file

from tests.helpers import run_tool
from topformer_d2 import get_config
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.config import load_config
from topformer_d2.data.files import list_images, read_image, write_image
from topformer_d2.errors import InputError
from topformer_d2.inference import Predictor, build_predictor
from topformer_d2.visualization import Painter, output_names, predict_files

CONFIG = "seg_topformer_t_synthetic"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of an untrained model whose classes all occur."""
    torch.manual_seed(0)
    model = build_model(get_config(CONFIG))
    torch.nn.init.normal_(model.sem_seg_head.classifier.weight)
    path = str(tmp_path_factory.mktemp("weights") / "model.safetensors")
    save_state_dict(model.state_dict(), path)
    return path


def photo(path, height=90, width=120, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)
    return str(path)


def test_default_predictor_in_a_script_of_its_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np, topformer_d2\n"
        "from detectron2.engine import DefaultPredictor\n"
        "predictor = DefaultPredictor(topformer_d2.get_config('seg_topformer_t'))\n"
        "for h, w in ((50, 70), (301, 203)):\n"
        "    image = np.full((h, w, 3), 90, np.uint8)\n"
        "    print(tuple(predictor(image)['sem_seg'].shape))\n"
    )
    result = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert result.stdout.splitlines()[-2:] == ["(150, 50, 70)", "(150, 301, 203)"], result.stderr


def test_predictor_resizes_as_the_evaluation_does(weights, tmp_path):
    predictor = build_predictor(get_config(CONFIG), weights)
    image = read_image(photo(tmp_path / "a.png"))
    out = predictor(image)["sem_seg"]
    small = cv2.resize(image[:, :, ::-1], (171, 128))
    tensor = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))
    with torch.no_grad():
        expected = predictor.model([{"image": tensor, "height": 90, "width": 120}])[0]["sem_seg"]
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_folder_of_images(weights, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.jpg", "b.png", "b.jpg"):
        photo(source / name)
    photo(source / "wide.png", 40, 200)
    (source / "broken.jpg").write_bytes(b"no image")
    predictor = Predictor(get_config(CONFIG), weights)
    before = {path: path.read_bytes() for path in source.iterdir()}
    inputs = list_images(str(source))
    problems = predict_files(predictor, inputs, str(source))
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(InputError, match=r"would overwrite the input .*a_label\.png"):
        predict_files(predictor, list_images(str(source)), str(source))
    assert len(problems) == 1 and "broken.jpg cannot be read" in problems[0]
    written = sorted(path.name for path in source.iterdir() if path not in before)
    assert written == [
        *("a_label.png", "a_overlay.jpg", "b.jpg_label.png", "b.jpg_overlay.jpg"),
        *("b.png_label.png", "b.png_overlay.jpg", "wide_label.png", "wide_overlay.jpg"),
    ]
    label = Image.open(source / "wide_label.png")
    assert (label.mode, label.size) == ("L", (200, 40))
    expected = build_predictor(get_config(CONFIG), weights)(read_image(str(source / "wide.png")))
    assert np.array_equal(np.asarray(label), expected["sem_seg"].argmax(0).cpu().numpy())
    overlay = Image.open(source / "wide_overlay.jpg")
    assert overlay.height == 40 and overlay.width > 200


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Config file and weights of an untrained detector that finds something everywhere."""
    folder = tmp_path_factory.mktemp("detector")
    opts = ["DATASETS.TEST", "('bccd_val',)", "MODEL.RETINANET.NUM_CLASSES", "3"]
    opts += ["INPUT.MIN_SIZE_TEST", "96", "INPUT.MAX_SIZE_TEST", "96"]
    opts += ["TEST.DETECTIONS_PER_IMAGE", "9"]
    cfg = get_config("det_retinanet_lite_topformer_t", opts)
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.nn.init.normal_(model.head.cls_score.weight, std=50.0)
    torch.nn.init.zeros_(model.head.cls_score.bias)
    weights = str(folder / "model.pth")
    save_state_dict(model.state_dict(), weights)
    (folder / "config.yaml").write_text(cfg.dump())
    return str(folder / "config.yaml"), weights


def test_boxes_are_drawn_and_written_as_json_lines(detector, tmp_path):
    config, weights = detector
    photo(tmp_path / "000000000139.jpg")
    cv2.imwrite(str(tmp_path / "b.png"), np.full((70, 50, 3), 128, np.uint8))
    for min_score in ("0.0", "1.1"):
        result = run_tool(
            *("predict.py", "--config-file", config, "--weights", weights),
            *("--input", tmp_path, "--output", tmp_path / "out", "--min-score", min_score),
            *("--save-json", tmp_path / "boxes.jsonl"),
        )
        assert result.returncode == 0, result.stderr
        lines = (tmp_path / "boxes.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        assert len(found) == 18 and {r["image_id"] for r in found} == {"000000000139", "b"}
        assert {r["category_id"] for r in found} <= {1, 2, 3}
        drawn = cv2.imread(str(tmp_path / "out" / "b_overlay.jpg"))
        assert (abs(drawn.astype(int) - 128).max() > 50) == (min_score == "0.0")
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == ["000000000139_overlay.jpg", "b_overlay.jpg"]
    predictor = Predictor(load_config(config), weights)
    scene = predictor(read_image(str(tmp_path / "b.png")))
    assert len(scene.boxes) == 9 and (scene.boxes.max(0) <= [50, 70, 50, 70]).all()


def test_boxes_of_a_dataset_have_its_image_ids(detector, tmp_path):
    config, weights = detector
    cfg = load_config(config, ["DATASETS.TEST", "('synthetic_boxes_val',)"])
    cfg.MODEL.RETINANET.NUM_CLASSES = 3  # another number than the dataset's: ids map all the same
    predictor = Predictor(cfg, weights)
    records = DatasetCatalog.get("synthetic_boxes_val")[:2]
    files = [r["file_name"] for r in records]
    out = str(tmp_path / "boxes.jsonl")

    def image_ids(paths):
        predict_files(predictor, paths, str(tmp_path / "out"), json_file=out)
        with open(out) as f:
            return {json.loads(line)["image_id"] for line in f}

    assert image_ids(files) == {r["image_id"] for r in records} == {12, 13}
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        photo(tmp_path / folder / "07.jpg")
    photo(tmp_path / "y" / "8.jpg")
    assert image_ids([str(tmp_path / "x/07.jpg"), str(tmp_path / "y/8.jpg")]) == {7, 8}
    same = [str(tmp_path / "x/07.jpg"), str(tmp_path / "y/07.jpg")]
    assert image_ids(same) == {"x/07", "y/07"}
    assert image_ids([*same, *files]).isdisjoint({12, 13})
    with pytest.raises(InputError, match="is a folder"):
        predict_files(predictor, same, str(tmp_path / "out"), json_file=str(tmp_path))
    cfg.DATASETS.TEST = ("unregistered",)
    predictor = Predictor(cfg, weights)
    with pytest.raises(InputError, match=r"category ids .* must name a registered dataset"):
        predict_files(predictor, same, str(tmp_path / "out"), json_file=out)


def test_a_joint_model_draws_both_on_one_picture(tmp_path):
    cfg = get_config("multitask_lite_topformer_t_synthetic", ["INPUT.MIN_SIZE_TEST", "64"])
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.nn.init.normal_(model.sem_seg_head.classifier.weight)
    torch.nn.init.normal_(model.head.cls_score.weight, std=50.0)
    torch.nn.init.zeros_(model.head.cls_score.bias)
    weights = str(tmp_path / "model.pth")
    save_state_dict(model.state_dict(), weights)
    cfg.MODEL.WEIGHTS = weights
    path = photo(tmp_path / "a.png")
    image = read_image(path)
    output = DefaultPredictor(cfg)(image)
    assert output["sem_seg"].shape == (6, 90, 120) and output["instances"].image_size == (90, 120)
    output = build_predictor(cfg, weights)(image)
    predictor = Predictor(cfg, weights)
    out = str(tmp_path / "out")
    for min_score in (0.0, 1.1):
        predict_files(predictor, [path], out, min_score=min_score, json_file=f"{out}/boxes.jsonl")
        label = read_image(f"{out}/a_label.png")[:, :, 0]
        scene = predictor(image)
        assert np.array_equal(label, output["sem_seg"].argmax(0).numpy())
        with open(f"{out}/boxes.jsonl") as f:
            assert len(f.readlines()) == len(scene.boxes) == len(output["instances"]) > 0
        painter = Painter(cfg)
        if min_score > 1:
            scene.boxes = scene.boxes[:0]
        picture = painter.add_legend(painter.draw(image[:, :, ::-1], scene), scene)
        write_image(str(tmp_path / "expected.jpg"), picture[:, :, ::-1])
        assert Path(f"{out}/a_overlay.jpg").read_bytes() == (tmp_path / "expected.jpg").read_bytes()


def test_no_json_of_boxes_from_a_segmenter(weights, tmp_path):
    path = photo(tmp_path / "a.png")
    predictor = Predictor(get_config(CONFIG), weights)
    with pytest.raises(InputError, match=r"this model finds no boxes to write to x\.json"):
        predict_files(predictor, [path], str(tmp_path), json_file="x.json")


def test_outputs_of_files_from_several_folders_do_not_collide(tmp_path):
    paths = [str(tmp_path / p) for p in ("x/1.png", "y/1.png", "y/1.jpg", "y/z/2.jpg")]
    assert output_names(paths) == ["x/1", "y/1.png", "y/1.jpg", "y/z/2"]
    assert output_names(["/some/where/a.jpg"]) == ["a"]


def test_weights_that_fit_in_part_are_refused(weights, tmp_path):
    with pytest.raises(InputError, match=r"classifier\.weight is \(6, .*NUM_CLASSES"):
        Predictor(get_config(CONFIG, ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "9"]), weights)
    backbone = {k: v for k, v in load_file(weights).items() if k.startswith("backbone.")}
    path = str(tmp_path / "backbone.pth")
    save_state_dict(backbone, path)
    with pytest.raises(InputError, match=r"sem_seg_head\.\S+ is missing"):
        Predictor(get_config(CONFIG), path)


def test_write_image_refuses_what_is_no_picture(tmp_path):
    image = np.zeros((2, 2, 3), np.uint8)
    for name in ("x", "x.foo"):
        with pytest.raises(InputError, match=r"ends in \.jpg"):
            write_image(str(tmp_path / name), image)
    write_image(str(tmp_path / "new" / "x.png"), image)
    assert (tmp_path / "new" / "x.png").exists()


def test_tool_skips_a_corrupt_file_and_says_so(weights, tmp_path):
    photo(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    arguments = ["--config-file", f"configs/{CONFIG}.yaml", "--weights", weights]
    result = run_tool(
        "predict.py", *arguments, "--input", tmp_path / "*.[jp]*g", "--output", tmp_path / "out"
    )
    assert result.returncode == 1
    assert "1 of 2 images done" in result.stdout
    assert "skipped: " in result.stderr and "bad.jpg cannot be read" in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "out" / "good_label.png").exists()
    result = run_tool("predict.py", *arguments, "--input", tmp_path / "no", "--output", tmp_path)
    assert result.returncode == 1 and "error: --input" in result.stderr
    arguments[-1] = ""
    result = run_tool(
        "predict.py", *arguments, "--input", tmp_path / "good.png", "--output", tmp_path
    )
    assert result.returncode == 1 and "error: no weights file is named" in result.stderr
    arguments[-1] = tmp_path / "absent.pth"
    result = run_tool(
        "predict.py", *arguments, "--input", tmp_path / "good.png", "--output", tmp_path
    )
    assert result.returncode == 1 and "absent.pth does not exist" in result.stderr


def test_list_images(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    names = [os.path.basename(path) for path in list_images(str(tmp_path))]
    assert names == ["a.JPG", "b.png"]
    assert list_images(str(tmp_path / "*.png")) == [str(tmp_path / "b.png")]
    with pytest.raises(InputError, match="no image there"):
        list_images(str(tmp_path / "*.gif"))


def test_exif_orientation_is_applied(tmp_path):
    image = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(str(tmp_path / "turned.jpg")).shape == (30, 20, 3)

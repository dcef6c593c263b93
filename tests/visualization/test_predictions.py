"""Image files in, pictures, label maps and boxes out."""

import errno
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.engine import DefaultPredictor
from PIL import Image

from tests.helpers import default_predictor, photo, save_untrained
from topformer_d2 import get_config
from topformer_d2.data.image_files import list_images
from topformer_d2.data.images import read_image, write_image
from topformer_d2.data.scene import Scene
from topformer_d2.errors import InputError
from topformer_d2.inference import Predictor, prediction_files, write_predictions
from topformer_d2.inference.prediction_files import output_names, split_outputs
from topformer_d2.inference.video import VideoWriter
from topformer_d2.visualization import (
    Painter,
    predict_files,
    predict_video,
)

CONFIG = "seg_topformer_t_synthetic"
DETECTOR_KEYS = [
    *("INPUT.MIN_SIZE_TEST", "96", "INPUT.MAX_SIZE_TEST", "96"),
    *("MODEL.RETINANET.NUM_CLASSES", "3", "TEST.DETECTIONS_PER_IMAGE", "9"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_untrained(get_config(CONFIG), tmp_path_factory.mktemp("weights") / "m.safetensors")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Config and weights of a detector of three classes."""
    keys = [*DETECTOR_KEYS, "DATASETS.TEST", "('bccd_val',)"]
    cfg = get_config("det_retinanet_lite_topformer_t", keys)
    return cfg, save_untrained(cfg, tmp_path_factory.mktemp("detector") / "model.pth")


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
    with pytest.raises(InputError, match=r"a_label\.png would overwrite an input"):
        predict_files(predictor, list_images(str(source)), str(source))
    assert len(problems) == 1 and "broken.jpg cannot be read" in problems[0]
    written = sorted(path.name for path in source.iterdir() if path not in before)
    assert written == [
        *("a_label.png", "a_overlay.jpg", "b.jpg_label.png", "b.jpg_overlay.jpg"),
        *("b.png_label.png", "b.png_overlay.jpg", "wide_label.png", "wide_overlay.jpg"),
    ]
    label = Image.open(source / "wide_label.png")
    assert (label.mode, label.size) == ("L", (200, 40))
    expected = default_predictor(get_config(CONFIG), weights)(read_image(str(source / "wide.png")))
    assert np.array_equal(np.asarray(label), expected["sem_seg"].argmax(0).cpu().numpy())
    overlay = Image.open(source / "wide_overlay.jpg")
    assert overlay.height == 40 and overlay.width > 200


def test_boxes_of_a_dataset_have_its_image_ids(detector, tmp_path):
    cfg, weights = detector[0].clone(), detector[1]
    cfg.DATASETS.TEST = ("synthetic_boxes_val",)  # of more classes: ids map all the same
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
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("unregistered",)
    predictor = Predictor(cfg, weights)
    with pytest.raises(InputError, match=r"category ids .* must name a registered dataset"):
        predict_files(predictor, same, str(tmp_path / "out"), json_file=out)


def test_a_joint_model_draws_both_on_one_picture(tmp_path):
    cfg = get_config("multitask_lite_topformer_t_synthetic", ["INPUT.MIN_SIZE_TEST", "64"])
    weights = save_untrained(cfg, tmp_path / "model.pth")
    cfg.MODEL.WEIGHTS = weights
    path = photo(tmp_path / "a.png")
    image = read_image(path)
    output = DefaultPredictor(cfg)(image)
    assert output["sem_seg"].shape == (6, 90, 120) and output["instances"].image_size == (90, 120)
    output = default_predictor(cfg, weights)(image)
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


def test_names_of_outputs_never_collide(tmp_path):
    names = output_names(["d/x.jpg", "d/x.png", "d/x.jpg.png", "d/A.bmp", "d/a.BMP", "d/A.bmp"])
    assert names[:3] == ["x.jpg", "x.png", "x.jpg.png"] and names[5] == "A.bmp-3"
    random = np.random.default_rng(0)
    parts = ["x", "X", ".jpg", ".png", "-2", "_overlay", "e\u0301", "\xe9", "\xdf", "ss", "/y"]
    for _ in range(300):
        paths = ["/d/x" + "".join(random.choice(parts, 3)) for _ in range(8)]
        names = output_names(paths)
        assert len({prediction_files._folded(name) for name in names}) == len(paths)
        assert names == output_names(paths)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        cv2.error("(-4:Insufficient memory) Failed to allocate 9 bytes"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=["python", "opencv", "torch", "openvino"],
)
def test_no_memory_for_one_image_is_its_trouble_alone(detector, tmp_path, monkeypatch, error):
    predictor, out = Predictor(*detector), tmp_path / "boxes.jsonl"
    for name in ("a", "b", "c"):
        photo(tmp_path / f"{name}.png", 60 if name == "b" else 90)
    os.mkfifo(tmp_path / "pipe.png")
    run = predictor.backend.run

    def fail_once(images):
        if fail_once.calls.append(1) or len(fail_once.calls) % 3 == 2:
            raise error
        return run(images)

    fail_once.calls = []
    monkeypatch.setattr(predictor.backend, "run", fail_once)
    problems = predict_files(
        predictor, list_images(tmp_path), tmp_path / "out", json_file=out, max_pixels=10_800
    )
    assert len(problems) == 2 and "pipe.png is a pipe" in problems[1]
    assert "b.png: not enough memory" in problems[0]
    assert {json.loads(line)["image_id"] for line in out.read_text().splitlines()} == {"a", "c"}
    found = [Path(path).stem for path, _ in predictor.folder(tmp_path)]
    assert found == ["a", "c"]
    monkeypatch.setattr(predictor.backend, "run", lambda images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict_files(predictor, list_images(tmp_path), tmp_path / "out")


def test_a_folder_of_which_nothing_can_be_predicted_is_an_error(detector, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"no image could be predicted: .*a\.png cannot be read"):
        list(Predictor(*detector).folder(tmp_path))


def test_one_images_trouble_does_not_end_the_run(weights, tmp_path):
    predictor = Predictor(get_config(CONFIG), weights)
    long_name = "x" * 250
    paths = [photo(tmp_path / f"{name}.png") for name in ("a", long_name, "b", "c", "d")]
    wide = str(tmp_path / "wide.png")
    cv2.imwrite(wide, np.zeros((2, 65600, 3), np.uint8))
    out = tmp_path / "out"
    (out / "c_label.png").mkdir(parents=True)

    def answer(images):
        (image,) = images
        if image.shape[1] == 65600:
            return [Scene(label=np.zeros(image.shape[:2], np.uint8))]
        if answer.calls.append(1) or len(answer.calls) == 3:
            raise InputError("the logits hold NaN")
        return [predictor(image)]

    answer.calls, answer.info = [], predictor.info
    answer.backend = predictor.backend
    problems = predict_files(answer, [*paths, wide], str(out))
    assert [problem.partition(":")[0] for problem in problems] == [
        paths[1],
        paths[2],
        paths[3],
        wide,
    ]
    words = ("File name too long", "NaN", "Is a directory", "at most 65500 a side")
    assert all(word in problem for word, problem in zip(words, problems, strict=True))
    written = sorted(path.name for path in out.iterdir())
    assert written == [
        *("a_label.png", "a_overlay.jpg", "c_label.png"),
        *("d_label.png", "d_overlay.jpg", "wide_label.png"),
    ]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_ends_the_run(weights, tmp_path, monkeypatch, number):
    def write_image(path, image):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(prediction_files, "write_image", write_image)
    predictor = Predictor(get_config(CONFIG), weights)
    paths = [photo(tmp_path / "a.png"), photo(tmp_path / "b.png")]
    with pytest.raises(OSError, match=r"a_label\.png"):
        predict_files(predictor, paths, str(tmp_path / "out"))


def test_boxes_are_not_written_over_a_picture(detector, tmp_path):
    path, out = photo(tmp_path / "a.png"), tmp_path / "out"
    target = str(out / "a_overlay.jpg")
    with pytest.raises(InputError, match=r"a_overlay\.jpg would overwrite a picture"):
        predict_files(Predictor(*detector), [path], str(out), json_file=target)


def test_boxes_of_what_was_done_are_kept_however_the_run_ends(detector, tmp_path, monkeypatch):
    predictor, out = Predictor(*detector), tmp_path / "boxes.jsonl"
    paths = [photo(tmp_path / f"{name}.png") for name in "abc"]
    out.write_text("of an earlier run")

    def predict(error):
        def write(path, image):
            if "b_overlay" in path:
                raise error
            write_image(path, image)

        monkeypatch.setattr(prediction_files, "write_image", write)
        with pytest.raises(type(error)):
            predict_files(predictor, paths, str(tmp_path / "out"), json_file=str(out))

    for error in (KeyboardInterrupt(), OSError(errno.ENOSPC, "full"), RuntimeError()):
        out.write_text("of an earlier run")
        predict(error)
        ids = [json.loads(line)["image_id"] for line in out.read_text().splitlines()]
        assert ids == ["a"] * 9
    out.write_text("of an earlier run")
    paths.insert(0, paths.pop(1))
    predict(KeyboardInterrupt())
    assert out.read_text() == "of an earlier run"
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_an_image_that_is_skipped_has_no_boxes(detector, tmp_path):
    paths = [photo(tmp_path / f"{name}.png") for name in "ab"]
    out, boxes = tmp_path / "out", tmp_path / "boxes.jsonl"
    (out / "a_overlay.jpg").mkdir(parents=True)
    (problem,) = predict_files(Predictor(*detector), paths, out, json_file=boxes)
    assert "a_overlay.jpg" in problem and "partial" not in problem
    assert {json.loads(line)["image_id"] for line in boxes.read_text().splitlines()} == {"b"}


def test_a_file_that_cannot_be_written_is_told_before_the_work(detector, tmp_path):
    path = photo(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"`json_file` .*a\.png/x\.jsonl cannot be written"):
        predict_files(
            Predictor(*detector), [path], str(tmp_path / "out"), json_file=f"{path}/x.jsonl"
        )
    video = str(tmp_path / "x.avi")
    with VideoWriter(video, 25) as writer:
        writer.write(read_image(path))
    with pytest.raises(InputError, match=r"`output` .*a\.png/x\.mp4 cannot be written"):
        predict_video(Predictor(*detector), video, f"{path}/x.mp4")


def test_labels_and_boxes_alone(weights, detector, tmp_path):
    path, out = photo(tmp_path / "a.png"), tmp_path / "out"
    assert write_predictions(Predictor(get_config(CONFIG), weights), [path], out) == []
    assert [file.name for file in out.iterdir()] == ["a_label.png"]
    finder, boxes = Predictor(*detector), tmp_path / "boxes.jsonl"
    with pytest.raises(InputError, match=r"boxes alone.*name `json_file`"):
        write_predictions(finder, [path], tmp_path / "none")
    assert write_predictions(finder, [path], tmp_path / "none", json_file=boxes) == []
    assert len(boxes.read_text().splitlines()) == 9 and not [*(tmp_path / "none").iterdir()]


@pytest.mark.parametrize("name", ["taken.onnx", "taken.onnx/below"])
def test_a_file_is_not_taken_for_a_folder(weights, tmp_path, name):
    path = photo(tmp_path / "a.png")
    (tmp_path / "taken.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"`output`: .*taken\.onnx is a file"):
        write_predictions(Predictor(get_config(CONFIG), weights), [path], tmp_path / name)


@pytest.mark.parametrize("name", ["o.mp4", "o.jpg"])
def test_a_folder_is_not_named_as_a_file(weights, tmp_path, name):
    predictor = Predictor(get_config(CONFIG), weights)
    with pytest.raises(InputError, match=rf"{name} has the name of one (video|image)"):
        predict_files(predictor, [photo(tmp_path / "a.png")], str(tmp_path / name))
    assert os.listdir(tmp_path) == ["a.png"]


def test_no_file_has_no_name():
    assert output_names([]) == []


@pytest.mark.parametrize(
    ("names", "earlier"),
    [
        (["in/a.jpg", "in/a_overlay.jpg", "in/out/a_label.png"], [1, 2]),
        (["in/a.jpg", "in/a.png", "in/a.png_overlay.jpg"], [2]),
        (["in/a.jpg", "in/a_label.png", "in/a_label_label.png"], [1, 2]),
        (["in/a_overlay.jpg"], []),
        (["in/a.jpg", "in/a_label.jpg", "in/ba_label.png", "in/_label.png"], []),
    ],
)
def test_what_an_earlier_run_wrote_is_told_from_images(names, earlier):
    images, written = split_outputs([Path(name) for name in names])
    assert written == [names[i] for i in earlier]
    assert images == [name for name in names if name not in written]

"""The trained models that come with the package."""

import os
import pickle
import re

import cv2
import numpy as np
import pytest
import torch

from tests.conftest import USERS_DATASETS
from tests.helpers import photo, start_topformer, topformer
from topformer_d2 import InputError, Predictor, get_config, list_models
from topformer_d2.checkpoint import SafeCheckpointer, read_weights
from topformer_d2.config import load_config, model_card, model_files, zoo
from topformer_d2.data.images import read_image
from topformer_d2.data.synthetic import write_synthetic
from topformer_d2.modeling import build_model

MODELS = list_models()
MOST_BYTES, MOST_BYTES_OF_ALL = 4_000_000, 16_000_000


def test_some_are_there_and_small():
    sizes = [os.path.getsize(model_files(name)[1]) for name in MODELS]
    assert "camvid_t" in MODELS
    assert max(sizes) <= MOST_BYTES and sum(sizes) <= MOST_BYTES_OF_ALL


@pytest.mark.parametrize("name", MODELS)
def test_a_name_is_all_that_a_predictor_needs(name):
    predictor = Predictor(name)
    scene = predictor(np.full((120, 160, 3), 90, np.uint8))
    cfg = get_config(name)
    if "sem_seg" in predictor.info.tasks:
        assert scene.label.shape == (120, 160)
        assert len(cfg.DATASETS.STUFF_CLASSES) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if "instances" in predictor.info.tasks:
        assert scene.boxes.shape == (len(scene.scores), 4)
        assert len(cfg.DATASETS.THING_CLASSES) == cfg.MODEL.RETINANET.NUM_CLASSES


@pytest.mark.parametrize("name", MODELS)
def test_a_card_says_where_a_model_is_from(name):
    card = model_card(name)
    assert card["bytes"] == os.path.getsize(model_files(name)[1])
    assert len(card["commit"]) == 40 and len(card["sha256"]) == 64
    assert card["data"] and card["command"].startswith("topformer ")
    assert all(0 < value < 100 for of in card["metrics"].values() for value in of.values())


def test_other_weights_and_keys_override_it():
    assert get_config("camvid_t").MODEL.WEIGHTS.endswith("camvid_t.safetensors")
    cfg = get_config("camvid_t", ["MODEL.WEIGHTS", "own.pth", "INPUT.MIN_SIZE_TEST", "720"])
    assert cfg.MODEL.WEIGHTS == "own.pth" and cfg.INPUT.MIN_SIZE_TEST == 720


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camvid_t").write_text("VERSION: 2\nMODEL: {WEIGHTS: mine.pth}\n")
    assert load_config("camvid_t").MODEL.WEIGHTS == "mine.pth"


def test_an_output_folder_of_that_name_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camvid_t").mkdir()
    weights = model_files("camvid_t")[1]
    assert load_config("camvid_t").MODEL.WEIGHTS == get_config("camvid_t").MODEL.WEIGHTS == weights
    predictor = pickle.loads(pickle.dumps(Predictor("camvid_t")))
    assert predictor.info.tasks == ("sem_seg",)
    (tmp_path / "camvid_t").rmdir()
    (tmp_path / "camvid_t").write_text("VERSION: 2\nMODEL: {WEIGHTS: mine.pth}\n")
    assert weights == get_config("camvid_t").MODEL.WEIGHTS


def test_an_unknown_name_is_told_the_nearest():
    for call in (Predictor, get_config, model_card):
        with pytest.raises(InputError, match=r"camvid_tt.*camvid_t"):
            call("camvid_tt")


def test_changed_weights_are_refused(tmp_path, monkeypatch):
    for path in zoo._FOLDER.glob("camvid_t.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(zoo, "_FOLDER", tmp_path)
    weights = tmp_path / "camvid_t.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match=r"camvid_t\.safetensors.*SHA-256"):
        Predictor("camvid_t")


@pytest.mark.parametrize("content", ["{", "{}", "[]", None])
def test_a_damaged_card_is_named(tmp_path, monkeypatch, content):
    for path in zoo._FOLDER.glob("camvid_t.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(zoo, "_FOLDER", tmp_path)
    card = tmp_path / "camvid_t.json"
    card.unlink() if content is None else card.write_text(content)
    with pytest.raises(InputError, match=r"camvid_t\.json was damaged.*install"):
        Predictor("camvid_t")


@pytest.mark.parametrize("ending", [".yaml", ".safetensors"])
def test_a_missing_file_of_a_model_is_named(tmp_path, monkeypatch, ending):
    for path in zoo._FOLDER.glob("camvid_t.*"):
        if path.suffix != ending:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(zoo, "_FOLDER", tmp_path)
    with pytest.raises(InputError, match=rf"camvid_t\{ending} is missing: install"):
        get_config("camvid_t")


def test_a_training_starts_from_one_by_its_name():
    cfg = get_config("camvid_t")
    model = build_model(cfg)
    SafeCheckpointer(model, require_all=True).load("camvid_t")
    weights = read_weights(model_files("camvid_t")[1])
    own = model.state_dict()
    assert all(torch.equal(own[key], value.float()) for key, value in weights.items())
    with pytest.raises(InputError, match=r"camvid_t does not exist; .*camvid_t\.safetensors"):
        read_weights("camvid_t")  # which takes files alone, and says where that one is
    with pytest.raises(InputError, match=r"camvid_tt does not exist .*'camvid_t'"):
        SafeCheckpointer(model).load("camvid_tt")


def test_the_command_predicts_with_one(tmp_path):
    image = photo(tmp_path / "street.png", 96, 128)
    found = topformer("predict", "--model", "camvid_t", "--input", image, "--output", tmp_path)
    assert found.returncode == 0
    (labels,) = tmp_path.rglob("street_label.png")
    written = cv2.imread(str(labels), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(written, Predictor("camvid_t")(read_image(image)).label)


def test_the_command_exports_one(tmp_path):
    file = tmp_path / "m.onnx"
    topformer("export", "--config-file", "camvid_t", "--format", "onnx", "--output", file)
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    ours, theirs = Predictor("camvid_t")(image), Predictor(file)(image)
    assert (ours.label == theirs.label).mean() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_cards_figures_are_found_again(name, tmp_path):
    """On real data, where DETECTRON2_DATASETS had it when the tests began; the demo's is made."""
    for dataset, figures in model_card(name)["metrics"].items():
        folder, root = dataset.split("_")[0], USERS_DATASETS
        if folder == "synthetic":  # the project's own, as `topformer demo` makes it
            root = str(tmp_path / "datasets")
            write_synthetic(root)
        elif not os.path.isdir(os.path.join(root, folder)):
            pytest.skip(f"{dataset} is not here")
        words = ("eval", "--config-file", name, "DATASETS.TEST", f"('{dataset}',)")
        run = start_topformer(*words, "OUTPUT_DIR", tmp_path / dataset, DETECTRON2_DATASETS=root)
        assert run.returncode == 0, run.stderr
        found = printed_metrics(run.stdout + run.stderr)
        for metric, value in figures.items():
            assert found[metric] == pytest.approx(value, abs=0.01), metric


def printed_metrics(log):
    """What Detectron2 prints for pasting, by "group/metric"."""
    lines = re.findall(r"copypaste: (.*)", log)
    found, group = {}, None
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("Task: "):
            group = line.removeprefix("Task: ")
        elif not line[0].isdigit():
            values = map(float, following.split(","))
            found |= {f"{group}/{key}": v for key, v in zip(line.split(","), values, strict=True)}
    return found

"""Detectron2's DefaultPredictor, on this project's models."""

import copy
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import default_predictor, photo, save_untrained
from topformer_d2 import get_config
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.data.images import read_image
from topformer_d2.errors import InputError
from topformer_d2.inference import Predictor

CONFIG = "seg_topformer_t_synthetic"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_untrained(get_config(CONFIG), tmp_path_factory.mktemp("weights") / "m.safetensors")


@pytest.mark.slow
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
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=900
    )
    assert result.stdout.splitlines()[-2:] == ["(150, 50, 70)", "(150, 301, 203)"], result.stderr


def test_predictor_resizes_as_the_evaluation_does(weights, tmp_path):
    predictor = default_predictor(get_config(CONFIG), weights)
    image = read_image(photo(tmp_path / "a.png"))
    out = predictor(image)["sem_seg"]
    small = cv2.resize(image[:, :, ::-1], (171, 128))
    tensor = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))
    with torch.no_grad():
        expected = predictor.model([{"image": tensor, "height": 90, "width": 120}])[0]["sem_seg"]
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_weights_that_fit_in_part_are_refused(weights, tmp_path):
    with pytest.raises(InputError, match=r"classifier\.weight is \(6, .*NUM_CLASSES"):
        Predictor(get_config(CONFIG, ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "9"]), weights)
    backbone = {k: v for k, v in load_file(weights).items() if k.startswith("backbone.")}
    path = str(tmp_path / "backbone.pth")
    save_state_dict(backbone, path)
    with pytest.raises(InputError, match=r"sem_seg_head\.\S+ is missing"):
        Predictor(get_config(CONFIG), path)


def _in_a_child(steps, results):
    for step in steps:
        try:
            results.put(step())
        except Exception as e:
            results.put(e)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_is_told_and_does_not_hang(weights):
    predictor = Predictor(get_config(CONFIG, ["MODEL.DEVICE", "cpu"]), weights, num_threads=2)
    image = np.zeros((64, 96, 3), np.uint8)
    predictor(image)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    steps = [lambda: predictor(image).label.sum(), lambda: Predictor(CONFIG, weights).backend]
    child = context.Process(target=_in_a_child, args=(steps, results))
    child.start()
    child.join(300)
    try:
        assert child.exitcode == 0
        for _ in steps:
            error = results.get()
            assert isinstance(error, InputError) and "forked" in str(error)
            assert "spawn" in str(error)
    finally:
        child.kill()


def test_a_predictor_is_pickled_and_copied(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(weights, "m.safetensors")
    cfg = get_config(CONFIG, ["MODEL.DEVICE", "cpu"])
    predictor = Predictor(cfg, "m.safetensors", tile_size=64, num_threads=1)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 9  # the caller's own from here on
    image = np.random.default_rng(0).integers(0, 256, (64, 130, 3), dtype=np.uint8)
    expected = predictor(image).label
    monkeypatch.chdir("/")
    for copied in (pickle.loads(pickle.dumps(predictor)), copy.deepcopy(predictor)):
        assert copied.info == predictor.info and copied.backend is not predictor.backend
        assert np.array_equal(copied(image).label, expected)


def test_weights_of_the_config_are_found_from_another_folder(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(weights, "m.safetensors")
    cfg = get_config(CONFIG, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "m.safetensors"])
    predictor = Predictor(cfg, num_threads=1)
    image = np.random.default_rng(0).integers(0, 256, (64, 130, 3), dtype=np.uint8)
    expected = predictor(image).label
    monkeypatch.chdir("/")
    assert np.array_equal(pickle.loads(pickle.dumps(predictor))(image).label, expected)


def test_a_predictor_needs_no_data(weights):
    cfg = get_config(CONFIG, ["DATASETS.TEST", "('nowhere',)", "DATASETS.TRAIN", "('nor_here',)"])
    scene = Predictor(cfg, weights)(np.zeros((32, 40, 3), np.uint8))
    assert scene.label.shape == (32, 40) and scene.size == (32, 40)

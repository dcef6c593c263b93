"""decoder.wasm of the page, run by Node.js, held against the same cases as the C files."""

import base64
import dataclasses
import json
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.helpers import REPOSITORY
from tests.inference.test_labels import HARD, draw_case
from tests.native.library import compiled_folder
from tests.native.test_boxes import build, outputs_of
from tools.decoder_wasm.build import TARGET, sources_digest
from tools.decoder_wasm.build import build as build_decoder
from topformer_d2 import label_map
from topformer_d2.export.boxes import box_decoding
from topformer_d2.native import library

SCRIPTS = REPOSITORY / "topformer_d2/web/page/scripts"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


def run_node(folder, labels=(), boxes=()):
    """The answers of decoder.mjs for label cases (logits, size, chain) and boxes (model, logits,
    deltas, sizes)."""
    floats, none = [], (0, 0)
    cases = {"labels": [], "boxes": [], "floats": str(folder / "floats")}
    for logits, size, chain in labels:
        floats.append(logits.numpy())
        sides = {"input": chain.get("input_size", none), "valid": chain.get("valid_size", none)}
        cases["labels"].append({"shape": list(logits.shape), "size": size, **sides})
    for model, logits, deltas, sizes in boxes:
        floats += [each.numpy() for each in (*logits, *deltas)]
        decoding = dataclasses.asdict(box_decoding(model))
        cases["boxes"].append({"decoding": decoding, "classes": model.num_classes, "sizes": sizes})
    (folder / "floats").write_bytes(b"".join(each.tobytes() for each in floats))
    (folder / "cases").write_text(json.dumps(cases))
    program = REPOSITORY / "tests/web/decoder.mjs"
    words = ["node", program, SCRIPTS, folder / "cases", folder / "answers"]
    subprocess.run(words, check=True, timeout=300)
    return json.loads((folder / "answers").read_text())


def array(text, kind):
    return np.frombuffer(base64.b64decode(text), kind)


def check_labels(cases, folder, monkeypatch):
    monkeypatch.setattr(library, "FOLDER", compiled_folder() or folder)
    is_compiled = library.native_library() is not None
    answers = run_node(folder, labels=cases)["labels"]
    assert len(answers) == len(cases)
    for (logits, size, chain), answer in zip(cases, answers, strict=True):
        found = array(answer, np.uint8 if len(logits) <= 256 else np.uint16).reshape(size)
        # The same operations in the same order; Python's way rounds otherwise.
        different = np.mean(found != label_map(logits, size, **chain).numpy())
        assert different <= (0 if is_compiled else 1e-4)


def test_the_module_is_of_these_sources():
    assert sources_digest().encode() in TARGET.read_bytes(), (
        "the C files have been changed: python tools/decoder_wasm/build.py"
    )
    assert TARGET.stat().st_size < 50_000


@needs_node
def test_labels_of_random_sizes_chains_and_classes(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    many = torch.randn(300, 7, 5, generator=generator), (40, 31), {}
    check_labels([*(draw_case(seed) for seed in range(40)), many], tmp_path, monkeypatch)


@needs_node
@pytest.mark.parametrize("kind", HARD)
def test_labels_of_maps_that_are_hard_to_decide(kind, tmp_path, monkeypatch):
    cases = [draw_case(seed) for seed in range(12)]
    cases = [(HARD[kind](logits).contiguous(), size, chain) for logits, size, chain in cases]
    check_labels(cases, tmp_path, monkeypatch)


@needs_node
@pytest.mark.parametrize(
    ("num_classes", "decoding"),
    [
        (3, {}),
        (80, {}),
        (3, {"test_topk_candidates": 20}),
        (3, {"test_score_thresh": 0.0, "max_detections_per_image": 1000}),
        (3, {"test_score_thresh": 1.0}),
        (1, {"test_nms_thresh": 0.2, "max_detections_per_image": 5}),
    ],
)
def test_boxes_equal_the_models_own(num_classes, decoding, tmp_path):
    model, cases = build(num_classes, **decoding), []
    generator = torch.Generator().manual_seed(num_classes)
    sizes = [(96, 128), (70, 131), (8, 8)]
    for size in sizes:
        cases.append((model, *outputs_of(model, *size, generator)))
    answers = run_node(tmp_path, boxes=cases)["boxes"]
    for size, (_, logits, deltas, levels), answer in zip(sizes, cases, answers, strict=True):
        features = [torch.zeros(1, 1, *each) for each in levels]
        images = SimpleNamespace(image_sizes=[size])
        (expected,) = model.forward_inference(images, features, (logits, deltas))
        assert array(answer["classes"], np.int32).tolist() == expected.pred_classes.tolist()
        assert (len(expected) > 0) == (decoding.get("test_score_thresh") != 1.0)
        np.testing.assert_allclose(array(answer["scores"], np.float32), expected.scores, atol=1e-6)
        boxes = array(answer["boxes"], np.float32).reshape(-1, 4)
        np.testing.assert_allclose(boxes, expected.pred_boxes.tensor, rtol=1e-5, atol=1e-3)


@needs_node
def test_outputs_that_are_not_finite_are_told(tmp_path):
    logits, size, chain = draw_case(0)
    logits[0, 0, 0] = float("nan")
    model = build(2)
    boxes = model, *outputs_of(model, 64, 64, torch.Generator().manual_seed(0))
    boxes[2][0][0, 0, 0, 0] = float("inf")
    answers = run_node(tmp_path, [(logits, size, chain)], [boxes])
    assert all("NaN" in answers[part][0]["error"] for part in ("labels", "boxes"))


@pytest.mark.slow
def test_a_new_build_is_the_same_file(tmp_path):
    if shutil.which("clang") is None or shutil.which("wasm-ld") is None:
        pytest.skip("clang or lld is not installed")
    version = subprocess.run(["clang", "--version"], capture_output=True, text=True).stdout
    if "clang version 14." not in version:
        pytest.skip("the file was made by another version of clang")
    build_decoder(tmp_path / "decoder.wasm")
    assert (tmp_path / "decoder.wasm").read_bytes() == TARGET.read_bytes()

"""The toolkit's Predictor: against Detectron2's, in tiles, in batches, from videos."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from tests.helpers import default_predictor
from topformer_d2 import get_config
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.errors import InputError
from topformer_d2.inference import Predictor
from topformer_d2.inference.optimization import optimize_for_inference
from topformer_d2.inference.video import VideoReader, VideoWriter
from topformer_d2.visualization import predict_video

CONFIGS = {
    "segmenter": "seg_topformer_t_synthetic",
    "detector": "det_retinanet_lite_topformer_t",
    "joint": "multitask_lite_topformer_t_synthetic",
}
SIZES = ["INPUT.MIN_SIZE_TEST", "0", "INPUT.TEST_SIZE_DIVISOR", "1"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """By kind: a config, weights that say something everywhere, and the model."""
    folder, found = tmp_path_factory.mktemp("models"), {}
    for kind, name in CONFIGS.items():
        cfg = get_config(name, [*SIZES, "TEST.DETECTIONS_PER_IMAGE", "20"])
        torch.manual_seed(0)
        model = build_model(cfg).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 1.5)
                module.running_mean.normal_(std=0.1)
        if kind != "detector":
            torch.nn.init.normal_(model.sem_seg_head.classifier.weight)
        if kind != "segmenter":
            torch.nn.init.normal_(model.head.cls_score.weight, std=1.0)
            torch.nn.init.zeros_(model.head.cls_score.bias)
        weights = str(folder / f"{kind}.pth")
        save_state_dict(model.state_dict(), weights)
        found[kind] = cfg, weights, model
    return found


def picture(height, width, seed=0):
    """Blobs of colour, as a photograph has."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("size", [(96, 160), (101, 77)])
@pytest.mark.parametrize("kind", CONFIGS)
def test_answers_are_detectron2s(models, kind, size):
    cfg, weights, _ = models[kind]
    image = picture(*size)
    scene = Predictor(cfg, weights)(image)
    expected = default_predictor(cfg, weights)(image)
    if kind != "detector":
        assert scene.label.dtype == np.uint8
        logits = expected["sem_seg"]
        chosen = logits.gather(0, torch.from_numpy(scene.label)[None].long())[0]
        assert (logits.amax(0) - chosen).max() < 1e-3
    if kind != "segmenter":
        instances = expected["instances"]
        assert len(scene.boxes) == len(instances) > 0
        np.testing.assert_allclose(scene.scores, instances.scores, atol=1e-4)
        np.testing.assert_allclose(scene.boxes, instances.pred_boxes.tensor, atol=1e-2)
        assert scene.classes.tolist() == instances.pred_classes.tolist()


def test_confidence_and_batches(models):
    cfg, weights, _ = models["joint"]
    predictor = Predictor(cfg, weights, num_threads=1)
    images = [picture(64, 96, 0), picture(80, 80, 1), picture(64, 96, 2)]
    several = predictor(images, confidence=True)
    for image, scene in zip(images, several, strict=True):
        alone = predictor(image)
        assert alone.confidence is None and (alone.label != scene.label).mean() < 1e-3
        assert scene.confidence.shape == image.shape[:2]
        probabilities = default_predictor(cfg, weights)(image)["sem_seg"].softmax(0).amax(0)
        np.testing.assert_allclose(scene.confidence, probabilities, atol=1e-3)
        np.testing.assert_allclose(alone.boxes, scene.boxes, atol=1e-2)


@pytest.mark.parametrize("number", [1, 2])
def test_threads_are_set_for_the_call_alone(models, number, monkeypatch):
    cfg, weights, _ = models["segmenter"]
    predictor = Predictor(cfg, weights, num_threads=number)
    seen, before = [], torch.get_num_threads()
    run = predictor.backend.run
    monkeypatch.setattr(
        predictor.backend, "run", lambda x: (seen.append(torch.get_num_threads()), run(x))[1]
    )
    predictor(picture(64, 64))
    assert seen == [number] and torch.get_num_threads() == before


def test_batches_have_an_end(models, monkeypatch):
    cfg, weights, _ = models["segmenter"]
    predictor = Predictor(cfg, weights)
    assert predictor.backend.batch == (1 if cfg.MODEL.DEVICE == "cpu" else 8)
    seen, run = [], predictor.backend.run
    monkeypatch.setattr(predictor.backend, "batch", 2)
    monkeypatch.setattr(predictor.backend, "run", lambda x: (seen.append(len(x)), run(x))[1])
    images = [picture(64, 64, seed) for seed in range(5)]
    found = predictor(images)
    assert seen == [2, 2, 1]
    for image, scene in zip(images, found, strict=True):
        assert np.array_equal(scene.label, predictor(image).label)


@pytest.mark.parametrize("kind", CONFIGS)
def test_folded_batch_norms_change_nothing(models, kind):
    model = models[kind][2]
    folded = optimize_for_inference(model)
    left = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    count = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    assert len(left) <= (0 if kind == "segmenter" else count / 3)
    image = torch.from_numpy(picture(64, 96).transpose(2, 0, 1).copy())
    with torch.no_grad():
        outputs = [m([{"image": image}])[0] for m in (model, folded)]
    if kind != "detector":
        torch.testing.assert_close(*(o["sem_seg"] for o in outputs), rtol=1e-3, atol=1e-3)
    if kind != "segmenter":
        torch.testing.assert_close(*(o["instances"].scores for o in outputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_tiles_of_a_model(models, kind):
    cfg, weights, _ = models[kind]
    image = picture(200, 300)
    scene = Predictor(cfg, weights, tile_size=128)(image)
    whole = Predictor(cfg, weights, tile_size=320)(image)
    plain = Predictor(cfg, weights)(image)
    if kind != "detector":
        assert np.array_equal(whole.label, plain.label)
        assert scene.label.shape == (200, 300) and (scene.label != plain.label).any()
    if kind != "segmenter":
        assert len(scene.boxes) > 0 and (scene.boxes.max(0) <= [300, 200, 300, 200]).all()
        assert (np.diff(scene.scores) <= 0).all()
        assert scene.boxes[:, 2].max() > 200  # of the tiles on the right, too


def test_images_in_tiles_keep_their_own_size(models, monkeypatch):
    cfg, weights, _ = models["segmenter"]
    cfg = cfg.clone()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 64, 64
    predictor = Predictor(cfg, weights, tile_size=128)
    seen, run = [], predictor.backend.run
    monkeypatch.setattr(predictor.backend, "run", lambda x: (seen.append(x[0].shape), run(x))[1])
    assert predictor(picture(100, 256)).label.shape == (100, 256)
    assert predictor(picture(90, 120)).label.shape == (90, 120)
    assert seen == [(100, 128, 3)] * 3 + [(90, 120, 3)]


def test_a_video_in_and_out(models, tmp_path, caplog):
    cfg, weights, _ = models["joint"]
    predictor = Predictor(cfg, weights)
    source, output = str(tmp_path / "in.avi"), str(tmp_path / "new" / "out.mp4")
    with VideoWriter(source, 12) as writer:
        for seed in range(4):
            writer.write(picture(64, 96, seed))
    assert predict_video(predictor, source, output, min_score=0.99) == (4, None)
    reader = VideoReader(output)
    assert (reader.num_frames, reader.frame_rate) == (4, 12)
    frames = [*reader]
    assert frames[0].shape == (64, 96, 3) and abs(frames[0].astype(int) - frames[1]).max() > 20
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out.mp4"]
    found = [scene.label.shape for _, scene in predictor.video(source)]
    assert found == [(64, 96)] * 4
    os.truncate(source, os.path.getsize(source) * 3 // 4)
    done, problem = predict_video(predictor, source, output)
    assert 0 < done == len([*VideoReader(output)]) < 4
    assert f"in.avi is cut: it ends after {done} frames of the 4" in problem
    assert len([*predictor.video(source)]) == done and problem in caplog.text
    with pytest.raises(InputError, match="overwrite the input"):
        predict_video(predictor, source, source)
    with pytest.raises(InputError, match=r"as \.mp4 or \.avi"):
        predict_video(predictor, source, str(tmp_path / "x.gif"))


def test_a_folder(models, tmp_path, caplog):
    cfg, weights, _ = models["segmenter"]
    for name in ("b.png", "a.png"):
        cv2.imwrite(str(tmp_path / name), picture(64, 70))
    (tmp_path / "aa.jpg").write_bytes(b"no image")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    predictor = Predictor(tmp_path / "config.yaml", Path(weights))
    found = [*predictor.folder(tmp_path)]
    assert [path[-5:] for path, _ in found] == ["a.png", "b.png"]
    assert np.array_equal(found[0][1].label, found[1][1].label)
    assert "skipped: " in caplog.text and "aa.jpg cannot be read" in caplog.text
    with pytest.raises(InputError, match=r"70x64 pixels, more than the 4479 of `max_pixels`"):
        [*predictor.folder(tmp_path / "b.png", max_pixels=64 * 70 - 1)]
    predictor.backend.model.sem_seg_head.classifier.bias.data.fill_(torch.nan)
    with pytest.raises(InputError, match=r"b\.png: the logits have NaN"):
        [*predictor.folder(tmp_path)]
    assert "a.png: the logits have NaN" in caplog.text


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 3), np.float32),
        [None],
        None,
        "street.jpg",
        Image.new("RGB", (5, 5)),
        5,
    ],
)
def test_what_is_no_image_is_refused(models, image):
    cfg, weights, _ = models["segmenter"]
    of_none = "cv2.imread gives for" if image is None or isinstance(image, list) else ""
    with pytest.raises(InputError, match=f"an image is a NumPy array .*{of_none}"):
        Predictor(cfg, weights)(image)


def test_a_model_that_cannot_be_opened(models, tmp_path):
    cfg, weights, _ = models["segmenter"]
    with pytest.raises(InputError, match=r"`backend` is 'tensorrt'; known"):
        Predictor(cfg, weights, backend="tensorrt")
    with pytest.raises(InputError, match="topformer export"):
        Predictor(cfg, weights, backend="openvino")
    with pytest.raises(InputError, match=r"no\.onnx does not exist"):
        Predictor(str(tmp_path / "no.onnx"))
    for number in (0, -1, 1.5):
        with pytest.raises(InputError, match=f"`num_threads` is {number}; it takes an integer"):
            Predictor(cfg, weights, num_threads=number)
    for size in (0, -64, 100, 128.0):
        with pytest.raises(InputError, match=f"`tile_size` is {size}; it takes a multiple of 64"):
            Predictor(cfg, weights, tile_size=size)
    with pytest.raises(InputError, match=r"\.pth is a weights file: name its config"):
        Predictor(weights)
    with pytest.raises(InputError, match=r"no weights file is named: .*Predictor\(config, weights"):
        Predictor(CONFIGS["segmenter"])  # as get_config takes it
    with pytest.raises(InputError, match=r"no config 'seg_topformer_x' \(did you mean"):
        Predictor("seg_topformer_x", weights)
    (tmp_path / "x.avi").write_bytes(b"no video")
    for name, message in (("x.avi", "is not a video that OpenCV"), ("y.avi", "does not exist")):
        with pytest.raises(InputError, match=message):
            VideoReader(str(tmp_path / name))

"""What each export format promises, the same way for all: answers, descriptions, refusals."""

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest

from tests.helpers import exported
from tests.inference.test_whole_way import picture
from topformer_d2.errors import InputError
from topformer_d2.inference import Predictor
from topformer_d2.inference.formats import FORMATS

SIZE = (64, 96)
# Formats whose converters take half a minute; test_mobile_formats.py has them on small networks.
LONG = ("litert", "executorch")
CONFIGS = {
    "joint": "multitask_lite_topformer_t_synthetic",
    "segmenter": "seg_topformer_t_synthetic",
    "detector": "det_retinanet_lite_topformer_t",
}
KEYS = [
    *("TEST.DETECTIONS_PER_IMAGE", "20", "INPUT.MIN_SIZE_TEST", "64"),
    *("INPUT.MAX_SIZE_TEST", "96"),
]


@pytest.fixture
def folder(tmp_path):
    """For the files of an export alone."""
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def models(trained):
    """A function from a key of CONFIGS to a config and weights, with which boxes are found."""

    def make(name):
        few = ["MODEL.RETINANET.NUM_CLASSES", "5"] if name == "detector" else []
        cfg, _, weights = trained(CONFIGS[name], *KEYS, *few)
        return cfg, weights

    return make


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in FORMATS
    ]
)
def kind(request):
    kind = FORMATS[request.param]
    if kind.not_run:
        pytest.skip(f"{kind.name} is not run here: {kind.not_run}")
    missing = [library for library in kind.libraries if find_spec(library) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    return kind


def assert_same(scene, expected, atol=1e-3):
    assert (scene.label is None) == (expected.label is None)
    if expected.label is not None:
        assert scene.label.shape == expected.label.shape
        assert (scene.label == expected.label).mean() >= 0.999
    assert scene.classes.tolist() == expected.classes.tolist()
    np.testing.assert_allclose(scene.scores, expected.scores, rtol=0, atol=atol)
    np.testing.assert_allclose(scene.boxes, expected.boxes, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    "name", ["joint", *(pytest.param(n, marks=pytest.mark.slow) for n in ("segmenter", "detector"))]
)
def test_a_file_answers_as_the_model(models, kind, folder, name):
    model = models(name)
    path = exported(*model, folder / f"m{kind.extension}", file_format=kind.name, size=SIZE)
    assert {file.suffix for file in folder.iterdir()} == {kind.extension, *kind.beside}
    predictor, own = Predictor(path, num_threads=1), Predictor(*model)
    assert predictor.info == own.info and predictor.backend.size == SIZE
    export = predictor.backend.export
    assert export.precision == "float32" and set(kind.libraries) <= set(export.versions)
    assert export.has_raw_boxes == (not kind.gives_boxes and "instances" in own.info.tasks)
    if export.has_raw_boxes:
        assert [n for n in export.outputs if n.startswith("box")] == [
            f"box_deltas_p{i}" for i in range(3, 8)
        ]
    images = [picture(*SIZE, seed) for seed in range(3)]
    expected = own(images)
    if "instances" in own.info.tasks:
        assert sum(len(scene.boxes) for scene in expected) > 5
    with ThreadPoolExecutor(3) as pool:  # which share it
        for scene, reference in zip(pool.map(predictor, images), expected, strict=True):
            assert_same(scene, reference)
    with pytest.raises(InputError, match=r"m\.\w+ cannot be run on float32 of shape"):
        predictor.backend.infer(np.zeros((1, 4, *SIZE), np.float32))


@pytest.mark.slow
def test_free_sizes(models, kind, folder):
    if kind.fixed_size:
        pytest.skip(f"files of {kind.name} have a fixed size")
    model = models("joint")
    path = exported(*model, folder / f"m{kind.extension}", file_format=kind.name)
    predictor, own = Predictor(path, num_threads=1), Predictor(*model)
    for size in ((64, 96), (61, 83), (96, 64)):
        assert_same(predictor(picture(*size)), own(picture(*size)))


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_file_beside_that_is_not_whole_is_named(models, kind, folder, damage):
    path = exported(
        *models("joint"), folder / f"m{kind.extension}", file_format=kind.name, size=SIZE
    )
    for suffix in kind.beside:
        file = folder / f"m{suffix}"
        content = file.read_bytes()
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(content[:-4])
        with pytest.raises(InputError, match=rf"m\{suffix}"):
            Predictor(path)
        file.write_bytes(content)
    Predictor(path)


def test_another_file_is_refused(kind, folder):
    path = folder / f"m{kind.extension}"
    with pytest.raises(InputError, match=rf"m\{kind.extension} does not exist"):
        Predictor(path, backend=kind.runtime)
    for file in (path, *(path.with_suffix(suffix) for suffix in kind.beside)):
        file.write_bytes(b"no model")
    with pytest.raises(InputError, match=r"/m\.\w+ (is|does) not "):
        Predictor(path)


@pytest.mark.slow
def test_float16_halves_the_file(models, kind, folder):
    if "float16" not in kind.precisions:
        pytest.skip(f"{kind.name} has no float16")
    model, sizes = models("joint"), {}
    for precision in ("float32", "float16"):
        path = folder / f"{precision}{kind.extension}"
        exported(*model, path, file_format=kind.name, size=SIZE, precision=precision)
        sizes[precision] = sum(file.stat().st_size for file in folder.glob(f"{precision}.*"))
    assert sizes["float16"] < 0.6 * sizes["float32"]
    export = Predictor(path).backend.export
    assert export.precision == "float16"
    found, expected = (Predictor(folder / f"{p}{kind.extension}")(picture(*SIZE)) for p in sizes)
    assert (found.label == expected.label).mean() > 0.95


def test_a_precision_that_a_format_has_not_is_refused(models, kind, folder):
    with pytest.raises(InputError, match=r"`precision` is 'int4'; .*float32"):
        exported(
            *models("joint"),
            folder / f"m{kind.extension}",
            file_format=kind.name,
            size=SIZE,
            precision="int4",
        )

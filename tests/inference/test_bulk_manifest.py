"""What a folder of predictions says of itself, and which runs may go on in it."""

import json

import pytest
from detectron2.utils.file_io import PathManager

from tests.faults.stand_in import SIZE, StandIn, bulk, contents
from tests.helpers import photo, save_untrained
from tests.inference.conftest import COUNT
from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.inference.bulk import identify_model, list_inputs, predict_in_bulk
from topformer_d2.inference.bulk.manifest import open_manifest


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """A model of both tasks: its config and weights."""
    cfg = get_config("multitask_lite_topformer_t_synthetic", ["MODEL.DEVICE", "cpu"])
    return cfg, save_untrained(cfg, tmp_path_factory.mktemp("joint") / "model.pth")


def differing_size(photos, out):
    predict_in_bulk(
        StandIn(), list_inputs(photos), out, identity={"stand-in": 1}, partition_size=SIZE + 1
    )


def differing_model(photos, out):
    predict_in_bulk(
        StandIn(), list_inputs(photos), out, identity={"stand-in": 2}, partition_size=SIZE
    )


def differing_inputs(photos, out):
    photo(photos / "new.png")
    bulk(photos, out)


@pytest.mark.parametrize(
    ("again", "key"),
    [
        (differing_model, "model.stand-in is 2 and was 1"),
        (differing_size, f"inputs.partition_size is {SIZE + 1} and was {SIZE}"),
        (differing_inputs, f"inputs.count is {COUNT + 1} and was {COUNT}"),
        (lambda photos, out: bulk(photos, out, label_format="rle"), "settings.labels is 'rle'"),
        (lambda photos, out: bulk(photos, out, max_pixels=9**9), "settings.max_pixels is"),
    ],
)
def test_another_run_into_the_same_folder_is_refused(photos, tmp_path, again, key):
    out = tmp_path / "out"
    bulk(photos, out)
    before = contents(out)
    with pytest.raises(InputError) as error:
        again(photos, out)
    assert key in str(error.value) and "out" in str(error.value)
    assert (".txt" in str(error.value)) == (again is differing_inputs)  # of the new images alone
    assert contents(out) == before


def test_a_manifest_without_partitions_blocks_no_other_run(photos, tmp_path):
    def nothing(partitions, work):
        raise InputError("no cluster is there")
        yield

    out = tmp_path / "out"
    with pytest.raises(InputError, match="no cluster"):
        bulk(photos, out, engine=nothing)
    differing_model(photos, out)
    assert json.loads((out / "manifest.json").read_text())["model"] == {"stand-in": 2}
    other = tmp_path / "page"
    other.mkdir()
    (other / "manifest.json").write_text('{"name": "of a web page"}')
    with pytest.raises(InputError, match="no manifest of a prediction"):
        bulk(photos, other)
    assert "of a web page" in (other / "manifest.json").read_text()


def test_the_keys_of_a_config_and_the_weights_tell_models_apart(joint):
    cfg, weights = joint
    one, other = identify_model(cfg, weights, tile_size=None), cfg.clone()
    other.INPUT.MIN_SIZE_TEST, other.OUTPUT_DIR = 64, "/elsewhere"
    two = identify_model(other, weights, tile_size=None)
    differing = {key for key in one["config"] if one["config"][key] != two["config"][key]}
    assert differing == {"INPUT.MIN_SIZE_TEST"}
    assert one["weights_sha256"] == two["weights_sha256"] and one["tile_size"] is None
    of_training = cfg.clone()
    of_training.DATALOADER.NUM_WORKERS, of_training.SOLVER.BASE_LR = 9, 0.5
    of_training.INPUT.BLUR.PROB, of_training.MODEL.SEM_SEG_LOSS.AUXILIARY_WEIGHT = 0.5, 0.1
    assert identify_model(of_training, weights, tile_size=None) == one
    other.MODEL.RETINANET.SCORE_THRESH_TEST += 0.1
    assert identify_model(other, weights)["config"] != two["config"]


def test_remote_weights_are_those_that_were_fetched(joint, monkeypatch):
    cfg, weights = joint
    fetched = {"http://host/model.pth": weights}
    monkeypatch.setattr(PathManager, "get_local_path", lambda path: fetched.get(path, path))
    assert identify_model(cfg, "http://host/model.pth") == identify_model(cfg, weights)


def test_a_key_that_one_version_alone_has_is_not_compared(tmp_path):
    (tmp_path / "part-000000").mkdir()
    old = {"model": {"weights_sha256": "a", "config": {"MODEL.A": 1, "MODEL.GONE": 2}}}
    new = {"model": {"weights_sha256": "a", "config": {"MODEL.A": 1, "MODEL.NEW": 3}}}
    versions = {"versions": [{"topformer_d2": "0"}], "counts": None}
    (tmp_path / "manifest.json").write_text(json.dumps(old | versions))
    open_manifest(tmp_path, new)
    new["model"]["config"]["MODEL.A"] = 4
    with pytest.raises(InputError, match=r"run: model\.config\.MODEL\.A is 4 and was 1\. "):
        open_manifest(tmp_path, new)


@pytest.mark.parametrize(
    ("path", "beside", "counts"),
    [
        *(("m.onnx", ".bin", False), ("m.xml", ".bin", True), ("m.param", ".bin", True)),
        *(("m.param", ".json", True), ("m.tflite", ".json", True), ("m.tflite", ".bin", False)),
    ],
)
def test_a_model_is_all_of_its_files(tmp_path, path, beside, counts):
    model = tmp_path / path
    model.write_bytes(b"graph")
    other = model.with_suffix(beside)
    other.write_bytes(b"one")
    before = identify_model(model)
    other.write_bytes(b"two")
    assert (identify_model(model) != before) == counts

"""A dataset of a few small images, made before the package registers where datasets are."""

import os
import signal
import tempfile

import pytest

from tests.helpers import REPOSITORY, SMALL_DETECTOR, SMALL_SEGMENTER

_FOLDER = tempfile.TemporaryDirectory(prefix="topformer_d2_tests_")
USERS_DATASETS = os.environ.get("DETECTRON2_DATASETS", "datasets")
os.environ["DETECTRON2_DATASETS"] = _FOLDER.name
os.environ.setdefault("OMP_NUM_THREADS", "2")
# A shell's background job starts with Ctrl-C ignored. The tests of Ctrl-C would wait without end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def synthetic_dataset():
    """12 training and 4 validation images of 64x80, registered as synthetic_sem_seg_{train,val}."""
    from topformer_d2.data.synthetic import write_synthetic

    return write_synthetic(_FOLDER.name, num_train=12, num_val=4, size=(64, 80))


@pytest.fixture(scope="session", autouse=True)
def no_charts():
    """Runs in this process draw no charts, which takes longer than a tiny run; gives what does."""
    from topformer_d2.engine import charts

    with pytest.MonkeyPatch.context() as patch:
        draw = charts._draw
        patch.setattr(charts, "_draw", lambda *_: None)
        yield draw


@pytest.fixture(scope="module")
def with_charts(no_charts):
    """From here on to the end of the module runs draw their charts."""
    from topformer_d2.engine import charts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "_draw", no_charts)
        yield


@pytest.fixture
def tiny_config(tmp_path):
    """get_config's arguments for a run on the synthetic dataset that takes seconds."""
    from topformer_d2 import get_config

    def make(*opts):
        small = [*SMALL_SEGMENTER, "OUTPUT_DIR", str(tmp_path / "output")]
        return get_config("seg_topformer_t_synthetic", [*small, *opts])

    return make


@pytest.fixture
def tiny_detector(tmp_path):
    """The same for a detector; `kind` is "lite_" or, for the full one, ""."""
    from topformer_d2 import get_config

    def make(*opts, kind="lite_"):
        small = [*SMALL_DETECTOR, "DATALOADER.NUM_WORKERS", "0", "SEED", "0"]
        small += ["MODEL.DEVICE", "cpu", "TEST.EVAL_PERIOD", "0"]
        small += ["OUTPUT_DIR", str(tmp_path / "output")]
        return get_config(f"det_retinanet_{kind}topformer_t", [*small, *opts])

    return make


@pytest.fixture
def tiny_classifier(tmp_path):
    """The same for a classifier of 2 classes with 3 images of 40x48 each; `opts` come last."""
    from tests.helpers import write_class_folders
    from topformer_d2.config import load_config

    for split, seed in (("train", 0), ("val", 100)):
        write_class_folders(tmp_path / split, ("cat", "dog"), 3, seed)
    file = tmp_path / "cls.yaml"
    file.write_text(
        "DATASETS:\n  TRAIN: [pets_train]\n  TEST: [pets_val]\n  FOLDERS:\n"
        f"    pets_train: {{CLASS_FOLDERS: {tmp_path / 'train'}}}\n"
        f"    pets_val: {{CLASS_FOLDERS: {tmp_path / 'val'}}}\n"
        f"_BASE_: {REPOSITORY / 'configs/cls_topformer_t.yaml'}\n"
    )

    def make(*opts):
        small = ["INPUT.CLS.SIZE", "32", "INPUT.MIN_SIZE_TEST", "36"]
        small += ["SOLVER.IMS_PER_BATCH", "4", "SOLVER.REFERENCE_BATCH", "0"]
        small += ["SOLVER.WARMUP_ITERS", "0", "DATALOADER.NUM_WORKERS", "0", "SEED", "0"]
        small += ["MODEL.DEVICE", "cpu", "TEST.EVAL_PERIOD", "0", "TEST.BEST_METRICS", "[]"]
        return load_config(file, [*small, "OUTPUT_DIR", str(tmp_path / "output"), *opts])

    return make


@pytest.fixture(params=["compiled", "python"])
def native_form(request, tmp_path, monkeypatch):
    """The compiled library, or Python without it."""
    from topformer_d2.native import library

    from .native.library import compiled_folder

    folder = compiled_folder() if request.param == "compiled" else tmp_path
    if folder is None:
        pytest.skip("there is no C compiler")
    monkeypatch.setattr(library, "FOLDER", folder)
    assert library.native_status().startswith(request.param.replace("python", "in Python"))
    return request.param

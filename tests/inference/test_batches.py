"""Many image files in batches: their order, what is wrong with one of them, memory."""

import os
import signal
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import photo, save_untrained
from topformer_d2 import get_config
from topformer_d2.errors import ForkedError, InputError
from topformer_d2.inference import Predictor, batches

CONFIG = "seg_topformer_t_synthetic"
SIZE = 4  # of a batch


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_untrained(get_config(CONFIG), tmp_path_factory.mktemp("weights") / "m.safetensors")


@pytest.fixture
def predictor(weights):
    predictor = Predictor(get_config(CONFIG, ["MODEL.DEVICE", "cpu"]), weights)
    predictor.backend.batch = SIZE
    return predictor


@pytest.fixture
def runs(predictor, monkeypatch):
    """Filled with the number of images of each run of the network."""
    found, run = [], predictor.backend.run
    monkeypatch.setattr(
        predictor.backend, "run", lambda images: (found.append(len(images)), run(images))[1]
    )
    return found


def predict(predictor, files, **keys):
    """predict_in_batches as a Predictor calls it, with the image of each kept."""
    keys = {"batch_size": predictor.backend.batch, **keys}
    for found in batches.predict_in_batches(predictor, files, **keys):
        yield found, found.image


def test_files_come_in_order_and_share_batches_by_size(predictor, runs, tmp_path):
    files = [
        photo(tmp_path / f"{i}.png", 40 if i == 1 else 64, 64, seed=i) for i in range(SIZE + 2)
    ]
    (tmp_path / "bad.png").write_bytes(b"no image")
    files.insert(3, str(tmp_path / "bad.png"))
    found = list(predict(predictor, files))
    assert [each.file for each, _ in found] == files
    assert runs == [2, 1, 3]  # 0 and 2, 1, then those behind the bad one
    bad, image = found.pop(3)
    assert bad.scene is image is None and bad.file in bad.problem
    for each, image in found:
        expected = predictor(image).label
        assert each.problem is None and (each.scene.label != expected).mean() < 1e-3
    assert [Path(file).name for file, _ in predictor.folder(tmp_path)] == [
        f"{i}.png" for i in range(SIZE + 2)
    ]


@pytest.mark.parametrize("num_images", [1, 2])
def test_one_image_of_a_batch_that_fails_is_named_alone(
    predictor, tmp_path, monkeypatch, num_images
):
    files = [photo(tmp_path / f"{i}.png", 64, 64, seed=i) for i in range(num_images)]
    run, bad = predictor.backend.run, batches.read_image(files[-1])

    def refuse(images):
        if any(np.array_equal(image, bad) for image in images):
            raise InputError("the logits have NaN")
        return run(images)

    # Resizing would change what is compared.
    monkeypatch.setattr(predictor, "_resize", lambda image: image)
    monkeypatch.setattr(predictor.backend, "run", refuse)
    found = [each for each, _ in predict(predictor, files)]
    assert [each.scene is None for each in found] == [False] * (num_images - 1) + [True]
    assert found[-1].problem == f"{files[-1]}: the logits have NaN"


def test_a_batch_too_large_for_the_memory_is_run_one_by_one(predictor, tmp_path, monkeypatch):
    run, sizes = predictor.backend.run, []

    def allocate(images):
        sizes.append(len(images))
        if len(images) > 1:
            raise RuntimeError("std::bad_alloc")
        return run(images)

    monkeypatch.setattr(predictor.backend, "run", allocate)
    files = [photo(tmp_path / f"{i}.png", 64, 64, seed=i) for i in range(6)]
    found = list(predict(predictor, files))
    # What was found not to fit is not tried again by the batch after it.
    assert sizes == [4, 2, *[1] * 6] and all(each.scene for each, _ in found)
    monkeypatch.setattr(predictor.backend, "run", lambda images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(predict(predictor, files))


def test_two_batches_are_held_at_most_one_of_them_in_another_thread(
    predictor, tmp_path, monkeypatch
):
    predictor.backend.batch = 2
    read, held, counts, readers = batches.read_image, [], [], set()

    def watch(path, **keys):
        image = read(path, **keys)
        held.append(weakref.ref(image))
        counts.append(sum(image() is not None for image in held))
        readers.add(threading.current_thread() is threading.main_thread())
        return image

    monkeypatch.setattr(batches, "read_image", watch)
    for i in range(12):
        photo(tmp_path / f"{i}.png", 32, 32)
    assert len(list(predictor.folder(tmp_path))) == len(counts) == 12
    assert max(counts) <= 4 and readers == {False}


def test_large_images_make_small_batches(predictor, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_BATCH_PIXELS", 64 * 64 + 1)
    files = [photo(tmp_path / "a.png", 64, 64)] * 5
    assert len(list(predict(predictor, files))) == 5
    assert runs == [2, 2, 1]


@pytest.fixture
def blocked(predictor, tmp_path, monkeypatch):
    """A generator of predictions whose reader waits in the second image, that wait, and reads."""
    go_on, reads = threading.Event(), []

    def read(path, **keys):
        reads.append(threading.current_thread())
        if len(reads) == 2:
            assert go_on.wait(60)
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr(batches, "read_image", read)
    monkeypatch.setattr(batches, "_BATCH_PIXELS", 1)
    coming = predict(predictor, [str(tmp_path / "a.png")] * 20)
    next(coming)
    yield coming, go_on, reads
    go_on.set()
    reads[-1].join(60)


def test_whoever_stops_does_not_wait_for_the_reader(blocked):
    coming, go_on, reads = blocked
    coming.close()
    assert reads[1].is_alive() and reads[1].daemon and not go_on.is_set()
    go_on.set()
    reads[1].join(60)
    assert not reads[1].is_alive() and len(reads) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_that_goes_on_is_told_so(blocked):
    coming, _, _ = blocked
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # it would wait for ever
        try:
            next(coming)
        except ForkedError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_fork_is_not_the_trouble_of_each_file(predictor, tmp_path, monkeypatch):
    photo(tmp_path / "a.png", 32, 32)
    monkeypatch.setattr(predictor, "_process", -1)
    with pytest.raises(ForkedError):
        list(predictor.folder(tmp_path))


def test_what_ends_the_reader_reaches_the_caller(predictor, monkeypatch):
    monkeypatch.setattr(batches, "read_image", lambda *_, **keys: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(predict(predictor, ["a.png"]))

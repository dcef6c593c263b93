"""Steps of bulk prediction: tables of images, and images that end their process."""

import threading
import weakref
from collections import Counter

import numpy as np
import pytest

from tests.faults.stand_in import StandIn, write_inputs
from topformer_d2.inference.batches import FilePrediction
from topformer_d2.inference.bulk import list_inputs, predict_in_bulk, work
from topformer_d2.inference.bulk.attempts import Attempts, predict_counted, read_counted
from topformer_d2.inference.bulk.partitions import Item
from topformer_d2.inference.bulk.work import Result


def test_a_table_gives_images_back_and_keeps_none_of_them():
    pytest.importorskip("pyarrow", reason="the extra ray has it")
    from topformer_d2.inference.bulk import tables

    items = [Item(0, i, f"/p/\udcff{i}.png", f"\udcff{i}", i) for i in range(2)]
    assert tables.items_of(tables.items_table(items)) == items
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    block = [(items[0], FilePrediction("a", image=image)), (items[1], FilePrediction("b"))]
    block[1][1].problem = "none there"
    found = [tables.read_of(row) for row in tables.rows_of(tables.images_table(block))]
    assert [item for item, _ in found] == items and found[1][1].problem == "none there"
    assert np.array_equal(found[0][1].image, image) and found[1][1].image is None
    kept = weakref.ref(image)
    del image, block, found
    assert kept() is None


def dying(places, seen):
    """A step that ends its process at such a place, for which SystemExit stands."""

    def step(batch):
        results = []
        for item, *_ in [each if isinstance(each[0], Item) else (each,) for each in batch]:
            seen[item.place] += 1
            if item.place in places:
                raise SystemExit
            results.append(Result(item.partition, item.place, b"x"))
        return results

    return step


def until_it_lives(call):
    """The answer of a call that is made again as Ray does it, and how often that was."""
    for number in range(1, 100):
        try:
            return call(), number
        except SystemExit:
            continue
    raise AssertionError("it has no end")


def test_an_image_that_ends_its_process_is_found():
    attempts, seen = Attempts(), Counter()
    batch = [
        (Item(0, i, f"/p/{i}", f"{i}", i), FilePrediction(f"/p/{i}", np.zeros(1))) for i in range(4)
    ]
    step = dying({2}, seen)
    results, calls = until_it_lives(lambda: predict_counted(batch, step, attempts))
    assert [result.place for result in results] == [0, 1, 2, 3]
    assert [result.problem is None for result in results] == [True, True, False, True]
    assert "/p/2" in results[2].problem and calls == 7 and seen[2] == 6
    items = [item for item, _ in batch]

    def read(items):
        step(items)
        yield [(item, FilePrediction(item.path)) for item in items]

    attempts = Attempts()
    blocks, _ = until_it_lives(lambda: list(read_counted(items, read, attempts)))
    problems = [found.problem for block in blocks for _, found in block]
    assert [problem is None for problem in problems] == [True, True, False, True]


def test_a_process_that_dies_of_something_else_costs_no_image():
    attempts = Attempts()
    batch = [(Item(0, i, f"/p/{i}", f"{i}", i), FilePrediction(f"/p/{i}")) for i in range(3)]
    for _ in range(20):  # lost nodes, each before the answer has come
        attempts.begin(("predict", 0, 3))
    results = predict_counted(batch, dying(set(), Counter()), attempts)
    assert all(result.problem is None for result in results)
    assert attempts.begin(("predict", 0, 3)) == 1


def test_deaths_of_whoever_takes_the_images_are_not_counted_as_reading():
    items = [Item(0, i, f"/p/{i}", f"{i}", i) for i in range(2)]

    def read(items):
        for item in items:
            yield [(item, FilePrediction(item.path))]

    attempts = Attempts()
    for _ in range(20):
        blocks = read_counted(items, read, attempts)
        assert [len(next(blocks)), len(next(blocks))] == [1, 1]  # and the process is gone
    blocks = list(read_counted(items, read, attempts))
    assert [found.problem for block in blocks for _, found in block] == [None, None]


def test_images_of_tables_that_were_joined_and_cut():
    arrow = pytest.importorskip("pyarrow", reason="the extra ray has it")
    from topformer_d2.inference.bulk import tables

    images = [np.full((2 + i, 3, 3), i, np.uint8)[..., ::-1] for i in range(4)]
    images.insert(1, None)
    block = [
        (Item(0, i, f"/p/{i}", f"{i}", i), FilePrediction(f"/p/{i}", image=image))
        for i, image in enumerate(images)
    ]
    table = arrow.concat_tables([tables.images_table(block[:2]), tables.images_table(block[2:])])
    for form in (table, table.combine_chunks()):
        found = [tables.read_of(row)[1].image for row in tables.rows_of(form.slice(1, 3))]
        assert found[0] is None and len(found) == 3
        assert np.array_equal(found[1], images[2]) and np.array_equal(found[2], images[3])


def test_pixels_are_not_copied():
    pytest.importorskip("pyarrow", reason="the extra ray has it")
    from topformer_d2.inference.bulk import tables

    image = np.zeros((5, 7, 3), np.uint8)
    table = tables.images_table([(Item(0, 0, "/p", "p", 0), FilePrediction("/p", image=image))])
    (row,) = tables.rows_of(table)
    assert np.shares_memory(tables.read_of(row)[1].image, image)


def test_the_next_images_are_read_while_the_model_predicts(tmp_path, monkeypatch):
    write_inputs(tmp_path / "in", 4)
    monkeypatch.setattr(work, "BLOCK_BYTES", 1)  # an image is a block
    is_read = [threading.Event() for _ in range(4)]
    read_item = work.read_item

    def noting(item, *more):
        found = read_item(item, *more)
        is_read[item.place].set()
        return found

    class Waiting(StandIn):
        waited = ()

        def __call__(self, images):
            self.waited += (is_read[min(len(self.waited) + 1, 3)].wait(60),)
            return super().__call__(images)

    monkeypatch.setattr(work, "read_item", noting)
    predictor = Waiting()
    result = predict_in_bulk(predictor, list_inputs(tmp_path / "in"), tmp_path / "out", identity={})
    assert result.done == 4 and predictor.waited == (True,) * 4

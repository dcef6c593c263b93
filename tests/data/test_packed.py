"""Records as one array give back what was put in."""

import pickle

import numpy as np
import pytest

from topformer_d2.data.packed import PackedRecords

RECORDS = [
    {"file_name": "a.png", "tasks": ("sem_seg",), "height": 3},
    {},
    {"annotations": [{"bbox": [0.5, 1, 2, 3], "segmentation": np.arange(4)}]},
]


def test_items_are_new_copies():
    packed = PackedRecords(iter(RECORDS))
    assert len(packed) == 3
    for index in (2, 0, 1, 0):
        record = packed[index]
        np.testing.assert_equal(record, RECORDS[index])
        record["file_name"] = "changed"
    assert packed[0] == RECORDS[0]
    assert pickle.loads(pickle.dumps(packed))[np.int64(0)] == RECORDS[0]


@pytest.mark.parametrize("index", [-1, 3])
def test_what_is_not_there(index):
    with pytest.raises(IndexError, match=f"record {index} of 3"):
        PackedRecords(RECORDS)[index]


def test_no_records():
    assert len(PackedRecords([])) == 0


def test_the_array_has_little_more_than_the_records():
    records = [{"file_name": "x" * 100, "image_id": i} for i in range(1000)]
    packed = PackedRecords(records)
    assert packed._content.nbytes == sum(len(pickle.dumps(r, protocol=5)) for r in records)
    assert packed._content.base is not None  # of the bytes themselves, which nothing copies

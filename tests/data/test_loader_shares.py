"""Which images the processes of a run get: the same batches for any number of processes."""

import pytest

from topformer_d2.data import loader as loading
from topformer_d2.errors import InputError


@pytest.fixture
def shares(monkeypatch):
    """Batches of a loader by iteration: (position, index) of all processes of a run together."""

    def make(processes, start, *, wide=(), parts=(), batches=6):
        found = [[] for _ in range(batches)]
        for rank in range(processes):
            monkeypatch.setattr(loading.comm, "get_rank", lambda rank=rank: rank)
            monkeypatch.setattr(loading.comm, "get_world_size", lambda: processes)
            records = [{"width": 2 if i in wide else 1, "height": 1} for i in range(10)]
            loader = loading.TrainLoader(
                *(records, lambda record: record),
                **{"total_batch_size": 4, "num_workers": 0, "seed": 3, "parts": parts},
                group_by_shape=True,
            )
            loader.start_iter = start
            for batch, found_there in zip(loader._batches(), found, strict=False):
                assert len(batch) == 4 // processes
                found_there.extend(batch)
        return [sorted(batch) for batch in found]

    return make


@pytest.mark.parametrize("wide", [(), (0, 3, 4), range(10)])
@pytest.mark.parametrize("parts", [(), [(4, 1.0), (6, 2.0)]])
def test_a_batch_has_the_same_images_for_any_number_of_processes(shares, wide, parts):
    whole = shares(1, 0, wide=wide, parts=parts, batches=12)
    for processes, start in ((2, 0), (4, 0), (4, 3), (2, 6), (1, 5)):
        again = shares(processes, start, wide=wide, parts=parts)
        assert again == whole[start : start + 6]
    for batch in whole:
        assert len({index in wide for _, index in batch}) == 1
    if len(wide) in (0, 10):
        positions = [position for batch in whole for position, _ in batch]
        assert positions == list(range(48))


@pytest.mark.parametrize(("batch", "processes"), [(4, 3), (4, 8), (0, 1)])
def test_a_batch_that_processes_cannot_share(batch, processes):
    with pytest.raises(InputError, match=f"IMS_PER_BATCH is {batch}, which the {processes} "):
        loading.check_shares(batch, processes)

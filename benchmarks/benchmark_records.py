#!/usr/bin/env python
"""Memory and start-up time of a training's records: what each process holds, and what is shared.

Records as of a dataset for pixels, with --boxes for both tasks, are made in memory; no image is
read. With --shards they are listed from the index of a folder of shards, as a training does at its
start; the tar file itself is a hole without content. Memory is that of the process and its workers
together; what they share counts once (Pss).
"""

import argparse
import multiprocessing
import resource
import tarfile
import tempfile
import time
from pathlib import Path

import torch
from tabulate import tabulate

from topformer_d2.data.loader import TrainLoader
from topformer_d2.data.sem_seg import load_image_label_pairs
from topformer_d2.data.shards import IMAGES, INDEX, LABELS, SCHEME, index_of
from topformer_d2.files import write_json

_BATCH = 16


def make_records(number: int, boxes: int) -> list[dict]:
    """Records like those of a dataset in folders."""
    return [
        {
            "file_name": f"/data/images/train/{i // 1000:06d}/{i:012d}.jpg",
            "sem_seg_file_name": f"/data/labels/train/{i // 1000:06d}/{i:012d}.png",
            **{"image_id": i, "height": 480, "width": 640, "tasks": ("sem_seg", "instances")},
            "annotations": [
                {"bbox": [i % 99 + 0.5, j, 40.0, 30.0], "bbox_mode": 1, "category_id": j % 9}
                for j in range(boxes)
            ],
        }
        for i in range(number)
    ]


def write_shards_index(folder: str, number: int) -> None:
    """The index of so many images and labels, and a tar file of the size that it says."""
    shard = Path(folder, "000000.tar")
    block = tarfile.BLOCKSIZE
    with open(shard, "wb") as file:
        file.truncate(4 * number * block)
    files = {
        kind: [(f"{i:012d}.{extension}", 0, (4 * i + place) * block, block) for i in range(number)]
        for kind, extension, place in ((IMAGES, "jpg", 1), (LABELS, "png", 3))
    }
    write_json(Path(folder, INDEX), index_of([shard], files))


def taken_mib() -> float:
    """MiB of this process and those that it has started; pages that they share count once."""
    return sum(_mib(pid, "Pss") for pid in ("self", *workers()))


def peak_mib() -> float:
    """The most MiB that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def workers() -> list[int]:
    """Processes that this one has started."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def _mib(pid: int | str, *kinds: str) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = [int(line.split()[1]) for line in lines if line.partition(":")[0] in kinds]
    return sum(found) / 1024


def take_number(record: dict) -> dict:
    """A mapper that reads nothing."""
    return {"length": len(record["file_name"])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=1_000_000, help="default: 1000000")
    parser.add_argument("--boxes", type=int, default=0, help="of each record; default: 0")
    parser.add_argument("--workers", type=int, default=2, help="of the loader; default: 2")
    parser.add_argument("--batches", type=int, default=2000, help="that are read; default: 2000")
    parser.add_argument("--shards", action="store_true", help="list the records from shards")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.shards:  # by a process of its own, whose memory does not count
            writer = multiprocessing.get_context("fork").Process(
                target=write_shards_index, args=(folder, args.records)
            )
            writer.start()
            writer.join()
        measure(args, folder)


def measure(args: argparse.Namespace, folder: str) -> None:
    """Print the table; `folder` has the shards, where they are asked for."""
    torch.set_num_threads(1)
    rows, before, start = [], taken_mib(), time.perf_counter()
    peak_before, cpu_before = peak_mib(), time.process_time()

    def note(name: str) -> None:
        seconds = time.perf_counter() - start, time.process_time() - cpu_before
        rows.append((name, taken_mib() - before, peak_mib() - peak_before, *seconds))

    if args.shards:
        images, labels = (f"{SCHEME}{folder}/{kind}" for kind in (IMAGES, LABELS))
        records = load_image_label_pairs(images, labels)
    else:
        records = make_records(args.records, args.boxes)
    note("the records as dicts")
    loader = TrainLoader(
        *(records, take_number),
        **{"total_batch_size": _BATCH, "num_workers": args.workers, "seed": 0},
    )
    note("as dicts and as one array")
    del records
    note("as one array")
    batches = iter(loader)
    next(batches)
    note(f"with {args.workers} workers, at the first batch")
    for _ in range(args.batches):
        next(batches)
    note(f"after {args.batches} batches")
    own = [_mib(pid, "Private_Clean", "Private_Dirty") for pid in workers()]
    headers = ["", "MiB more", "at the peak, of this process", "seconds", "of its core"]
    print(tabulate(rows, headers=headers, floatfmt=".1f", tablefmt="github"))
    print(f"of the workers alone: {', '.join(f'{mib:.0f} MiB' for mib in own)}")


if __name__ == "__main__":
    main()

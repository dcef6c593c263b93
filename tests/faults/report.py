"""The table of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

_TEXT = """# What was broken on purpose

The toolkit is run while its processes are killed, while its disk is full, and on damaged and
hostile files. A try passes when the result is right, or when one message says what is wrong and
nothing whole is lost. These are faults: a traceback from inside, a hang, too much memory, code from
a file that runs, a lost or half file, and "done" said of what was not done.

{table}

{total}

Made by `{command}`. The same command with other seeds (`--seed`) tries other cases. Where it finds
a fault, it prints the kind and the seed, with which `--only` and `--seed` repeat it. The last
column names the fast tests of `make test` that hold cases of the same kind.
"""

_SECTION = "\n## Several machines\n"
_OF_MACHINES = """
Two launchers of PyTorch (torchrun) on one machine stand for two machines. Each starts two
processes, which train on the CPU. One is killed or stopped at a random moment, and a killed machine
is replaced. What counts is what was alive when it was hit: "in training" where the run trained at
that moment, "at the start" where its processes had been started and did not train yet. The
iterations are those that the run had reached then, to the last checkpoint or start. "Started anew"
are runs whose launchers had ended, as they could not meet, and were started by hand with --resume.

{table}

Made by `{command}`. docs/clusters.md has what is guaranteed.
"""


@dataclass
class Row:
    """One kind of fault.

    Attributes:
        kind: what is done, as `--only` takes it.
        holds: what must come of it.
        tests: files below tests/ that hold it in the fast tests.
        tries: how many there were.
        faults: what was wrong, each with its seed.
    """

    kind: str
    holds: str
    tests: str
    tries: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass
class MachineRow(Row):
    """One kind of fault of runs on several machines; its tries are runs.

    Attributes:
        iterations: that the runs had reached when they were hit in training.
        at_start: how often processes were hit that did not train yet.
        by_hand: how often the launchers had ended, and were started anew with --resume.
    """

    iterations: list[int] = field(default_factory=list)
    at_start: int = 0
    by_hand: int = 0


def as_page(rows: Sequence[Row], command: str) -> str:
    """docs/reliability.md, but for its section of several machines."""
    table = _table(rows)
    kills, disks, files = (
        sum(r.tries for r in rows if r.kind.startswith(start))
        for start in ("kill: ", "full disk: ", "hostile: ")
    )
    faults = sum(len(r.faults) for r in rows)
    total = (
        f"In all {kills} kills, {disks} full disks and {files} hostile files: {faults} "
        f"{'fault' if faults == 1 else 'faults'}."
    )
    return _TEXT.format(table=table, total=total, command=command)


def _table(rows: Sequence[Row]) -> str:
    cells = [(r.kind, r.tries, r.holds, len(r.faults), r.tests) for r in rows]
    headers = ["kind", "tries", "what holds", "faults", "fast tests"]
    return tabulate(cells, headers=headers, tablefmt="github")


def section_of(page: str) -> str:
    """The section of several machines in a page; "" where it has none."""
    _, start, rest = page.partition(_SECTION)
    return start + rest


def _table_of_machines(rows: Sequence[MachineRow]) -> str:
    cells = [
        (
            *(r.kind, r.tries, len(r.iterations), ", ".join(map(str, r.iterations)), r.at_start),
            *(r.by_hand, r.holds, len(r.faults), r.tests),
        )
        for r in rows
    ]
    headers = ["kind", "runs", "hit in training", "iterations", "hit at the start"]
    headers += ["started anew", "what holds", "faults", "fast tests"]
    return tabulate(cells, headers=headers, tablefmt="github")


def write_section(rows: Sequence[MachineRow], command: str, page: str | None) -> str:
    """The section of several machines; where a page is named, it gets it as its last one."""
    section = _SECTION + _OF_MACHINES.format(table=_table_of_machines(rows), command=command)
    if page:
        file = Path(page)
        text = file.read_text(encoding="utf-8")
        file.write_text(text.removesuffix(section_of(text)) + section, encoding="utf-8")
    return section

"""The paper's tables, with this toolkit's figures beside the paper's.

The figures are data (paper_tables.json), as are the config and the keys that make each row's model.
"""

from __future__ import annotations

import json
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from importlib.resources import files

from detectron2.config import CfgNode
from tabulate import tabulate

from ..config import get_config, list_configs
from ..errors import InputError
from ..modeling import build_model
from .complexity import Cost, complexity

MAX_DEVIATION = Decimal("0.01")
_UNITS = {"parameters": Decimal(10**6), "gmacs": Decimal(10**9)}
_HEADERS = {"parameters": "M", "gmacs": "GMACs"}


@dataclass(frozen=True)
class Row:
    """One row of one table, as the paper (or the official repository) gives it.

    Attributes:
        table: key of the table.
        label: what the row is called there.
        config: name of a shipped config; None where the toolkit is not meant to have the model.
        opts: KEY VALUE pairs that make the row's model from the config.
        height, width: of the network's input.
        figures: for "all", "backbone" (without a feature pyramid) or "head", the reported
            "parameters" in millions and "gmacs", with the digits as reported. Empty where results
            alone are reported: the model is not counted.
        results: reported figures by the metric's name, such as mIoU.
        latency: reported milliseconds.
        note: why our figure is not the reported one, or why there is none.
    """

    table: str
    label: str
    config: str | None
    figures: dict[str, dict[str, Decimal]]
    height: int = 0
    width: int = 0
    opts: list[str] = field(default_factory=list)
    results: dict[str, Decimal] = field(default_factory=dict)
    latency: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Counted:
    """A row with our figures.

    Attributes:
        row: the reported ones.
        costs: ours for the keys of row.figures; empty where the model is not here.
        missing: why it is not here.
    """

    row: Row
    costs: dict[str, Cost]
    missing: str = ""

    def ours(self, part: str, quantity: str) -> Decimal | None:
        """Our figure in the reported one's unit."""
        if part not in self.costs:
            return None
        cost = self.costs[part]
        value = cost.parameters if quantity == "parameters" else cost.macs
        return value / _UNITS[quantity]

    def agreements(self) -> dict[tuple[str, str], str]:
        """agreement() of ours and each reported figure, by (part, quantity)."""
        return {
            (part, quantity): agreement(self.ours(part, quantity), reported)
            for part, figures in self.row.figures.items()
            for quantity, reported in figures.items()
            if part in self.costs
        }


def load_tables() -> tuple[dict[str, str], list[Row]]:
    """Title by table key, in order, and all rows."""
    text = files(__package__).joinpath("paper_tables.json").read_text(encoding="utf-8")
    # A Decimal keeps the digits as they are reported: 5.0 is not 5.
    data = json.loads(text, parse_float=Decimal)
    rows = []
    for values in data["rows"]:
        figures = {
            part: {quantity: Decimal(value) for quantity, value in reported.items()}
            for part, reported in values.pop("figures").items()
        }
        rows.append(Row(**values, figures=figures))
    return data["tables"], rows


def agreement(ours: Decimal, reported: Decimal) -> str:
    """How our figure agrees with the reported one: the first of these rules that holds.

    "close": within 1%; "rounded": the same when rounded to the reported digits; "cut": the same
    only if the paper cut its digits and did not round them; "different".
    """
    if abs(ours / reported - 1) <= MAX_DEVIATION:
        return "close"
    digits = Decimal(1).scaleb(int(reported.as_tuple().exponent))
    if ours.quantize(digits, ROUND_HALF_UP) == reported:
        return "rounded"
    return "cut" if ours.quantize(digits, ROUND_DOWN) == reported else "different"


class Counter:
    """Counts rows; a model that several of them share is built and counted once at each size."""

    def __init__(self) -> None:
        self._known: dict[tuple, dict[str, Cost]] = {}

    def count(self, row: Row) -> Counted:
        """The row with our figures; where a config or key is not here, with the reason."""
        missing = absence(row)
        if missing or not row.figures:
            return Counted(row, {}, missing)
        key = (row.config, *row.opts, row.height, row.width)
        try:
            if key not in self._known:
                cfg = get_config(row.config, [*row.opts, "MODEL.DEVICE", "cpu"])
                self._known[key] = complexity(build_model(cfg), row.height, row.width)
        except InputError as e:  # a library that the config needs is not installed
            return Counted(row, {}, str(e))
        costs = self._known[key]
        return Counted(row, {part: costs[_module(part, costs)] for part in row.figures})


def absence(row: Row) -> str:
    """Why the toolkit lacks a row's model; "" where it has the model."""
    if row.config is None:
        return row.note or "not in this toolkit"
    if row.config not in list_configs():
        return f"not in this toolkit: configs/{row.config}.yaml"
    cfg = get_config(row.config)
    absent = [key for key in row.opts[::2] if not _has_key(cfg, key)]
    return f"not in this toolkit: {', '.join(absent)}" if absent else ""


def _has_key(cfg: CfgNode, key: str) -> bool:
    for name in key.split("."):
        if not isinstance(cfg, CfgNode) or name not in cfg:
            return False
        cfg = cfg[name]
    return True


def _module(part: str, costs: dict[str, Cost]) -> str:
    """The module that a part of Row.figures is."""
    if part == "backbone" and "backbone.bottom_up" in costs:
        return "backbone.bottom_up"
    return {"all": "", "backbone": "backbone", "head": "sem_seg_head"}[part]


def format_tables() -> Iterator[str]:
    """Each table as text, once it is counted, and at last how many figures agree, and how."""
    titles, rows = load_tables()
    counter = Counter()
    everything = []
    for table, title in titles.items():
        counted = [counter.count(row) for row in rows if row.table == table]
        everything += counted
        yield f"{title}\n{_format_table(counted)}"
    reported = sum(len(figures) for row in rows for figures in row.figures.values())
    found = Tally(how for c in everything for how in c.agreements().values())
    yield (
        f"{found.total() - found['different']} of the {reported} reported sizes and costs agree: "
        f"{found['close']} within {MAX_DEVIATION:.0%}, {found['rounded']} when ours is rounded to "
        f"the reported digits, {found['cut']} only when it is cut to them (~). "
        f"{found['different']} deviate (!), {reported - found.total()} belong to models that are "
        "not here (-)."
    )


def _format_table(counted: list[Counted]) -> str:
    metrics = list(dict.fromkeys(name for c in counted for name in c.row.results))
    headers = ["", "of"]
    for name in _HEADERS.values():
        headers += [f"{name} reported", f"{name} ours", "deviation"]
    headers += ["ms reported", *(f"{name} reported" for name in metrics)]
    lines = []
    for c in counted:
        for i, part in enumerate(c.row.figures or ["all"]):
            line = [c.row.label if i == 0 else "", part]
            for quantity in _UNITS:
                line += _compare(c, part, quantity)
            results = [c.row.latency, *(c.row.results.get(name) for name in metrics)]
            lines.append(line + ["" if x is None or i else str(x) for x in results])
    kept = [i for i in range(len(headers)) if i == 0 or any(line[i] for line in lines)]
    if all(line[1] == "all" for line in lines):
        kept.remove(1)
    table = tabulate(
        [[line[i] for i in kept] for line in lines],
        [headers[i] for i in kept],
        colalign=["left" if i < 2 else "right" for i in kept],
        disable_numparse=True,
    )
    return "\n".join([table, *_remarks(counted)])


def _compare(counted: Counted, part: str, quantity: str) -> list[str]:
    """Reported, ours, deviation."""
    reported = counted.row.figures.get(part, {}).get(quantity)
    ours = counted.ours(part, quantity)
    if ours is None:
        return ["", "", ""] if reported is None else [str(reported), "-", ""]
    if reported is None:
        return ["", f"{ours:.3f}", ""]
    mark = {"cut": " ~", "different": " !"}.get(agreement(ours, reported), "")
    return [str(reported), f"{ours:.3f}", f"{ours / reported - 1:+.1%}{mark}"]


def _remarks(counted: list[Counted]) -> list[str]:
    """A line for rows without our figures, and for each with one that has a mark."""
    missing = defaultdict(list)
    for c in counted:
        if c.missing:
            missing[c.missing].append(c.row.label)
    remarks = [f"- {'; '.join(labels)}: {reason}" for reason, labels in missing.items()]
    for c in counted:
        reasons = {"cut": "cut, not rounded", "different": c.row.note or "no reason is known"}
        for mark, how in (("~", "cut"), ("!", "different")):
            marked = [where for where, found in c.agreements().items() if found == how]
            if marked:
                what = ", ".join(f"{_HEADERS[quantity]} of {part}" for part, quantity in marked)
                remarks.append(f"{mark} {c.row.label}, {what}: {reasons[how]}")
    return remarks

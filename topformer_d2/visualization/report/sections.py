"""The sections of the page, of one evaluation or of two side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .charts import line_chart, reliability_chart
from .parts import cards, difference, heat_table, number, picture, table, text

# A run's name on the page ("" where it is alone), and the part of its report.
Runs = Sequence[tuple[str, Mapping[str, Any]]]

# Of a run whose model gives label maps alone, in the place of what needs confidences.
_LEFT_OUT = (
    '<p class="soft">Left out: the model gives label maps without confidences. A file that is '
    "exported with logits has them.</p>"
)

# Columns of the classes' tables that are not about the models, and are not compared.
_OF_THE_LABELS = {"share of pixels", "objects"}


def summary(runs: Runs) -> str:
    """The metrics, with their differences."""
    if len(runs) == 1:
        return cards(runs[0][1]["metrics"])
    names = [name for name in runs[0][1]["metrics"] if name in runs[1][1]["metrics"]]
    rows = []
    for name in names:
        values = {run: part["metrics"][name] for run, part in runs}
        change = difference(*reversed(values.values()))
        rows.append({"metric": name, **values, "difference": change})
    columns = {"metric": None, **{run: 2 for run, _ in runs}, "difference": 2}
    return table(rows, columns, "Metrics in percent", marks=["difference"])


def curves(reports: Runs) -> str:
    """Losses and metrics of the trainings."""
    losses, metrics = {}, {}
    for run, report in reports:
        for name, points in (report.get("curves") or {}).items():
            label = f"{run} {name}".strip()
            is_loss = name == "total_loss" or (name.startswith("loss_") and len(reports) == 1)
            if is_loss:
                losses[label] = points
            elif name.split("/")[-1] in ("mIoU", "AP"):
                metrics[label] = points
    drawn = line_chart(losses, "Losses", "iteration")
    if any(len(points) > 1 for points in metrics.values()):
        drawn += line_chart(metrics, "Metrics in percent", "iteration")
    if not drawn:
        return '<p class="soft">No metrics.json of a training was found.</p>'
    return f'<div class="grid">{drawn}</div>'


def per_class(runs: Runs, digits: Mapping[str, int], caption: str) -> str:
    """A table of the classes; of two runs, of those that both have, with the differences."""
    if len(runs) == 1:
        return table(runs[0][1]["classes"], {"class": None, **digits}, caption)
    (first, a), (second, b) = runs
    others = {row["class"]: row for row in b["classes"]}
    facts = [name for name in digits if name in _OF_THE_LABELS]
    columns: dict[str, int | None] = {"class": None, **{name: digits[name] for name in facts}}
    for name, precision in digits.items():
        if name in facts:
            continue
        columns |= {f"{name} {first}": precision, f"{name} {second}": precision}
        columns[f"{name}: {second} - {first}"] = precision
    rows = []
    for row in a["classes"]:
        other = others.get(row["class"])
        if other is None:
            continue
        values = {"class": row["class"], **{name: row[name] for name in facts}}
        for name in digits.keys() - facts:
            values |= {f"{name} {first}": row[name], f"{name} {second}": other[name]}
            values[f"{name}: {second} - {first}"] = difference(other[name], row[name])
        rows.append(values)
    marks = [name for name in columns if ": " in name]
    return table(rows, columns, caption, marks=marks)


def calibration(runs: Runs, title: str, across: str) -> str:
    """The reliability curves."""
    curves = {run: part["calibration"] for run, part in runs}
    known = {run: curve for run, curve in curves.items() if curve is not None}
    drawn = reliability_chart(known, title, across) if known else ""
    return drawn + "".join(_titled(run, _LEFT_OUT) for run in curves if run not in known)


def matrices(runs: Runs, labels: Callable[[Mapping], tuple[list[str], list[str]]]) -> str:
    """The confusion matrices; `labels` gives a part's rows and columns."""
    return "".join(_titled(run, heat_table(part["confusion"], *labels(part))) for run, part in runs)


def pairs(runs: Runs, unit: str) -> str:
    """The most confused pairs of classes, with examples."""
    return "".join(_titled(run, _pairs(part["pairs"], unit)) for run, part in runs)


def _pairs(found: Sequence[Mapping], unit: str) -> str:
    if not found:
        return "<p>No class is confused with another.</p>"
    columns = {"labelled": None, "predicted": None, unit: 0, "percent of the class": 1}
    rows = [{**p, unit: p["count"], "percent of the class": p["share"]} for p in found]
    drawn = []
    for p in found:
        words = f"labelled {p['labelled']}, predicted {p['predicted']}"
        for example in p["examples"]:
            image = picture(example["picture"], words)
            caption = f"<b>{text(words)}</b><br>{text(_short(example['file']))}"
            drawn.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    caption = "The pairs of classes that are confused most"
    return (
        table(rows, columns, caption)
        + '<p class="soft">Examples: the image, its labels, its prediction.</p>'
        + f'<div class="grid">{"".join(drawn)}</div>'
    )


def worst(runs: Runs) -> str:
    """The worst images: image, truth, prediction and errors."""
    return "".join(_titled(run, _worst(part["worst"])) for run, part in runs)


def _worst(images: Sequence[Mapping]) -> str:
    rows = []
    for image in images:
        file, caption = _short(image["file"]), text(image["caption"])
        drawn = "".join(
            f"<figure>{picture(content, f'{name} of {file}')}"
            f"<figcaption>{text(name)}</figcaption></figure>"
            for name, content in image["pictures"].items()
        )
        rows.append(f'<div class="row"><p><b>{caption}</b> {text(file)}</p>{drawn}</div>')
    return "".join(rows) or "<p>There is none.</p>"


def suspects(runs: Runs) -> str:
    """Suspected label errors."""
    return "".join(_titled(run, _suspects(part["suspects"])) for run, part in runs)


def _suspects(found: Sequence[Mapping] | None) -> str:
    if found is None:
        return _LEFT_OUT
    drawn = []
    for n, suspect in enumerate(found, start=1):
        words = f"labelled {suspect['labelled'] or 'nothing'}, predicted {suspect['predicted']}"
        sure = f"{number(100 * float(suspect['confidence']), 0)}% sure"
        drawn.append(
            f"<figure>{picture(suspect['picture'], words)}<figcaption>{n}. <b>{text(words)}</b>, "
            f"{sure}: {text(suspect['what'])}<br>{text(_short(suspect['file']))}"
            "</figcaption></figure>"
        )
    return f'<div class="grid">{"".join(drawn)}</div>' if drawn else "<p>There is none.</p>"


def box_errors(runs: Runs) -> str:
    """The kinds of errors, and what fixing each would give."""
    if len(runs) == 1:
        columns = {"kind": None, "count": 0, "share": 1, "AP50 if fixed": 1, "gain": 1}
        return table(runs[0][1]["errors"], columns, "Errors by kind, in percent")
    (first, a), (second, b) = runs
    rows = []
    for row, other in zip(a["errors"], b["errors"], strict=True):
        rows.append(
            {
                "kind": row["kind"],
                f"count {first}": row["count"],
                f"count {second}": other["count"],
                f"count: {second} - {first}": difference(other["count"], row["count"]),
                f"gain {first}": row["gain"],
                f"gain {second}": other["gain"],
            }
        )
    columns = {name: None if name == "kind" else int(name.startswith("gain")) for name in rows[0]}
    marks = [name for name in columns if ": " in name]
    return table(rows, columns, "Errors by kind; gain: of AP50 by fixing it", marks=marks)


def _short(file: Any) -> str:
    """The last parts of a path, which tell images apart."""
    return "/".join(str(file).replace("\\", "/").split("/")[-2:])


def _titled(run: str, content: str) -> str:
    return f"<h4>{text(run)}</h4>{content}" if run else content

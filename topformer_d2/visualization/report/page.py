"""One HTML page that holds all it shows: no server, no network, no dependency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from . import sections
from .parts import number, text
from .sections import Runs

# A page that may load nothing, whatever is in it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def report_page(reports: Sequence[Mapping[str, Any]]) -> str:
    """The page of one report, or of two side by side.

    Args:
        reports: as describe_mistakes gives them.

    Returns:
        the HTML.

    Raises:
        KeyError, TypeError, ValueError: it is no such report.
    """
    names = run_names(reports)
    parts = [_head(reports, names)]
    contents: list[tuple[str, str, str]] = [
        ("training", "Training", sections.curves(list(zip(names, reports, strict=True))))
    ]
    for key, title, build in (("pixels", "Pixels", _pixels), ("boxes", "Boxes", _boxes)):
        if all(report.get(key) for report in reports):
            runs = [(name, report[key]) for name, report in zip(names, reports, strict=True)]
            contents.append((key, title, build(runs)))
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in contents)
    parts.append(f'<nav aria-label="Sections"><ul>{links}</ul></nav></header><main id="main">')
    for key, title, content in contents:
        parts.append(f'<section id="{key}"><h2>{title}</h2>{content}</section>')
    title = " and ".join(str(report["title"]) for report in reports)
    style, script = (
        files(__package__).joinpath(name).read_text(encoding="utf-8")
        for name in ("style.css", "script.js")
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}: what the model gets wrong</title><style>{style}</style></head>"
        f"<body>{''.join(parts)}</main><script>{script}</script></body></html>\n"
    )


def run_names(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """What runs are called on the page: nothing where there is one, else A and B."""
    return [""] if len(reports) == 1 else ["A", "B"]


def _head(reports: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    lines = []
    for name, report in zip(names, reports, strict=True):
        title = f"{name}: {report['title']}" if name else report["title"]
        lines.append(
            f"<p><b>{text(title)}</b>, on {number(report['images'], 0)} images of "
            f"{text(report['dataset'])}. Weights: {text(report['weights'])}</p>"
        )
    if len({(report["dataset"], report["images"]) for report in reports}) > 1:
        lines.append(
            '<p class="bad">The two were evaluated on different images, so their differences are '
            "not those of the models alone.</p>"
        )
    heading = "What the model gets wrong" if len(reports) == 1 else "Two models compared"
    return (
        f'<a class="skip" href="#main">Skip to the content</a><header><h1>{heading}</h1>'
        f"{''.join(lines)}"
    )


def _pixels(runs: Runs) -> str:
    ratio = number(100 * float(runs[0][1]["boundary_ratio"]), 0)
    digits = {"share of pixels": 2, "IoU": 1, "boundary IoU": 1, "accuracy": 1}

    def labels(part: Mapping) -> tuple[list[str], list[str]]:
        names = [row["class"] for row in part["classes"]]
        return names, names

    return "".join(
        [
            sections.summary(runs),
            "<h3>Classes</h3>",
            f"<p>Boundary IoU counts only pixels within {ratio}% of the image's diagonal of a "
            "class's edge (Cheng et al. 2021): it is low where shapes are found roughly.</p>",
            sections.per_class(runs, digits, "In percent; press a heading to sort"),
            "<h3>Calibration</h3><p>A pixel that is predicted with a confidence of 80% should be "
            "right in 80% of the cases, which is the dashed line. Below it the model is too sure. "
            "ECE is the mean distance from the line (Guo et al. 2017, 15 bins).</p>",
            sections.calibration(
                runs, "Share of pixels that are right, by confidence", "confidence"
            ),
            "<h3>Confusion</h3>",
            sections.matrices(runs, labels),
            sections.pairs(runs, "pixels"),
            "<h3>Worst images</h3><p>Those with the lowest mean IoU of the classes that their "
            "labels have. Errors are orange, ignored pixels black.</p>",
            sections.worst(runs),
            "<h3>Suspected label errors</h3><p>Regions in which the model is surest of another "
            "class than the labels: the image, its labels, the prediction. Some are the model's "
            "errors. suspects.json lists more.</p>",
            sections.suspects(runs),
        ]
    )


def _boxes(runs: Runs) -> str:
    digits = {"objects": 0, "AP": 1, "AP50": 1, "precision": 1, "recall": 1}
    scores = " and ".join(f"{name} {number(part['threshold'], 2)}".strip() for name, part in runs)

    def labels(part: Mapping) -> tuple[list[str], list[str]]:
        names = [row["class"] for row in part["classes"]]
        return [*names, "nothing there"], [*names, "not found"]

    return "".join(
        [
            sections.summary(runs),
            f"<p>Precision, recall, the confusion matrix and the pictures count boxes from a "
            f"score of {text(scores)} on, where F1 is largest.</p>",
            "<h3>Kinds of errors</h3><p>What is wrong with each box, and the AP50 if all errors "
            "of that kind were fixed (TIDE, Bolya et al. 2020). Classification: the place is "
            "right. Localisation: the class is right, the IoU 0.1 to 0.5. Both: neither. "
            "Duplicate: of an object that is found. Background: nothing is there. Missed: an "
            "object that no box is near.</p>",
            sections.box_errors(runs),
            "<h3>Classes</h3>",
            sections.per_class(runs, digits, "In percent; press a heading to sort"),
            "<h3>Calibration</h3><p>Of boxes with a score of 0.8, 80% should be right at an IoU "
            "of 0.5, which is the dashed line.</p>",
            sections.calibration(runs, "Share of boxes that are right, by score", "score"),
            "<h3>Confusion</h3>",
            sections.matrices(runs, labels),
            sections.pairs(runs, "objects"),
            "<h3>Worst images</h3><p>Those with the most missed objects. Right boxes are green, "
            "wrong ones orange, missed objects blue.</p>",
            sections.worst(runs),
            "<h3>Suspected label errors</h3><p>Boxes of high score that the labels do not agree "
            "with: the image, its labels, the prediction. Some are the model's errors. "
            "suspects.json lists more.</p>",
            sections.suspects(runs),
        ]
    )

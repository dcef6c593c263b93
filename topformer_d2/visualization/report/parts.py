"""Pieces of HTML. Every text that comes from outside is escaped, every number is made a float."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
# Of the metrics, those of which less is better.
_LESS_IS_BETTER = {"ECE", "count"}
# Cells of a confusion matrix that have room for their numbers.
_MOST_CLASSES = 40


def text(value: Any) -> str:
    """A text, escaped for content and attributes."""
    return escape(str(value), quote=True)


def finite(value: Any) -> float | None:
    """A number, or None where it is missing or not finite."""
    return None if value is None or not math.isfinite(float(value)) else float(value)


def number(value: Any, digits: int = 1) -> str:
    """A number with so many digits, or a dash where there is none."""
    known = finite(value)
    return "-" if known is None else f"{known:,.{digits}f}"


def difference(after: Any, before: Any) -> float | None:
    """How much larger `after` is; None where one of them is missing."""
    new, old = finite(after), finite(before)
    return None if new is None or old is None else new - old


def picture(content: str, alt: str) -> str:
    """A JPEG in base64 as an image within the page.

    Raises:
        ValueError: it is not base64.
    """
    if not _BASE64.fullmatch(content):
        raise ValueError("a picture is not base64")
    return f'<img alt="{text(alt)}" src="data:image/jpeg;base64,{content}">'


def cards(values: Mapping[str, Any]) -> str:
    """Figures side by side."""
    entries = "".join(
        f"<div><dt>{text(name)}</dt><dd>{number(value, 2)}</dd></div>"
        for name, value in values.items()
    )
    return f'<dl class="cards">{entries}</dl>'


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, int | None],
    caption: str,
    *,
    marks: Sequence[str] = (),
) -> str:
    """A table that can be sorted by its headings.

    Args:
        rows: values by column.
        columns: the digits of each column's numbers; None for texts.
        caption: of the table.
        marks: columns with differences, written with their sign and coloured by what is better.
    """
    heads = "".join(
        f'<th scope="col"{_kind(digits)}><button type="button">{text(name)}</button></th>'
        for name, digits in columns.items()
    )
    lines = []
    for row in rows:
        cells = []
        for i, (name, digits) in enumerate(columns.items()):
            value = row.get(name)
            tag = "th" if i == 0 else "td"
            scope = ' scope="row"' if i == 0 else ""
            if digits is None:
                cells.append(f'<{tag}{scope} class="text">{text(value)}</{tag}>')
                continue
            known = finite(value)
            key = "" if known is None else repr(known)
            shown, style = number(known, digits), ""
            if name in marks and known is not None:
                shown = f"{known:+.{digits}f}"
                style = _better(row, name, known)
            cells.append(f'<{tag}{scope} data-v="{key}"{style}>{shown}</{tag}>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table class="sortable"><caption>{text(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _kind(digits: int | None) -> str:
    return ' class="text"' if digits is None else ""


def _better(row: Mapping[str, Any], name: str, change: float) -> str:
    if abs(change) < 0.005:
        return ""
    quantity = str(row.get("metric", name.partition(":")[0]))
    is_better = (change < 0) == (quantity in _LESS_IS_BETTER)
    return f' class="{"good" if is_better else "bad"}"'


def heat_table(
    matrix: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str]
) -> str:
    """A confusion matrix in percent of its rows; empty where it has too many classes to be read."""
    if len(columns) > _MOST_CLASSES:
        return (
            f'<p class="soft">The matrix of {len(columns)} classes has no room here; '
            "report.json has it, and the pairs below are its largest cells.</p>"
        )
    heads = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    lines = []
    for name, counts in zip(rows, matrix, strict=True):
        total = sum(map(float, counts))
        cells = "".join(_heat(float(count) / total if total else 0.0) for count in counts)
        lines.append(f'<tr><th scope="row">{text(name)}</th>{cells}</tr>')
    return (
        '<div class="scroll"><table class="heat"><caption>Percent of each row: by the labels in '
        "rows, by the prediction in columns</caption>"
        f"<thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _heat(share: float) -> str:
    shown = f"{100 * share:.0f}" if share >= 0.005 else ""
    high = ' class="hi"' if share > 0.45 else ""
    # By the square root, so that a confusion of a few percent is seen.
    return f'<td{high} style="background:rgba(0,92,150,{share**0.5:.2f})">{shown}</td>'

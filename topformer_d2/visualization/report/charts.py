"""Line charts as SVG within the page, in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .parts import finite, number, text

_WIDTH, _HEIGHT = 520, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 34
_COLORS = 6
# Points of a line; more are not seen.
_MOST = 300


def line_chart(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    across: str,
    *,
    limits: tuple[float, float, float, float] | None = None,
    ideal: bool = False,
) -> str:
    """Lines with a legend.

    Args:
        lines: points (x, y) of each, by its name.
        title: of the chart, for those who cannot see it and as its heading.
        across: what x is.
        limits: of x and y, (x0, x1, y0, y1); None = as the points need it.
        ideal: draw y = x as well.
    """
    drawn = {name: points for name, points in lines.items() if points}
    if not drawn:
        return ""
    x0, x1, y0, y1 = limits or _limits([p for points in drawn.values() for p in points])

    def place(x: float, y: float) -> str:
        px = _LEFT + (x - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)
        py = _HEIGHT - _BOTTOM - (y - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)
        return f"{px:.1f} {min(max(py, _TOP), _HEIGHT - _BOTTOM):.1f}"

    parts = [_grid(x0, x1, y0, y1, across)]
    if ideal:
        parts.append(f'<path class="ideal" d="M{place(x0, x0)}L{place(x1, x1)}"/>')
    legend = []
    for n, (name, points) in enumerate(drawn.items()):
        color = f"var(--s{n % _COLORS})"
        step = math.ceil(len(points) / _MOST)
        kept = [*points[::step], points[-1]]
        path = "L".join(place(float(x), float(y)) for x, y in kept)
        parts.append(f'<path style="stroke:{color}" d="M{path}"/>')
        if len(points) <= 20:
            parts += [_dot(place(float(x), float(y)), color) for x, y in points]
        last = number(points[-1][1], 3)
        legend.append(
            f'<span style="color:{color}" aria-hidden="true">&#9632;</span> {text(name)}'
            f"{'' if ideal else f' (last {last})'}"
        )
    return (
        f'<figure><svg role="img" aria-label="{text(title)}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}">{"".join(parts)}</svg>'
        f"<figcaption><b>{text(title)}</b>: {', '.join(legend)}</figcaption></figure>"
    )


def reliability_chart(curves: Mapping[str, Mapping[str, Any]], title: str, across: str) -> str:
    """Reliability curves of Reliability.to_dict's values; the dashed line is perfect."""
    lines = {}
    for name, values in curves.items():
        points = [(finite(b["confidence"]), finite(b["right"])) for b in values["bins"]]
        ece = finite(values["ece"])
        label = f"{name} ECE {number(None if ece is None else 100 * ece, 2)}%".strip()
        lines[label] = [(x, y) for x, y in points if x is not None and y is not None]
    return line_chart(lines, title, across, limits=(0, 1, 0, 1), ideal=True)


def _dot(place: str, color: str) -> str:
    x, y = place.split()
    return f'<circle cx="{x}" cy="{y}" r="3" style="fill:{color}"/>'


def _limits(points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    across = [float(x) for x, _ in points]
    values = sorted(float(y) for _, y in points)
    low = min(0.0, values[0])
    # The first losses are far above the rest and would flatten it.
    high = values[min(len(values) - 1, int(0.98 * len(values)))]
    left, right = min(across), max(across)
    return left, right if right > left else left + 1, low, 1.05 * high if high > low else low + 1


def _grid(x0: float, x1: float, y0: float, y1: float, across: str) -> str:
    parts, right, bottom = [], _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for n in range(5):
        share = n / 4
        x = _LEFT + share * (right - _LEFT)
        y = bottom - share * (bottom - _TOP)
        at_x, at_y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
        parts.append(f'<path class="axis" style="stroke-width:1" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{at_y:.3g}</text>')
        anchor = "end" if n == 4 else "middle"
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="{anchor}">{at_x:.4g}</text>'
        )
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{text(across)}</text>')
    return "".join(parts)

"""A model's parts as a picture, like the paper's Figure 3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .parts import Part, shares

# Okabe and Ito's palette, which people with colour blindness can tell apart; grey for the rest.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
_REST = "#bbbbbb"
_TITLES = {
    "parameters": "parameters",
    "macs": "GMACs",
    "activation_bytes": "activations",
    "milliseconds": "time",
}
_MIN_LABELLED = 0.03  # a narrower segment has no room for its share


def draw_parts(parts: Sequence[Part], title: str) -> np.ndarray:
    """One bar for each quantity, divided by the parts' shares: (H, W, 3) uint8 RGB."""
    figure = Figure(figsize=(9, 3.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    columns = shares(parts)
    for i, name in enumerate(_TITLES):
        left = 0.0
        for j, (part, share) in enumerate(zip(parts, columns[name], strict=True)):
            color = _REST if part.label == "other" else COLORS[j % len(COLORS)]
            axes.barh(i, share, left=left, color=color, label=part.label if i == 0 else None)
            if share >= _MIN_LABELLED:
                axes.text(left + share / 2, i, f"{share:.0%}", ha="center", va="center")
            left += share
    axes.set_yticks(range(len(_TITLES)), _TITLES.values())
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return render(figure)


def render(figure: Figure) -> np.ndarray:
    """A figure's pixels (H, W, 3) uint8 RGB; no display is used."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[:, :, :3]

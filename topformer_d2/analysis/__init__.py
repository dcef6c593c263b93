"""Costs of a model (parameters, operations, memory, time), and the paper's tables."""

from .chart import draw_parts
from .complexity import Cost, complexity, format_costs
from .latency import shift_scores, time_alternately
from .parts import Part, format_parts, part_names, profile_parts, shares
from .tables import Counter, Row, agreement, format_tables, load_tables

__all__ = [
    "Cost",
    "Counter",
    "Part",
    "Row",
    "agreement",
    "complexity",
    "draw_parts",
    "format_costs",
    "format_parts",
    "format_tables",
    "load_tables",
    "part_names",
    "profile_parts",
    "shares",
    "shift_scores",
    "time_alternately",
]

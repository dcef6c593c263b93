"""What a model costs."""

from .complexity import Cost, complexity, format_costs
from .latency import keep_freed_memory, shift_scores, time_alternately

__all__ = [
    "Cost",
    "complexity",
    "format_costs",
    "keep_freed_memory",
    "shift_scores",
    "time_alternately",
]

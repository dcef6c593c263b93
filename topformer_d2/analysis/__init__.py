"""What a model costs."""

from .complexity import Cost, complexity, format_costs

__all__ = ["Cost", "complexity", "format_costs"]

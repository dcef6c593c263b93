"""What a model gets wrong on a dataset, shown: report.html, worst.png and suspects.json."""

from .report import describe_mistakes, read_report, training_curves, write_page, write_report

__all__ = [
    "describe_mistakes",
    "read_report",
    "training_curves",
    "write_page",
    "write_report",
]

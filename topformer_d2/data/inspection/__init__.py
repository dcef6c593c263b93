"""Inspection of datasets for errors that would stop training or spoil its result."""

from .datasets import inspect_config, inspect_datasets
from .findings import SEVERITY, DatasetReport, Finding, Report
from .quick import check_samples
from .records import Expected, inspect_record

__all__ = [
    "SEVERITY",
    "DatasetReport",
    "Expected",
    "Finding",
    "Report",
    "check_samples",
    "inspect_config",
    "inspect_datasets",
    "inspect_record",
]

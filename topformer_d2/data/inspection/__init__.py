"""Looks into the files of datasets for all that training would stumble over, or swallow."""

from .datasets import check_samples, inspect_config, inspect_datasets, spread_evenly
from .findings import SEVERITY, DatasetReport, Finding, Report
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
    "spread_evenly",
]

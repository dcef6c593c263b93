"""Datasets whose labels are of any format: from what the files say to Detectron2's records."""

from .dataset import DatasetProblems, LabelledFolder
from .entry import Entry

__all__ = ["DatasetProblems", "Entry", "LabelledFolder"]

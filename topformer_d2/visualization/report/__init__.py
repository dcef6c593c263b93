"""A report as one HTML page, written from plain values."""

from .page import report_page

__all__ = ["report_page"]

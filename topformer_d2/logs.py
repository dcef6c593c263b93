"""Loggers whose lines cannot control the terminal that shows them."""

from __future__ import annotations

import logging

from .errors import printable


class EscapeControls(logging.Filter):
    """Makes a line printable: the names of files and of tensors in it may be anybody's."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if printable(text) != text:
            record.msg, record.args = printable(text), None
        return True


ESCAPE_CONTROLS = EscapeControls()


def get_logger(name: str) -> logging.Logger:
    """logging.getLogger(name), with EscapeControls."""
    logger = logging.getLogger(name)
    logger.addFilter(ESCAPE_CONTROLS)
    return logger


# fvcore's checkpointer logs a file's keys, where no handler of setup_run may be there yet.
get_logger("fvcore.common.checkpoint")

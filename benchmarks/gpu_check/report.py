"""The report: a line for each check, with what was found, and tables of times and memory."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from tabulate import tabulate

from topformer_d2.errors import cut

PASS, FAIL, NOT_HERE = "pass", "fail", "not here"
_SHORT = (
    "The short form, with tiny sizes: it shows that the checks run, and nothing of their speed."
)


class NotHere(Exception):
    """What a check needs is not on this machine; the message says what."""


class Failed(Exception):
    """A check found what should not be; the message says what."""


@dataclass
class Report:
    """What the checks found.

    Attributes:
        device: "cuda" or "cpu", where they ran.
        is_short: they ran with tiny sizes.
        lines: (check, verdict, what was found).
        tables: Markdown by title.
    """

    device: str
    is_short: bool
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)
    _start: float = field(default_factory=time.monotonic)

    def check(self, name: str, call: Callable[[], str]) -> None:
        """Run a check, which returns what it found; an exception is a line, and ends nothing."""
        start = time.monotonic()
        try:
            verdict, found = PASS, call()
        except NotHere as e:
            verdict, found = NOT_HERE, str(e)
        except Failed as e:
            verdict, found = FAIL, str(e)
        except Exception as e:
            verdict, found = FAIL, f"{type(e).__name__}: {cut(str(e), 160)}"
        self.lines.append((name, verdict, found.replace("|", "/")))
        print(f"{verdict:<9} {name} ({time.monotonic() - start:.1f} s): {found}", flush=True)

    def add_table(self, title: str, rows: Sequence[Sequence], headers: Sequence[str]) -> None:
        self.tables[title] = tabulate(
            rows, headers, tablefmt="github", disable_numparse=True, floatfmt=".2f"
        )

    @property
    def has_failed(self) -> bool:
        return any(verdict == FAIL for _, verdict, _ in self.lines)

    def as_page(self) -> str:
        """The report in Markdown."""
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        machine = ", ".join(gpus) if self.device == "cuda" else f"no GPU ({platform.machine()})"
        counts = ", ".join(
            f"{sum(v == verdict for _, v, _ in self.lines)} {verdict}"
            for verdict in (PASS, FAIL, NOT_HERE)
        )
        about = f"Machine: {machine}. PyTorch {torch.__version__}, CUDA {torch.version.cuda}."
        seconds = f"Made by `make check-gpu` in {time.monotonic() - self._start:.0f} s."
        parts = ["# The GPU check", about, seconds, _SHORT * self.is_short, f"{counts}."]
        parts.append(tabulate(self.lines, ["check", "", "found"], tablefmt="github"))
        for title, table in self.tables.items():
            parts += [f"## {title}", table]
        return "\n\n".join(part for part in parts if part) + "\n"


def require(is_right: bool, found: str) -> str:
    """What was found, where it is right; else the check has failed."""
    if not is_right:
        raise Failed(found)
    return found

"""How launch starts the processes of a run, and what it raises; no process is started here."""

from types import SimpleNamespace

import pytest
import torch

from topformer_d2.engine import launch as launching
from topformer_d2.engine.launch import launch


class Started(Exception):
    """Raised instead of starting processes, with the arguments."""


@pytest.mark.parametrize("name", ["spawn", "start_processes"])
def test_processes_end_in_launchs_way_whichever_function_detectron2_calls(monkeypatch, name):
    """`spawn` is v0.6's, and `start_processes` its main branch's."""

    def start(*args, **kwargs):
        raise Started(*args)

    def detectron2_launch(main, processes, *, args, **_):
        getattr(torch.multiprocessing, name)(main, nprocs=processes, args=args, daemon=False)

    monkeypatch.setattr(launching, "_start_processes", start)
    monkeypatch.setattr(launching, "engine", SimpleNamespace(launch=detectron2_launch))
    with pytest.raises(Started) as started:
        launch(print, 2, device="cuda", args=("a",))
    function, (main, args, _errors), processes = started.value.args
    assert (function, main, args, processes) == (launching._run, print, ("a",), 2)

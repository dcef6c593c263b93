"""`topformer train` in the processes that torchrun and srun start."""

import pytest

from tests.engine.test_launched import SRUN, TORCHRUN
from tests.helpers import REPOSITORY
from topformer_d2.cli import train as command
from topformer_d2.engine.failures import LOST_CONNECTION, LostProcessError
from topformer_d2.engine.launched import Launched, read_environment
from topformer_d2.engine.restarts import FirstFailedError
from topformer_d2.errors import InputError


@pytest.fixture
def arguments(tmp_path):
    """The words of a training, as parsed."""

    def make(*words):
        config = ["--config-file", str(REPOSITORY / "configs/seg_topformer_t_synthetic.yaml")]
        keys = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "output")]
        return command.make_parser().parse_args([*config, *words, *keys])

    return make


@pytest.mark.parametrize("words", [("--num-gpus", "2"), ("--num-machines", "2")])
def test_two_launchers(monkeypatch, arguments, words):
    found = read_environment(TORCHRUN), read_environment(SRUN)
    for each, environ in zip(found, (TORCHRUN, SRUN), strict=True):
        monkeypatch.setattr(command, "read_environment", lambda each=each: each)
        assert command.read_launched(arguments()) == each
        if environ is SRUN:  # which has started the command once on each machine
            assert command.read_launched(arguments(*words)) is None
        else:
            with pytest.raises(InputError, match="torchrun has started this process, and `num_gp"):
                command.read_launched(arguments(*words))


def test_a_batch_that_the_processes_cannot_share_is_told_before_anything(arguments):
    args = arguments()
    args.opts += ["SOLVER.IMS_PER_BATCH", "12"]
    with pytest.raises(InputError, match=r"BATCH is 12, which the 8 .* \(1, 2, 3, 4, 6, 12"):
        command.check(args, 8)
    assert command.check(args, 6) == 1


def test_an_evaluation_without_weights_is_told_before_anything(arguments):
    with pytest.raises(InputError, match=r"no weights to evaluate: add MODEL\.WEIGHTS"):
        command.check(arguments("--eval-only"), 2)
    assert command.check(arguments("--eval-only", "--resume"), 2) == 1  # OUTPUT_DIR may have some


@pytest.mark.parametrize(
    "error",
    [
        LostProcessError("process 0: Timed out waiting 90000ms for recv operation"),
        FirstFailedError("process 0: the first process has failed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_process_that_has_lost_another_says_so_and_ends_after_it(
    monkeypatch, arguments, capsys, error
):
    """A launcher takes the one that ends first for the cause."""
    waits = []

    def lose(*_):
        raise error

    monkeypatch.setattr(command.time, "sleep", waits.append)

    for name in ("end_with_launcher", "check"):
        monkeypatch.setattr(command, name, lambda *_: None)
    monkeypatch.setattr(command, "run_process", lose)
    args = arguments()
    args.opts += ["SOLVER.PROCESS_TIMEOUT", "90s"]
    alone = Launched("torchrun", 0, 1, 0, 0)
    assert command.run_launched(alone, args, command.make_parser()) == LOST_CONNECTION
    assert len(waits) == 1 and 1 <= waits[0] <= 5
    told = capsys.readouterr().err
    if isinstance(error, FirstFailedError):  # which that one tells
        assert told == ""
    else:
        assert "90 s (SOLVER.PROCESS_TIMEOUT)" in told and "--resume" in told


@pytest.mark.parametrize("local_rank", [0, 1])
def test_an_error_of_all_processes_is_told_by_the_first_of_each_machine(
    monkeypatch, arguments, local_rank
):
    """The launcher ends the others while they wait; one that fails alone tells it after that."""
    waits = []

    def fail(*_):
        raise InputError("weights file a.pth does not exist")

    monkeypatch.setattr(command.time, "sleep", waits.append)
    for name in ("end_with_launcher", "check"):
        monkeypatch.setattr(command, name, lambda *_: None)
    monkeypatch.setattr(command, "run_process", fail)
    launched = Launched("torchrun", 0, 1, local_rank, 0)
    with pytest.raises(InputError, match=r"a\.pth"):
        command.run_launched(launched, arguments(), command.make_parser())
    assert len(waits) == local_rank and all(1 <= each <= 5 for each in waits)

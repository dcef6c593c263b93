"""What MLflow and Weights & Biases are called with, without the libraries."""

import json
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from detectron2.utils.events import EventStorage

from topformer_d2.engine.early_stopping import EndedEarly
from topformer_d2.engine.loggers import RUN_IDS, MlflowWriter, WandbWriter
from topformer_d2.engine.stopping import StopRequested
from topformer_d2.errors import InputError


class Trouble(Exception):
    """Of the library."""


@pytest.fixture
def wandb(monkeypatch):
    """A library whose runs have the id "new", or the one that they are asked for."""
    library = MagicMock()
    library.init.side_effect = lambda **keys: library.run
    library.run.id = "new"
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return library


@pytest.fixture
def mlflow(monkeypatch):
    """A library without an experiment, whose first run has the id "new"."""
    library = MagicMock()
    library.exceptions.MlflowException = Trouble
    library.entities.Param = library.entities.Metric = lambda *values: values
    library.client = library.MlflowClient.return_value
    library.client.get_experiment_by_name.return_value = None
    library.client.create_experiment.return_value = "7"
    library.client.create_run.return_value = SimpleNamespace(info=SimpleNamespace(run_id="new"))
    monkeypatch.setitem(sys.modules, "mlflow", library)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return library


def write_twice(writer):
    """A loss at iteration 0, and at 1 a loss and a metric; then a look without news."""
    with EventStorage(0) as storage:
        storage.put_scalar("total_loss", 2.0)
        writer.write()
        storage.step()
        storage.put_scalar("total_loss", 1.0)
        storage.put_scalar("sem_seg/IoU-a%b", 50.0, smoothing_hint=False)
        writer.write()
        writer.write()


def test_wandb_gets_config_and_scalars(wandb, tmp_path):
    writer = WandbWriter(str(tmp_path), {"SEED": 3})
    writer.start(resumed=False)
    keys = wandb.init.call_args.kwargs
    assert keys["config"] == {"SEED": 3} and keys["project"] == "topformer_d2"
    assert (keys["name"], keys["id"], keys["resume"]) == (tmp_path.name, None, None)
    assert json.loads((tmp_path / RUN_IDS).read_text()) == {"wandb": "new"}
    write_twice(writer)
    logged = [call.args[0] for call in wandb.run.log.call_args_list]
    # The second loss is the median of both.
    assert logged == [
        {"iteration": 0, "total_loss": 2.0},
        {"iteration": 1, "total_loss": 1.5, "sem_seg/IoU-a%b": 50.0},
    ]
    writer.close()
    wandb.run.finish.assert_called_once_with(exit_code=0)


@pytest.mark.parametrize(
    ("content", "known"),
    [
        ('{"wandb": "old", "mlflow": "x"}', "old"),
        ('{"mlflow": "x"}', None),
        ('{"wandb": 5}', None),
        ("damaged", None),
    ],
)
def test_a_resumed_run_goes_on_with_the_one_it_knows(wandb, tmp_path, content, known):
    (tmp_path / RUN_IDS).write_text(content)
    WandbWriter(str(tmp_path), {}).start(resumed=True)
    keys = wandb.init.call_args.kwargs
    assert (keys["id"], keys["resume"]) == (known, "allow" if known else None)
    kept = json.loads((tmp_path / RUN_IDS).read_text())
    assert kept == {"wandb": "new"} | ({"mlflow": "x"} if '"x"' in content else {})


def test_mlflow_gets_config_and_scalars_in_requests_that_it_takes(mlflow, tmp_path):
    config = {"A": {f"K{i}": i for i in range(150)}, "LONG": "x" * 600}
    writer = MlflowWriter(str(tmp_path), config)
    writer.start(resumed=False)
    mlflow.client.create_run.assert_called_once_with("7", run_name=tmp_path.name)
    sent = [call.kwargs["params"] for call in mlflow.client.log_batch.call_args_list]
    assert [len(batch) for batch in sent] == [100, 51]
    assert sent[0][0] == ("A.K0", "0") and sent[1][-1] == ("LONG", "x" * 500)
    mlflow.client.log_batch.reset_mock()
    write_twice(writer)
    sent = [call.kwargs["metrics"] for call in mlflow.client.log_batch.call_args_list]
    assert [[(key, value, step) for key, value, _, step in batch] for batch in sent] == [
        [("total_loss", 2.0, 0)],
        [("total_loss", 1.5, 1), ("sem_seg/IoU-a_b", 50.0, 1)],
    ]


def test_a_run_that_mlflow_has_no_more_is_a_new_one(mlflow, tmp_path):
    (tmp_path / RUN_IDS).write_text('{"mlflow": "old"}')
    MlflowWriter(str(tmp_path), {}).start(resumed=True)
    mlflow.client.update_run.assert_called_once_with("old", status="RUNNING")
    assert json.loads((tmp_path / RUN_IDS).read_text()) == {"mlflow": "old"}
    mlflow.client.create_run.assert_not_called()
    mlflow.client.update_run.side_effect = Trouble
    MlflowWriter(str(tmp_path), {}).start(resumed=True)
    assert json.loads((tmp_path / RUN_IDS).read_text()) == {"mlflow": "new"}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (None, "FINISHED", 0),
        (EndedEarly(), "FINISHED", 0),
        (StopRequested("x", 2), "KILLED", 1),
        (RuntimeError(), "FAILED", 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_training_has_ended_is_told(mlflow, wandb, tmp_path, error, status, code):
    for kind in (MlflowWriter, WandbWriter):
        writer = kind(str(tmp_path), {})
        writer.start(resumed=False)
        try:
            if error is not None:
                raise error
        except (EndedEarly, StopRequested, RuntimeError):
            writer.close()  # as the loop does while its error goes on its way
        else:
            writer.close()
        writer.close()  # a second time does nothing
    mlflow.client.set_terminated.assert_called_once_with("new", status)
    wandb.run.finish.assert_called_once_with(exit_code=code)


def test_a_library_that_fails_ends_its_writer_alone(wandb, tmp_path, caplog):
    writer = WandbWriter(str(tmp_path), {})
    writer.start(resumed=False)
    wandb.run.log.side_effect = Trouble("no network")
    write_twice(writer)
    writer.close()
    assert wandb.run.log.call_count == 1 and not wandb.run.finish.called
    assert "wandb gets nothing more of this run: Trouble: no network" in caplog.text


def test_a_run_that_cannot_begin_is_an_error(wandb, tmp_path):
    wandb.init.side_effect = Trouble("no key")
    with pytest.raises(InputError, match=r"LOGGERS names 'wandb'.*no key.*WANDB_MODE=offline"):
        WandbWriter(str(tmp_path), {}).start(resumed=False)
    assert not (tmp_path / RUN_IDS).exists()

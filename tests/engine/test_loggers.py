"""LOGGERS: the config, scalars and last metrics reach each library, here without a network."""

import json
import logging
import sys

import pytest

from tests.engine.test_resume import options, run
from topformer_d2.engine import Trainer
from topformer_d2.engine.loggers import RUN_IDS
from topformer_d2.errors import InputError


def config(tiny_config, tmp_path, loggers, *further):
    return tiny_config(
        *(*options(tmp_path, "5", "run"), "SOLVER.MAX_ITER", "2", "LOGGERS", loggers, *further)
    )


def ids(tmp_path):
    return json.loads((tmp_path / "run" / RUN_IDS).read_text())


@pytest.mark.parametrize(
    ("loggers", "count"), [("['tensorboard']", 1), pytest.param("[]", 0, marks=pytest.mark.slow)]
)
def test_tensorboard_is_the_default(tiny_config, tmp_path, loggers, count):
    assert tiny_config().LOGGERS == ["tensorboard"]
    run(config(tiny_config, tmp_path, loggers))
    assert len(list((tmp_path / "run").glob("events.out.tfevents.*"))) == count
    assert (tmp_path / "run/metrics.json").is_file()
    assert not (tmp_path / "run" / RUN_IDS).exists()


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """Its client, with a store of files."""
    library = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = library.get_tracking_uri()
    library.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield library.MlflowClient()
    library.set_tracking_uri(before)


def test_mlflow_gets_config_scalars_and_metrics(tiny_config, tmp_path, mlflow):
    tested = ["DATASETS.TEST", "('synthetic_sem_seg_val',)"]
    losses, _ = run(config(tiny_config, tmp_path, "['mlflow']", *tested))
    found = mlflow.get_run(ids(tmp_path)["mlflow"])
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    assert found.data.params["SOLVER.MAX_ITER"] == "2"
    history = mlflow.get_metric_history(found.info.run_id, "total_loss")
    assert history[-1].step == 1 and min(losses.values()) <= history[-1].value
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.json").open()]
    assert found.data.metrics["sem_seg/mIoU"] == metrics[-1]["sem_seg/mIoU"] > 0


def test_mlflow_goes_on_with_the_run_of_a_resume(tiny_config, tmp_path, mlflow):
    run(config(tiny_config, tmp_path, "['mlflow']", "SOLVER.MAX_ITER", "4"), stop_after=1)
    first = ids(tmp_path)["mlflow"]
    assert mlflow.get_run(first).info.status == "KILLED"
    run(config(tiny_config, tmp_path, "['mlflow']", "SOLVER.MAX_ITER", "4"), resume=True)
    assert ids(tmp_path)["mlflow"] == first
    assert mlflow.get_run(first).info.status == "FINISHED"
    steps = [m.step for m in mlflow.get_metric_history(first, "total_loss")]
    assert steps == sorted(steps) and steps[-1] == 3
    run(config(tiny_config, tmp_path, "['mlflow']"))  # begun anew
    assert ids(tmp_path)["mlflow"] != first


def test_a_library_that_fails_does_not_end_the_training(tiny_config, tmp_path, mlflow, monkeypatch):
    def fail(*_args, **_kwargs):
        raise ConnectionError("no route to host")

    warned = []
    monkeypatch.setattr(
        logging.getLogger("topformer_d2.engine.loggers"),
        "warning",
        lambda message, *args: warned.append(message % args),
    )
    trainer = Trainer(config(tiny_config, tmp_path, "['mlflow']"))
    monkeypatch.setattr(
        type(mlflow),
        "log_batch",
        lambda self, run_id, metrics=(), params=(): fail() if metrics else None,
    )
    trainer.train()
    assert trainer.iter == 2 and len(warned) == 1 and "no route to host" in warned[0]


def test_a_run_that_cannot_begin_is_said_first(tiny_config, tmp_path, mlflow, monkeypatch):
    def fail(*_args, **_kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(type(mlflow), "create_run", fail)
    trainer = Trainer(config(tiny_config, tmp_path, "['mlflow']"))
    with pytest.raises(InputError, match=r"LOGGERS names 'mlflow'.*no route.*MLFLOW_TRACKING_URI"):
        trainer.train()


@pytest.mark.slow
def test_wandb_offline(tiny_config, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(config(tiny_config, tmp_path, "['wandb']", "DATASETS.TEST", "('synthetic_sem_seg_val',)"))
    (folder,) = (tmp_path / "run/wandb").glob("offline-run-*")
    (stored,) = folder.glob("run-*.wandb")
    assert stored.stem == f"run-{ids(tmp_path)['wandb']}"
    content = stored.read_bytes()
    for part in (b"total_loss", b"sem_seg/mIoU", b"MAX_ITER"):
        assert part in content


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_library(tiny_config, tmp_path, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"LOGGERS '{name}'.*pip install {name}.*\[loggers\]"):
        Trainer(config(tiny_config, tmp_path, f"['{name}']"))
    assert not (tmp_path / "run").exists()


def test_an_unknown_name(tiny_config, tmp_path):
    with pytest.raises(InputError, match=r"LOGGERS is \['comet'\].*'tensorboard', 'mlflow'"):
        config(tiny_config, tmp_path, "['comet']")

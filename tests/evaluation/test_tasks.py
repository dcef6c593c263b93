"""An evaluator of another task than the model's is refused; a joint dataset takes either."""

import pytest
import torch
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)
from detectron2.modeling import build_model

from topformer_d2.engine import Trainer
from topformer_d2.errors import InputError
from topformer_d2.evaluation import (
    BoxEvaluator,
    ConfusionEvaluator,
    build_evaluator,
    check_needs,
)

JOINT = "synthetic_multitask_val"
OF_TASK = {
    "sem_seg": (SemSegEvaluator, ConfusionEvaluator),
    "instances": (COCOEvaluator, BoxEvaluator),
}


@pytest.fixture(params=["sem_seg", "instances"])
def task_and_config(request, tiny_config, tiny_detector):
    make = tiny_config if request.param == "sem_seg" else tiny_detector
    return request.param, make("DATASETS.TEST", f"('{JOINT}',)")


def test_of_a_joint_dataset_the_models_task_is_evaluated(task_and_config, tmp_path):
    task, cfg = task_and_config
    evaluator = build_evaluator(cfg, JOINT, str(tmp_path))
    assert isinstance(evaluator, OF_TASK[task][1])
    for kind in OF_TASK[task]:
        check_needs([DatasetEvaluators([kind(JOINT)])], (task,))


def test_another_tasks_evaluator_is_refused(task_and_config):
    task, cfg = task_and_config
    other = next(name for name in OF_TASK if name != task)
    for kind in OF_TASK[other]:

        class Own(Trainer):
            @classmethod
            def build_evaluator(cls, cfg, name, kind=kind):
                return DatasetEvaluators([kind(name)])

        for trainer, evaluators in ((Trainer, kind(JOINT)), (Trainer, [kind(JOINT)]), (Own, None)):
            with pytest.raises(InputError, match=rf"{kind.__name__} evaluates '{other}'.*{task}"):
                trainer.test(cfg, None, evaluators)


def test_outputs_of_another_task_are_refused():
    for evaluator, output in (
        (ConfusionEvaluator(JOINT), {"instances": None}),
        (BoxEvaluator(JOINT), {"sem_seg": None}),
    ):
        evaluator.reset()
        file = "x" if isinstance(evaluator, BoxEvaluator) else next(iter(evaluator._label_files))
        with pytest.raises(InputError, match=rf"the model gives no .*{JOINT}"):
            evaluator.process([{"file_name": file, "image_id": 1}], [output])


def test_nan_boxes_are_refused_whatever_evaluates_them(tiny_detector):
    class Own(DatasetEvaluator):
        """One that does not say what it needs."""

    cfg = tiny_detector("DATASETS.TEST", f"('{JOINT}',)", kind="")
    model = build_model(cfg).eval()  # Detectron2's own
    torch.nn.init.constant_(model.head.bbox_pred.bias, torch.nan)
    with pytest.raises(InputError, match="NaN or infinite values"):
        Trainer.test(cfg, model, Own())


@pytest.mark.parametrize("needs", ["labels", "", 3, ["logits"], {"label_map"}])
def test_needs_that_are_unknown_are_named(needs):
    own = type("Own", (DatasetEvaluator,), {"needs": needs})()
    with pytest.raises(
        InputError, match=r"`needs` of Own is .* one of \['label_map', .*'logits', "
    ):
        check_needs([own], ("sem_seg", "instances"))

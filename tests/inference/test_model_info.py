"""What is known of a model beside its network, from a config and back from its text."""

import pytest

from tests.helpers import REPOSITORY
from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.inference.model_info import ModelInfo

CONFIGS = REPOSITORY / "configs"


@pytest.mark.parametrize(
    "config, pixels, objects",
    [
        ("seg_topformer_t_camvid", "Sky", None),
        ("det_retinanet_lite_topformer_t", None, "person"),
        ("multitask_lite_topformer_t_synthetic", "ground", "disc"),
    ],
)
def test_names_of_the_tasks_and_back_from_json(config, pixels, objects):
    info = ModelInfo.from_config(get_config(config))
    assert next(iter(info.pixels.names), None) == pixels
    assert next(iter(info.objects.names), None) == objects
    assert ModelInfo.from_json(info.to_json()) == info


NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("cls_")])
def test_every_shipped_config_comes_back(name):
    info = ModelInfo.from_config(get_config(name))
    assert ModelInfo.from_json(info.to_json()) == info


def test_objects_have_the_datasets_ids():
    info = ModelInfo.from_config(get_config("det_retinanet_lite_topformer_t"))
    assert len(info.objects.ids) == 80
    assert (info.objects.ids[0], info.objects.ids[-1]) == (1, 90)


def test_classes_without_a_dataset_are_numbered():
    cfg = get_config("seg_topformer_t_camvid")
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN = ()
    info = ModelInfo.from_config(cfg)
    assert info.pixels.names[10] == "class 10" and info.pixels.dataset == ""
    assert len(info.pixels.colors) == 11


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tasks": [], "pixels": 1, "objects": {}}'])
def test_other_text_is_refused(text):
    with pytest.raises(InputError, match="not the description of a model"):
        ModelInfo.from_json(text)

"""Every model keeps one contract, Detectron2's own ones by an adapter."""

import copy
import pickle

import pytest
import torch
from detectron2.modeling import RetinaNet
from detectron2.modeling import build_model as build_detectron2_model
from torch import nn

from topformer_d2 import get_config
from topformer_d2.engine import Trainer
from topformer_d2.errors import InputError
from topformer_d2.modeling import adapt, build_model

CONFIGS = {
    "seg_topformer_t": ("sem_seg",),
    "det_retinanet_topformer_t": ("instances",),
    "det_retinanet_lite_topformer_t": ("instances",),
    "multitask_lite_topformer_t": ("sem_seg", "instances"),
}


def build(name, *opts, by=build_model):
    return by(get_config(name, ["MODEL.DEVICE", "cpu", *opts])).eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_network_and_predict_agree_with_the_tasks(name):
    model = build(name)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        raw = model.network((image[None].float() - model.pixel_mean) / model.pixel_std)
        (output,) = model.predict([{"image": image}])
        (called,) = model([{"image": image}])
    assert model.tasks == CONFIGS[name] == tuple(output) == tuple(called)
    assert (raw.logits is not None) == ("sem_seg" in model.tasks)
    assert (raw.class_logits is not None) == ("instances" in model.tasks)
    if raw.logits is not None:
        assert raw.logits.shape[-2:] == (8, 12) and model.size_divisor == 1
        assert torch.equal(output["sem_seg"], called["sem_seg"])
    if raw.class_logits is not None:
        assert [x.shape[-2:] for x in raw.class_logits][:2] == [(8, 12), (4, 6)]
        assert len(raw.tensors()) == 10 + ("sem_seg" in model.tasks)


def test_detectron2s_own_model_is_seen_through_the_contract():
    given = build("det_retinanet_topformer_t", by=build_detectron2_model)
    assert type(given) is RetinaNet
    model = adapt(given)
    assert isinstance(model, RetinaNet) and model.head is given.head
    given.train()
    assert model.training
    assert list(model.state_dict()) == list(given.state_dict())
    assert adapt(model) is model
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.tasks == ("instances",) and again.head is not given.head


def test_detectron2s_own_segmenter_gives_what_finish_makes():
    opts = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.SEM_SEG_HEAD.NAME"]
    opts += ["SemSegFPNHead", "MODEL.SEM_SEG_HEAD.IN_FEATURES", "['sim3', 'sim4']"]
    model = build("seg_topformer_t", *opts)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = model([{"image": image, "height": 32, "width": 48}])[0]["sem_seg"]
        (output,) = model.predict(
            [{"image": image, "height": 32, "width": 48}],
            finish=lambda logits, *sizes: (logits.argmax(0), *sizes),
        )
    labels, *sizes = output["sem_seg"]
    assert torch.equal(labels, expected.argmax(0)) and sizes == [(32, 48), (32, 48)]
    assert model.network(torch.rand(1, 3, 64, 96)).logits.shape[0] == 1


def test_another_kind_of_model_is_refused():
    with pytest.raises(InputError, match="'Linear' is neither a segmenter nor a dense detector"):
        adapt(nn.Linear(1, 1))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_in_training_mode_does_not_predict(name):
    model = build(name).train()
    with pytest.raises(InputError, match=r"training mode: call its eval\(\)"):
        model.predict([{"image": torch.zeros(3, 64, 64, dtype=torch.uint8)}])


def test_a_wrapper_is_refused_with_what_is_within():
    for model in (build("seg_topformer_t"), build("det_retinanet_topformer_t")):
        with pytest.raises(InputError, match=rf"DataParallel .* give the {type(model).__name__} "):
            adapt(nn.DataParallel(model))


@pytest.mark.parametrize("by", [build_model, Trainer.build_model])
def test_features_that_the_backbone_lacks_are_named(by):
    opts = ["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.DEVICE", "cpu"]
    for name in ("det_retinanet_topformer_t", "multitask_lite_topformer_t"):
        with pytest.raises(InputError, match=r"IN_FEATURES names 'p3', .*'build_resnet_backbone'"):
            by(get_config(name, opts))

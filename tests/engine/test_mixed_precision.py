"""The models in mixed precision, by PyTorch's types on the CPU: SOLVER.AMP needs a GPU."""

import pytest
import torch
from detectron2.utils.events import EventStorage

from topformer_d2 import get_config
from topformer_d2.engine import Trainer


@pytest.fixture
def config(tiny_config, tiny_detector):
    def make(kind):
        same = ["SEED", "1", "MODEL.TOPFORMER.DROP_PATH_RATE", "0.0"]
        same += ["MODEL.SEM_SEG_HEAD.DROPOUT", "0.0"]
        if kind == "segmentation":
            return tiny_config(*same)
        if kind == "detection":
            return tiny_detector(*same, kind="")
        joint = get_config("multitask_lite_topformer_t_synthetic", same)
        joint.merge_from_list(["INPUT.CROP.SIZE", [64, 64], "MODEL.DEVICE", "cpu"])
        joint.merge_from_list(["OUTPUT_DIR", tiny_config().OUTPUT_DIR])
        joint.merge_from_list(["DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 4])
        return joint

    return make


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["segmentation", "detection", "joint"])
def test_losses_and_gradients(config, kind, dtype):
    """Losses are computed in float32, so they differ by the rounding of activations alone."""
    trainer = Trainer(config(kind))
    batch, model = next(iter(trainer.data_loader)), trainer.model
    found = []
    for is_mixed in (False, True):
        model.loss_normalizer = 100.0  # a running mean, which each call moves
        model.zero_grad()
        with EventStorage(), torch.autocast("cpu", dtype=dtype, enabled=is_mixed):
            losses = model(batch)
        sum(losses.values()).backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
        found.append(({k: v.item() for k, v in losses.items()}, gradients))
        assert all(v.dtype == torch.float32 for v in losses.values())
    (exact, gradients), (mixed, rounded) = found
    assert mixed == pytest.approx(exact, rel=0.005)
    assert mixed != exact
    assert rounded.isfinite().all() and rounded.dtype == torch.float32
    # BatchNorm over the few values of so small images magnifies the rounding of 8 bits too far.
    if dtype == torch.float16:
        assert torch.cosine_similarity(gradients, rounded, dim=0) > 0.7

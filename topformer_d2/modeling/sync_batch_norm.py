"""BatchNorm over the batches of all processes on a CPU, for which PyTorch has none.

PyTorch's SyncBatchNorm runs on GPUs alone. Detectron2's NaiveSyncBatchNorm runs anywhere, but takes
many passes over the maps, forward and backward, and so makes two processes slower than one.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.utils import comm
from torch import Tensor, distributed, nn
from torch.nn import functional as F

# Norms over the batches of all processes.
SYNCHRONIZED = (nn.SyncBatchNorm, NaiveSyncBatchNorm)


class CpuSyncBatchNorm(NaiveSyncBatchNorm):
    """BatchNorm over the batches of all processes of a run on the CPU.

    It does what BatchNorm in one process does with the whole batch: mean and variance are of all
    pixels of all processes, however many each has. (N, C, H, W) to the same shape and dtype.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or comm.get_world_size() == 1:
            return super().forward(x)
        y, mean, variance, count = _Normalize.apply(x.float(), self.weight, self.bias, self.eps)
        if self.running_mean is not None:
            self.num_batches_tracked += 1
            momentum = self.momentum
            if momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
            unbiased = variance * (count / (count - 1).clamp(min=1)).float()
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(unbiased, momentum)
        return y.to(x.dtype)


def with_cpu_sync_batch_norm(model: nn.Module) -> nn.Module:
    """Replace the model's norms over all processes by CpuSyncBatchNorm.

    Parameters and buffers are the same tensors as before, so an optimizer keeps its hold on them.

    Returns:
        The model itself.
    """
    replaced: dict[nn.Module, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SYNCHRONIZED) and not isinstance(child, CpuSyncBatchNorm):
                if child not in replaced:
                    replaced[child] = _converted(child)
                setattr(parent, name, replaced[child])
    return model


def _converted(norm: Any) -> CpuSyncBatchNorm:
    converted = CpuSyncBatchNorm(norm.num_features, norm.eps, norm.momentum)
    converted._parameters.update(norm._parameters)
    converted._buffers.update(norm._buffers)
    return converted.train(norm.training)


class _Normalize(torch.autograd.Function):
    """Normalise by the statistics of all processes; the gradient is theirs, too.

    The sums of the processes are added in float64: a variance is a difference of means.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
        mean, variance = mean.double(), variance.double()
        count = mean.new_full((1,), x.numel() / x.shape[1])
        sums = torch.cat([mean * count, (variance + mean**2) * count, count])
        distributed.all_reduce(sums)
        count = sums[-1:]
        mean, squares = (sums[:-1] / count).chunk(2)
        variance = (squares - mean**2).clamp(min=0).float()
        mean = mean.float()
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, variance, count = ctx.saved_tensors
        # With the statistics held fixed: the sums are of this process's pixels.
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.cat([dweight, dbias]).double()
        distributed.all_reduce(sums)
        of_scaled, of_all = (sums / count).float().chunk(2)
        # What each pixel's gradient changes through the statistics is linear in x.
        scale = weight * (variance + ctx.eps).rsqrt()
        through = F.batch_norm(x, mean, variance, scale * of_scaled, scale * of_all, eps=ctx.eps)
        return dx.sub_(through), dweight, dbias, None

"""BatchNorm over all processes on a CPU, held against BatchNorm in one process."""

import threading

import pytest
import torch
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.utils import comm
from torch import distributed, nn

from topformer_d2.modeling.sync_batch_norm import CpuSyncBatchNorm, with_cpu_sync_batch_norm


class Processes:
    """Threads that stand for processes: all_reduce adds up what each of them brings."""

    def __init__(self, number):
        self.barrier, self.brought, self.number = threading.Barrier(number, timeout=60), {}, number

    def all_reduce(self, tensor):
        self.brought[threading.get_ident()] = tensor.clone()
        self.barrier.wait()
        total = sum(self.brought.values())
        self.barrier.wait()
        tensor.copy_(total)

    def run(self, work):
        """The results of work(0), work(1), ..."""
        results = [None] * self.number

        def one(i):
            results[i] = work(i)

        threads = [threading.Thread(target=one, args=(i,)) for i in range(self.number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


@pytest.fixture
def processes(monkeypatch):
    several = Processes(2)
    monkeypatch.setattr(distributed, "all_reduce", several.all_reduce)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    return several


def make_norm(kind, momentum):
    norm = kind(6, momentum=momentum)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 2, 6))
        norm.bias.copy_(torch.linspace(0, 1, 6))
    return norm


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
@pytest.mark.parametrize("sizes", [(3, 3), (1, 4)])
def test_processes_do_what_one_does_with_the_whole_batch(processes, sizes, momentum, layout):
    generator = torch.Generator().manual_seed(0)
    # Far from 0: squares of float32 would lose the variance.
    batches = [torch.randn(n, 6, 5, 7, generator=generator) + 100 for n in sizes]
    batches = [batch.to(memory_format=layout) for batch in batches]
    weights = [torch.randn(batch.shape, generator=generator) for batch in batches]

    whole, x = make_norm(nn.BatchNorm2d, momentum).double(), torch.cat(batches).double()
    x.requires_grad_()
    y = whole(x)
    (y * torch.cat(weights)).sum().backward()

    norms = [make_norm(CpuSyncBatchNorm, momentum) for _ in sizes]
    inputs = [batch.clone(memory_format=layout).requires_grad_() for batch in batches]

    def work(i):
        output = norms[i](inputs[i])
        (output * weights[i]).sum().backward()
        return output.detach()

    outputs = processes.run(work)
    close = {"rtol": 1e-4, "atol": 1e-4, "check_dtype": False}
    torch.testing.assert_close(torch.cat(outputs), y.detach(), **close)
    torch.testing.assert_close(torch.cat([each.grad for each in inputs]), x.grad, **close)
    for name in ("weight", "bias"):  # DistributedDataParallel adds up those of the processes
        total = sum(getattr(norm, name).grad for norm in norms)
        torch.testing.assert_close(
            total, getattr(whole, name).grad, rtol=1e-3, atol=1e-3, check_dtype=False
        )
    for norm in norms:
        torch.testing.assert_close(norm.running_mean, whole.running_mean, **close)
        torch.testing.assert_close(norm.running_var, whole.running_var, **close)
        assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("kind", [NaiveSyncBatchNorm, nn.SyncBatchNorm])
def test_a_models_norms_are_replaced_and_keep_their_tensors(kind):
    shared = kind(4)
    model = nn.Sequential(kind(4), nn.Sequential(shared), nn.BatchNorm2d(4), shared)
    model[1].eval()
    before = dict(model.state_dict(keep_vars=True))
    assert with_cpu_sync_batch_norm(model) is model
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)
    kinds = [type(module) for module in model]
    assert kinds == [CpuSyncBatchNorm, nn.Sequential, nn.BatchNorm2d, CpuSyncBatchNorm]
    assert model[1][0] is model[3] and not model[3].training and model[0].training


def test_in_evaluation_it_takes_the_running_statistics(processes):
    x = torch.randn(2, 6, 3, 3)
    norms = [make_norm(kind, 0.1).eval() for kind in (CpuSyncBatchNorm, nn.BatchNorm2d)]
    assert torch.equal(*(norm(x) for norm in norms))

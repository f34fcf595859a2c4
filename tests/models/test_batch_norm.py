"""BatchNorm over two processes, eager and compiled, against one process with the whole batch in float64."""

import copy
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from clever_fast.models.batch_norm import SharedBatchNorm, share_statistics
from clever_fast.models.resnet import RESNETS

SHAPES = {"images": (6, 5, 7, 3), "vectors": (4, 3)}
OFFSET = 100.0  # a mean that float32's squares could not bear


def layer(name: str) -> nn.Module:
    torch.manual_seed(1)
    if name == "vectors":
        return nn.BatchNorm1d(SHAPES[name][1], affine=False)
    norm = nn.BatchNorm2d(SHAPES[name][1], momentum=0.3, eps=1e-3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def data(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    x, target = torch.randn(SHAPES[name]) * 3 + OFFSET, torch.randn(SHAPES[name])
    x[: len(x) // 2] += 5  # the processes' means differ
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x, target


def steps(norm: nn.Module, x: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """A few passes; what the last one leaves."""
    for _ in range(3):
        leaf = x.detach().clone().requires_grad_()
        norm.zero_grad()
        y = norm(leaf)
        (y * target).square().mean().backward()
    found = {"y": y.detach(), "x.grad": leaf.grad, **norm.state_dict()}
    return found | {f"{n}.grad": p.grad for n, p in norm.named_parameters()}


def on_a_rank(rank: int, folder: str, compiled: bool) -> None:
    os.environ.update(OMP_NUM_THREADS="1")
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {}
    for name in SHAPES:
        x, target = (t.chunk(2)[rank] for t in data(name))
        norm = share_statistics(layer(name))
        if compiled:
            norm.compile(fullgraph=True, dynamic=False, backend="aot_eager")
        found[name] = steps(norm, x, target)
    torch.save(found, f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_two_processes_are_one_with_the_whole_batch(tmp_path, compiled):
    mp.spawn(on_a_rank, (str(tmp_path), compiled), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1)]
    for name in SHAPES:
        x, target = data(name)
        exact = steps(layer(name).double(), x.double(), target.double())
        near = steps(layer(name), x, target)
        for key, want in exact.items():
            got = [rank[name][key] for rank in ranks]
            if key in ("y", "x.grad"):
                together = torch.cat(got) / (2 if key == "x.grad" else 1)  # a rank's loss is a mean of half as many
            elif key.endswith(".grad"):
                together = (got[0] + got[1]) / 2  # as DDP averages
            else:
                assert torch.equal(*got), f"{key} differs between the ranks"
                together = got[0]
            bound = 2 * (near[key].double() - want).abs().max() + 4e-6 * want.abs().max()
            assert (together.double() - want).abs().max() <= bound, (name, key)


def test_a_network_keeps_its_tensors_and_names():
    network = RESNETS[0].build(0.0)
    shared = share_statistics(copy.deepcopy(network))
    assert not any(type(m) in (nn.BatchNorm1d, nn.BatchNorm2d) for m in shared.modules())
    assert sum(isinstance(m, SharedBatchNorm) for m in shared.modules()) > 10
    assert list(shared.state_dict()) == list(network.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(shared.eval()(x), network.eval()(x))  # statistics that are given need no process


def test_no_name_that_torch_warns_of_is_called():
    import inspect

    from clever_fast.models import batch_norm

    assert "deprecated" not in inspect.getsource(batch_norm.gather)

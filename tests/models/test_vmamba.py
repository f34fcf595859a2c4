"""VMamba: the released block in plain torch, the released names, 16-bit autocast, compilation and DDP."""

import math

import pytest
import torch
from torch.nn import functional as F

from clever_fast.models import BACKBONES
from clever_fast.models.vmamba import VMamba
from clever_fast.ops.cross_scan import reference
from clever_fast.ops.selective_scan.reference import selective_scan

COUNTS = {"vmamba_tiny": 29_480_064, "vmamba_small": 48_243_840, "vmamba_base": 85_589_504}


@pytest.fixture
def small() -> VMamba:
    torch.manual_seed(0)
    return VMamba(16, (1, 2)).eval()


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameter_counts_with_and_without_a_classifier(name, count):
    with torch.device("meta"):
        model = BACKBONES[name].build(0.2)
    assert sum(p.numel() for p in model.parameters()) == count
    with_classifier = {"vmamba_tiny": 30_249_064, "vmamba_small": 49_012_840, "vmamba_base": 86_614_504}
    assert count + 1000 * (model.embed_dim + 1) == with_classifier[name]


@pytest.mark.parametrize("size", [224, 96, 36])
def test_features_follow_the_image(small, size):
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        features = small(x)
        assert features.shape == (2, 32) == (2, small.embed_dim)
        assert (features[0] - features[1]).abs().max() > 1e-3
        torch.testing.assert_close(small(x.contiguous(memory_format=torch.channels_last)), features)


def norm_2d(x, weights, name):
    return F.layer_norm(
        x.permute(0, 2, 3, 1), x.shape[1:2], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5
    ).permute(0, 3, 1, 2)


def as_released(w: dict[str, torch.Tensor], x: torch.Tensor, depths: tuple[int, ...]) -> torch.Tensor:
    """The network written from its definition, channels first, out of a state dict alone."""

    def conv(x, name, **options):
        return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **options)

    def linear(x, name):
        return F.conv2d(x, w[f"{name}.weight"][:, :, None, None], w.get(f"{name}.bias"))

    def ss2d(x, name):
        x = linear(x, f"{name}.in_proj")
        x = F.silu(conv(x, f"{name}.conv2d", padding=1, groups=x.shape[1]))
        N, D, H, W = x.shape
        row, column = x.flatten(2), x.transpose(2, 3).flatten(2)
        sequences = [row, column, row.flip(-1), column.flip(-1)]
        R, out = math.ceil(D / 16), []
        for k, xs in enumerate(sequences):
            rows = slice(k * D, (k + 1) * D)
            dt, B, C = (w[f"{name}.x_proj_weight"][k] @ xs).split([R, 1, 1], dim=1)
            delta, A = w[f"{name}.dt_projs_weight"][k] @ dt, -w[f"{name}.A_logs"][rows].exp()
            bias, skip = w[f"{name}.dt_projs_bias"][k], w[f"{name}.Ds"][rows]
            out.append(selective_scan(xs, delta, A, B[:, None], C[:, None], skip, bias, delta_softplus=True))
        y = out[0] + out[2].flip(-1)
        y = y + (out[1] + out[3].flip(-1)).unflatten(-1, (W, H)).transpose(2, 3).flatten(2)
        return linear(norm_2d(y.view(N, D, H, W), w, f"{name}.out_norm"), f"{name}.out_proj")

    x = norm_2d(conv(x, "patch_embed.0", stride=2, padding=1), w, "patch_embed.2")
    x = norm_2d(conv(F.gelu(x), "patch_embed.5", stride=2, padding=1), w, "patch_embed.7")
    for i, depth in enumerate(depths):
        for j in range(depth):
            name = f"layers.{i}.blocks.{j}"
            x = x + ss2d(norm_2d(x, w, f"{name}.norm"), f"{name}.op")
            x = x + linear(F.gelu(linear(norm_2d(x, w, f"{name}.norm2"), f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
        if i < len(depths) - 1:
            x = norm_2d(conv(x, f"layers.{i}.downsample.1", stride=2, padding=1), w, f"layers.{i}.downsample.3")
    return norm_2d(x, w, "classifier.norm").mean((2, 3))


def test_the_network_is_the_released_one(small):
    with torch.no_grad():
        for p in small.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    x = torch.randn(2, 3, 36, 44)
    exact = as_released({k: v.double() for k, v in small.state_dict().items()}, x.double(), (1, 2))
    torch.testing.assert_close(small(x).double(), exact, rtol=1e-4, atol=1e-4)


def released_names(depths: tuple[int, ...]) -> set[str]:
    """The names as they stand in the released checkpoints."""
    names = {f"patch_embed.{i}.{p}" for i in (0, 2, 5, 7) for p in ("weight", "bias")}
    for i, depth in enumerate(depths):
        for j in range(depth):
            block = {
                f"{m}.{p}" for m in ("norm", "norm2", "op.out_norm", "mlp.fc1", "mlp.fc2") for p in ("weight", "bias")
            }
            block |= {f"op.{p}" for p in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")}
            block |= {"op.in_proj.weight", "op.conv2d.weight", "op.out_proj.weight"}
            names |= {f"layers.{i}.blocks.{j}.{name}" for name in block}
        if i < len(depths) - 1:
            names |= {f"layers.{i}.downsample.{m}.{p}" for m in (1, 3) for p in ("weight", "bias")}
    return names | {"classifier.norm.weight", "classifier.norm.bias"}


def test_released_names_and_shapes():
    with torch.device("meta"):
        state = BACKBONES["vmamba_tiny"].build(0.0).state_dict()
    assert set(state) == released_names((2, 2, 8, 2))
    shapes = {
        name.split("op.")[1]: tuple(t.shape) for name, t in state.items() if name.startswith("layers.1.blocks.0.op.")
    }
    assert shapes == {
        "in_proj.weight": (192, 192),
        "conv2d.weight": (192, 1, 3, 3),
        "x_proj_weight": (4, 14, 192),
        "dt_projs_weight": (4, 192, 12),
        "dt_projs_bias": (4, 192),
        "A_logs": (768, 1),
        "Ds": (768,),
        "out_norm.weight": (192,),
        "out_norm.bias": (192,),
        "out_proj.weight": (192, 192),
    }


def test_initial_values():
    torch.manual_seed(0)
    op = VMamba(64, (1,)).layers[0].blocks[0].op
    steps = F.softplus(op.dt_projs_bias)
    assert 1e-3 * 0.999 < steps.min() < 1.3e-3
    assert 0.08 < steps.max() < 1e-1 * 1.001
    assert steps.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.3)  # log-uniform
    assert not op.A_logs.any()
    assert (op.Ds == 1).all()
    assert op.dt_projs_weight.abs().max() <= 0.5  # rank 4
    assert op.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_drop_path_rises_to_the_last_block_and_acts_in_training_alone():
    torch.manual_seed(0)
    model = VMamba(16, (2, 2), drop_path=0.6)
    rates = [block.drop_path.drop_prob for layer in model.layers for block in layer.blocks]
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.6])
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_autocast_is_finite_and_near(small, dtype):
    x = torch.randn(2, 3, 64, 64)
    exact = small(x)
    with torch.autocast("cpu", dtype):
        features = small(x * 1.0)
    features.float().square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in small.parameters())
    assert ((features.float() - exact).norm() / exact.norm()).item() < (0.01 if dtype == torch.float16 else 0.05)


def test_compiles_without_a_graph_break(small):
    x = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(small, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), small(x), rtol=1e-4, atol=1e-5)
    compiled(x).sum().backward()
    assert small.layers[0].blocks[0].op.x_proj_weight.grad.abs().sum() > 0


def test_the_fused_scan_and_the_plain_one_train_alike(small, monkeypatch):
    x, gradients = torch.randn(2, 3, 36, 36), []
    for op in (None, lambda *xs: reference.cross_scan(*xs)):
        if op:
            monkeypatch.setattr("clever_fast.ops.cross_scan", op)
        small.zero_grad()
        small(x).square().sum().backward()
        gradients.append({name: p.grad for name, p in small.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-4, msg=name)


def one_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(VMamba(16, (1, 1)), static_graph=True)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model(images[2 * rank : 2 * rank + 2]).square().mean().backward()
    torch.save([p.grad for p in model.module.parameters()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.full
def test_two_processes_average_their_gradients(tmp_path):
    torch.multiprocessing.spawn(one_rank, (str(tmp_path),), nprocs=2)
    torch.manual_seed(0)
    model = VMamba(16, (1, 1))
    model(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for p, a, b in zip(model.parameters(), first, second, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.full
def test_vmamba_tiny_runs_one_step_at_full_size():
    model = BACKBONES["vmamba_tiny"].build(0.2)
    for size in (224, 96):
        model(torch.randn(2, 3, size, size)).square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())

"""SimSiam and DDCL: the losses as the equations read, what gets a gradient, PReg by hand, one loss for all ranks."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.models.resnet import BasicBlock
from torch.nn.parallel import DistributedDataParallel

from clever_fast.errors import UserError
from clever_fast.methods import Batch, Ddcl, DdclMethod, Dino, Progress, SimSiam
from clever_fast.methods.ddcl import absolute
from clever_fast.methods.simsiam import similarity, spread
from clever_fast.models import BACKBONES, Projector, share_statistics
from clever_fast.optimization import parameter_groups
from clever_fast.recipes import RECIPES
from tests.recipes import siamese

START = Progress(0, 10, 5)


def batch(images: int = 6, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    crops = torch.randn(2 * images, 3, 32, 32, generator=generator, dtype=torch.float64)
    return Batch(crops, None, torch.zeros(images))


@pytest.fixture(params=["simsiam", "ddcl"])
def method(request):
    return build(request.param)


def build(name: str, **changes):
    torch.manual_seed(0)
    recipe = siamese(name)
    config = type(recipe.method)(**{"width": 32, "bottleneck": 8} | changes)
    return config.build(recipe.backbone, 0.0).double()


def literal_cosine(p, z):
    """The equation, row by row."""
    rows = [sum(a * b for a, b in zip(p_n, z_n)) / (p_n.norm() * z_n.norm()) for p_n, z_n in zip(p, z)]
    return sum(rows) / len(rows)


def test_similarity_is_the_equation_and_z_gets_no_gradient():
    torch.manual_seed(0)
    p, z = ([torch.randn(5, 7, dtype=torch.float64, requires_grad=True) for _ in range(2)] for _ in range(2))
    value = similarity(p, z)
    expected = (literal_cosine(p[0], z[1].detach()) + literal_cosine(p[1], z[0].detach())) / 2
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)
    got = torch.autograd.grad(value, [*p, *z], allow_unused=True)
    want = torch.autograd.grad(expected, p)
    assert got[2] is None
    assert got[3] is None
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_terms_are_those_of_the_released_code(method):
    """The whole forward written again; in training mode, so that BatchNorm has to see one view at a time."""
    for module in method.encoder.modules():  # SimSiam's residual branches start at 0, with no gradient behind it
        if isinstance(module, BasicBlock):
            torch.nn.init.ones_(module.bn2.weight)
    data, again = batch(), copy.deepcopy(method)
    values = method(data, START)
    x1, x2 = data.global_crops[:6], data.global_crops[6:]
    h1, h2 = again.encoder(x1), again.encoder(x2)
    width = again.parts()["IR"].stop if "IR" in again.parts() else None
    z1, z2 = again.projector(h1[:, :width]), again.projector(h2[:, :width])
    p1, p2 = again.predictor(z1), again.predictor(z2)
    L_I = -(literal_cosine(p1, z2.detach()) + literal_cosine(p2, z1.detach())) / 2
    total = L_I
    if width:
        y1, y2 = again.projector2(h1[:, width:]), again.projector2(h2[:, width:])
        q1, q2 = again.predictor2(y1), again.predictor2(y2)
        L_V = ((literal_cosine(q1, y2.detach()) + literal_cosine(q2, y1.detach())) / 2).abs()
        P, Q, P2, Q2 = (
            sum((w**2).sum() for w in net.parameters())
            for net in (again.projector, again.predictor, again.projector2, again.predictor2)
        )
        preg = ((P - P2).abs() + (Q - Q2).abs()) / 2
        total = L_I + L_V + 0.001 * preg
        for name, expected in {
            "invariance": L_I, "orthogonality": L_V, "preg": preg, "ir_norm_squared": P + Q, "ef_norm_squared": P2 + Q2
        }.items():  # fmt: skip
            torch.testing.assert_close(values[name].double(), expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(values["loss"].double(), total, rtol=1e-6, atol=0)
    values["loss"].backward()
    total.backward()
    for (name, a), b in zip(method.named_parameters(), again.parameters(), strict=True):
        if not a.requires_grad:  # SimSiam's bias before the last BatchNorm
            continue
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")
        assert "6.bias" in name or a.grad.abs().max() > 1e-7, name  # the bias before the last BatchNorm has no effect
    for (name, a), b in zip(method.named_buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda m, name=name: f"{name}: {m}")


def test_preg_by_hand():
    """The pairs differ in their first layer alone: 1638 and 410 inputs of 2048 outputs, all weights 0.01."""
    with torch.device("meta"):
        method = Ddcl().build(BACKBONES["resnet50"], 0.0)
    assert method.parts() == {"all": slice(None), "IR": slice(0, 1638), "EF": slice(1638, None)}
    left, right = Projector(16, 8), Projector(4, 8)
    for net in (left, right):
        torch.nn.init.constant_(net[0].weight, 0.1)
        net[3].load_state_dict(left[3].state_dict())
        net[6].load_state_dict(left[6].state_dict())
    from clever_fast.methods.ddcl import _norm_gap

    gap, totals = _norm_gap(left, right)
    assert gap.item() == pytest.approx((16 - 4) * 8 * 0.01, rel=1e-4)
    assert totals[0] > totals[1]


def test_the_weight_of_preg_may_be_0():
    data = batch()
    for weight in (0.0, 0.5):
        values = build("ddcl", preg_weight=weight)(data, START)
        rest = values["loss"] - values["invariance"] - values["orthogonality"]
        assert rest.item() == pytest.approx(weight * values["preg"].item(), rel=1e-5, abs=1e-7)
        assert values["preg"] > 0


def test_projector_and_predictor_are_those_of_the_released_code():
    """Parameter counts of SimSiam's code on a ResNet-50: 2048-2048-2048-2048 and 2048-512-2048."""
    with torch.device("meta"):
        method = SimSiam().build(BACKBONES["resnet50"], 0.0)
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in method.named_children()}
    assert counts["projector"] == 3 * 2048**2 + 2 * 2 * 2048 + 2048
    assert counts["predictor"] == 2 * 2048 * 512 + 2 * 512 + 2048
    assert list(method.projector.state_dict())[:2] == ["0.weight", "1.weight"]
    assert not list(method.projector[7].parameters())


def test_a_resnet_18_s_projector_is_as_wide_as_its_features():
    """The released builder takes the features' width for the first two layers, 512, and 2048 for the last."""
    for name in ("simsiam_resnet18_in100", "ddcl_resnet18_in100", "ddcl_resnet18_in1k_preg"):
        with torch.device("meta"):
            method = RECIPES[name].build()
        layers = [method.projector[i].out_features for i in (0, 3, 6)]
        assert layers == [512, 512, 2048]
        assert [method.predictor[i].out_features for i in (0, 3)] == [512, 2048]
    with torch.device("meta"):
        method = RECIPES["ddcl_resnet50_in100"].build()
    assert [method.projector2[i].out_features for i in (0, 3, 6)] == [2048] * 3


def test_simsiam_s_projector_bias_is_neither_trained_nor_decayed_and_ddcl_s_is_both():
    for name, trained in (("simsiam", False), ("ddcl", True)):
        method = build(name)
        grouped = {id(p) for g in parameter_groups(method, siamese(name)) for p in g["params"]}
        projectors = [getattr(method, key) for key in ("projector", "projector2") if hasattr(method, key)]
        assert [id(projector[6].bias) in grouped for projector in projectors] == [trained] * len(projectors)


def test_resnets_start_as_those_of_the_released_code():
    """SimSiam: torchvision's, residual branches at 0. DDCL: nn.Conv2d's own, uniform within 1 / fan_in^(1/2). Others:
    torchvision's, Kaiming normal over fan_out, no branch at 0."""
    torch.manual_seed(0)
    kaiming = (2 / (256 * 9)) ** 0.5
    for config, std, last in (
        (SimSiam(), kaiming, 0.0), (Ddcl(), (3 * 256 * 9) ** -0.5, 1.0), (Dino(prototypes=8, hidden=8), kaiming, 1.0)
    ):  # fmt: skip
        method = config.build(BACKBONES["resnet18"], 0.0)
        network = method.encoder
        weight = network.layer3[1].conv2.weight
        assert weight.std().item() == pytest.approx(std, rel=0.01)
        bounded = weight.abs().max() <= (256 * 9) ** -0.5
        assert bounded == isinstance(method, DdclMethod)
        assert {block.bn2.weight.unique().item() for block in network.layer2} == {last}


def test_the_learning_rate_of_the_predictors_alone_is_constant(method):
    constant = {id(p) for p in method.constant_lr()}
    named = {name.split(".")[0] for name, p in method.named_parameters() if id(p) in constant}
    assert named == {name for name, _ in method.named_children() if name.startswith("predictor")}


def test_spread_tells_collapse_from_outputs_that_fill_space():
    torch.manual_seed(0)
    assert spread([torch.randn(500, 64)]).item() == pytest.approx(1, abs=0.02)
    assert spread([torch.ones(500, 64)]).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_ratio_that_leaves_a_part_empty_is_refused(ratio):
    with pytest.raises(UserError, match="separation_ratio"):
        build("ddcl", separation_ratio=ratio)


def test_local_crops_are_refused_as_none_are_learned_from():
    with pytest.raises(UserError, match="simsiam takes no local crops"):
        siamese("simsiam", local_crops=2)


def test_one_process_takes_the_absolute_value():
    for sign in (-1.0, 1.0):
        mean = torch.tensor(0.3 * sign, requires_grad=True)
        absolute(mean).backward()
        assert absolute(mean).item() == pytest.approx(0.3)
        assert mean.grad == sign


def gradients(method, data: Batch) -> dict[str, torch.Tensor]:
    method.zero_grad()
    method(data, START)["loss"].backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.requires_grad}


def shares(data: Batch) -> list[Batch]:
    """What each of two ranks gets: crop-major halves."""
    first, second = data.global_crops.chunk(2)
    parts = zip(first.chunk(2), second.chunk(2), data.labels.chunk(2))
    return [Batch(torch.cat([a, b]), None, labels) for a, b, labels in parts]


def frozen_statistics():
    """DDCL in evaluation mode, with the statistics of one batch of noise."""
    method = build("ddcl")
    for module in method.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        method(batch(seed=0), START)
    return method.eval()


def opposite_signs() -> Batch:
    """A batch whose halves have means of opposite sign on EF."""
    method = frozen_statistics()
    for seed in range(1, 50):
        data = batch(seed=seed)
        with torch.no_grad():
            found = [_signed(method, part) for part in shares(data)]
        if found[0] * found[1] < 0 and abs(sum(found)) > 1e-4:
            return data
    raise AssertionError("no such batch")


def _signed(method, data: Batch) -> float:
    h = [method.encoder(x)[:, method.ir_width :] for x in data.global_crops.chunk(2)]
    z = [method.projector2(x) for x in h]
    return similarity([method.predictor2(x) for x in z], z).item()


def one_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    data = Batch(*torch.load(f"{folder}/batch.pth", weights_only=True))
    found = {}
    for mode in ("eval", "train", "shared"):
        method = frozen_statistics() if mode == "eval" else build("ddcl")
        method = share_statistics(method) if mode == "shared" else method
        model = DistributedDataParallel(method, static_graph=True, gradient_as_bucket_view=True)
        model(shares(data)[rank], START)["loss"].backward()
        found[mode] = {name: p.grad.clone() for name, p in method.named_parameters()}
    torch.save(found, f"{folder}/{rank}.pth")
    dist.destroy_process_group()


def test_two_ranks_have_the_gradient_of_the_whole_batch(tmp_path):
    """Without batch statistics, or with those of all ranks, it is one process's, though the ranks' own similarities
    have opposite signs. With their own statistics it is the mean of what the halves have."""
    data = opposite_signs()
    torch.save(tuple(data), tmp_path / "batch.pth")
    mp.spawn(one_rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1)]
    whole = gradients(frozen_statistics(), data)
    own = [gradients(frozen_statistics(), part) for part in shares(data)]
    naive = {name: (own[0][name] + own[1][name]) / 2 for name in whole}
    assert (naive["projector2.0.weight"] - whole["projector2.0.weight"]).abs().max() > 1e-6  # the test can fail
    for name, expected in whole.items():
        torch.testing.assert_close(ranks[0]["eval"][name], expected, rtol=1e-5, atol=1e-8)
    for name, expected in gradients(build("ddcl"), data).items():
        torch.testing.assert_close(ranks[0]["shared"][name], expected, rtol=1e-4, atol=1e-6)
    for name in whole:
        for mode in ("eval", "train", "shared"):
            assert torch.equal(ranks[0][mode][name], ranks[1][mode][name]), name
    halves = [build("ddcl") for _ in range(2)]
    terms = [half(part, START) for half, part in zip(halves, shares(data))]
    sign = torch.sign(sum(_signed(build("ddcl"), part) for part in shares(data)) * torch.ones(()))
    for values, part in zip(terms, shares(data)):
        own_sign = torch.sign(torch.tensor(_signed(build("ddcl"), part)))
        (values["invariance"] + sign * own_sign * values["orthogonality"] + 0.001 * values["preg"]).backward()
    for (name, a), b in zip(halves[0].named_parameters(), halves[1].parameters()):
        torch.testing.assert_close(ranks[0]["train"][name], (a.grad + b.grad) / 2, rtol=1e-5, atol=1e-8)

"""DINO and CLeVER: the split, the heads, the centre, the teacher and the frozen last layer."""

import pytest
import torch

from clever_fast import ops
from clever_fast.errors import UserError
from clever_fast.methods import Batch, Clever, Dino, Progress
from clever_fast.methods.distillation import update_teacher
from clever_fast.models import BACKBONES

WIDTHS = {
    "vit_tiny_patch16_224": 153,
    "vit_small_patch16_224": 307,
    "vit_base_patch16_224": 614,
    "resnet18": 409,
    "resnet50": 1638,
}
PREG_AT_INIT = {"vit_tiny_patch16_224": 93, "vit_small_patch16_224": 188, "resnet18": 251, "resnet50": 1006}


@pytest.mark.parametrize(("backbone", "width"), WIDTHS.items())
def test_the_feature_vector_is_split_at_the_floor(backbone, width):
    with torch.device("meta"):
        method = Clever(prototypes=16).build(BACKBONES[backbone], 0.0)
    features = torch.arange(method.encoder.embed_dim)
    assert features[method.parts()["IR"]].tolist() == list(range(width))
    assert features[method.parts()["EF"]].tolist() == list(range(width, len(features)))


@pytest.mark.parametrize(("backbone", "gap"), PREG_AT_INIT.items())
def test_preg_at_initialisation(backbone, gap):
    torch.manual_seed(0)
    backbone = BACKBONES[backbone]
    with torch.device("meta"):
        D = backbone.build(0.0).embed_dim
    from clever_fast.models import DinoHead

    widths = int(0.8 * D), D - int(0.8 * D)
    heads = [DinoHead(width, 65536) for width in widths]
    with torch.no_grad():
        value, _ = ops.norm_gap(*(list(head.parameters()) for head in heads))
    assert value.item() == pytest.approx(gap, abs=7)
    assert sum(p.numel() for head in heads for p in head.parameters()) == pytest.approx(44e6, rel=0.1)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.0001])
def test_a_ratio_that_leaves_a_part_empty_is_refused(ratio):
    with torch.device("meta"), pytest.raises(UserError, match="separation_ratio"):
        Clever(separation_ratio=ratio).build(BACKBONES["resnet18"], 0.0)


def batch(images=3):
    torch.manual_seed(1)
    return Batch(torch.randn(2 * images, 3, 32, 32), torch.randn(2 * images, 3, 16, 16), torch.zeros(images))


@pytest.fixture(params=["dino", "clever"])
def method(request, small):
    torch.manual_seed(0)
    recipe = small(request.param)
    return recipe.method.build(recipe.backbone, 0.0)


def test_the_loss_is_the_sum_of_its_terms_and_reaches_every_trained_parameter(method):
    values = method(batch(), Progress(0, 10, 5))
    if "preg" in values:
        expected = values["invariance"] + values["orthogonality"] + 0.001 * values["preg"]
        torch.testing.assert_close(values["loss"], expected)
        assert method.center.shape != method.center2.shape  # K_EF differs from K_IR in this recipe
    values["loss"].backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.abs().sum() > 0, name


def test_terms_are_those_of_the_definition(small):
    """The whole forward written again from the networks' outputs, without the method's helpers."""
    torch.manual_seed(0)
    recipe = small("clever")
    method = recipe.method.build(recipe.backbone, 0.0).eval()  # no BatchNorm coupling between the two forwards
    data, N = batch(), 3
    method.center.uniform_(-0.1, 0.1)
    center = method.center.clone()
    with torch.no_grad():
        z_s = torch.cat([method.student.backbone(x) for x in (data.global_crops, data.local_crops)])
        s = method.student.head(z_s[:, : method.ir_width]).view(4, N, -1)
        t = method.teacher.head(method.teacher.backbone(data.global_crops)[:, : method.ir_width]).view(2, N, -1)
        total = 0.0
        for g in range(2):
            for v in range(4):
                if v != g:
                    P = ((t[g] - center) / 0.04).softmax(-1)
                    total += -(P * (s[v] / 0.1).log_softmax(-1)).sum(-1).mean() / 6
        values = method(data, Progress(0, 10, 5))
    torch.testing.assert_close(values["invariance"], total)
    expected = 0.9 * center + 0.1 * t.mean((0, 1))
    torch.testing.assert_close(method.center, expected)


def test_teacher_starts_as_the_student_and_follows_it(method):
    teacher, student = dict(method.teacher.named_parameters()), dict(method.student.named_parameters())
    assert all(torch.equal(teacher[name], student[name]) for name in teacher)
    with torch.no_grad():
        for parameter in student.values():
            parameter.add_(torch.randn_like(parameter))
    before = {name: p.clone() for name, p in teacher.items()}
    update_teacher(method.teacher, method.student, 0.75, torch.ones(()))
    for name, parameter in teacher.items():
        torch.testing.assert_close(parameter, 0.75 * before[name] + 0.25 * student[name])
    held = {name: p.clone() for name, p in teacher.items()}
    update_teacher(method.teacher, method.student, 0.75, torch.zeros(()))
    assert all(torch.equal(held[name], teacher[name]) for name in teacher)


def test_teacher_keeps_its_own_batch_statistics(method):
    method.train()
    method(batch(), Progress(0, 10, 5))
    buffers = dict(method.teacher.named_buffers())
    student = dict(method.student.named_buffers())
    name = next(name for name in buffers if name.endswith("running_mean"))
    assert buffers[name].abs().sum() > 0
    assert not torch.equal(buffers[name], student[name])


@pytest.mark.parametrize(("epoch", "frozen"), [(0, True), (1, False)])
def test_last_layers_are_frozen_in_epoch_0_alone(method, epoch, frozen):
    progress = Progress(5 * epoch, 10, 5)
    method(batch(), progress)["loss"].backward()
    method.before_step(progress)
    for name in method.student.head_names:
        head = method.student.get_submodule(name)
        assert (head.last_layer.weight_v.grad is None) == frozen
        assert head.mlp[0].weight.grad is not None


def test_teacher_temperature_warms_up():
    config = Dino(warmup_teacher_temp=0.02, teacher_temp=0.05, warmup_teacher_temp_epochs=4)
    assert [round(config.teacher_temp_at(e), 6) for e in (0, 1, 3, 9)] == [0.02, 0.03, 0.05, 0.05]


def test_no_local_crops(method):
    data = batch()._replace(local_crops=None)
    assert torch.isfinite(method(data, Progress(0, 10, 5))["loss"])

"""The recipes by name hold the released code's and the paper's settings (docs/evaluation.md has the table)."""

from dataclasses import replace

import pytest
import torch
from timm.layers import DropPath

from clever_fast.performance.flops import gflop_per_image
from clever_fast.recipes import CATALOGUE, NETWORKS, RECIPES


@pytest.mark.parametrize("method", ["dino", "clever"])
@pytest.mark.parametrize("network", NETWORKS)
def test_imagenet_100_has_the_script_s_epochs_and_the_paper_s(method, network):
    name = network.replace("clever", method).removesuffix("_in100")
    assert RECIPES[f"{name}_in100"].epochs == 200
    assert RECIPES[f"{name}_in1k"].epochs == 100
    assert RECIPES[f"{name}_in100_500"] == replace(RECIPES[f"{name}_in100"], epochs=500)


@pytest.mark.parametrize("name", ["simsiam_resnet50", "ddcl_resnet50", "ddcl_resnet18"])
def test_ddcl_s_table_is_caug_plus_for_500_epochs_after_the_warm_up(name):
    recipe = RECIPES[f"{name}_in100"]
    assert (recipe.policy.name, recipe.epochs, recipe.warmup_epochs) == ("moco_caug_plus", 530, 30)
    assert (recipe.batch_size, recipe.base_lr, recipe.weight_decay, recipe.clip_grad) == (256, 0.05, 1e-4, 0)
    assert RECIPES[f"{name}_in1k"].epochs == 130
    if name.startswith("ddcl"):
        assert recipe.method.preg_weight == 0
        assert RECIPES[f"{name}_in100_preg"].method.preg_weight == 0.001


def test_dino_and_clever_are_trained_with_the_released_optimizer_and_the_paper_s_is_a_recipe():
    for method in ("dino", "clever"):
        released, printed = (RECIPES[f"{method}_vits16_in100{end}"] for end in ("", "_paper_sgd"))
        assert (released.optimizer, released.base_lr, released.lr) == ("adamw", 5e-4, 1e-3)
        assert printed == replace(released, optimizer="sgd", base_lr=1e-3)


@pytest.mark.parametrize("network", ["vmambat", "vits16"])
def test_the_teacher_has_no_drop_path_and_the_student_the_released_rate(network):
    """Of VMamba's the released code leaves it on; docs/evaluation.md says so."""
    with torch.device("meta"):
        method = RECIPES[f"clever_{network}_in100"].build()
    rates = [
        max((m.drop_prob for m in net.modules() if isinstance(m, DropPath)), default=0.0)
        for net in (method.student.backbone, method.teacher.backbone)
    ]
    assert rates == [pytest.approx({"vmambat": 0.2, "vits16": 0.1}[network]), 0.0]


COUNTED = ("clever_demo", "clever_vits16_in100", "dino_resnet18_cifar10", "ddcl_resnet50_in100_preg")


@pytest.mark.parametrize("name", [n if n in COUNTED else pytest.param(n, marks=pytest.mark.full) for n in CATALOGUE])
def test_the_table_s_costs_are_those_that_are_counted(name):
    assert CATALOGUE[name].gflop == pytest.approx(gflop_per_image(RECIPES[name]), abs=0.006)

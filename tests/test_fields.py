"""Every number that a user can set has bounds, and no value outside of them or of another type is taken."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest

from clever_fast import options
from clever_fast.commands.slurm_job import Job
from clever_fast.errors import UserError
from clever_fast.evaluate import finetune, heads
from clever_fast.evaluate.finetune import Finetuning
from clever_fast.evaluate.heads import Fitting
from clever_fast.evaluate.segmentation.propagation import Propagation
from clever_fast.fields import COUNT, NOT_NEGATIVE, SHARE, WITHIN, Bounds, _hints
from clever_fast.methods import Clever, Ddcl, Dino, SimSiam
from clever_fast.models import BACKBONES
from clever_fast.options import Execution, Run, with_policy_numbers
from clever_fast.pipelines.policies import CAUG, MOCO_CAUG
from clever_fast.recipes import RECIPES
from tests.recipes import siamese, small

CONFIGS = {
    "recipe": (small(), options.RECIPE_BOUNDS),
    "execution": (Execution(), options.EXECUTION_BOUNDS),
    "run": (Run(folder="r"), options.RUN_BOUNDS),
    "dino": (Dino(), Dino.bounds),
    "clever": (Clever(), Clever.bounds),
    "simsiam": (SimSiam(), SimSiam.bounds),
    "ddcl": (Ddcl(), Ddcl.bounds),
    "fitting": (Fitting(), heads.FITTING_BOUNDS),
    "finetuning": (Finetuning(), finetune.FINETUNING_BOUNDS),
    "propagation": (Propagation(), {"previous": NOT_NEGATIVE, "radius": NOT_NEGATIVE, "neighbours": COUNT}),
    "job": (Job(), {"nodes": COUNT, "warning": COUNT, "gpus_per_node": NOT_NEGATIVE, "cpus_per_task": NOT_NEGATIVE}),
}
OF_NO_TYPE = {int: (True, 1.5, "3", [1]), float: (True, "3", [1.0]), bool: (1, "true", None)}


def is_number(kind) -> bool:
    return kind in (int, float) or getattr(kind, "__args__", (None,))[0] in (int, float)


def cases():
    for name, (config, bounds) in CONFIGS.items():
        for field in fields(config):
            kinds = _hints(type(config))[field.name]
            listed = any(getattr(kind, "__origin__", None) is tuple for kind in kinds)
            for kind in kinds:
                wrong = list(OF_NO_TYPE.get(kind, ()))
                if is_number(kind):
                    wrong += [math.nan, math.inf, -math.inf]
                    limits = bounds.get(field.name, Bounds())
                    wrong += [limits.low] if limits.open_low else [limits.low - 1]
                    wrong += [limits.high] if limits.open_high else [limits.high + 1]
                if getattr(kind, "__origin__", None) is not None and not listed:
                    wrong.append("no such choice")
                for value in wrong:
                    yield pytest.param(
                        config, field.name, (value,) if listed else value, id=f"{name}.{field.name}={value}"
                    )


@pytest.mark.parametrize(("config", "name", "value"), list(cases()))
def test_wrong_values_are_refused_by_name(config, name, value):
    with pytest.raises(UserError, match=name):
        replace(config, **{name: value})


@pytest.mark.parametrize("name", CONFIGS)
def test_every_number_has_bounds(name):
    config, bounds = CONFIGS[name]
    numbers = {field.name for field in fields(config) if any(map(is_number, _hints(type(config))[field.name]))}
    assert numbers - {"temperature"} == set(bounds)


def test_numpys_numbers_are_numbers():
    assert small(epochs=np.int64(4), base_lr=np.float32(0.5)).epochs == 4


@pytest.mark.parametrize(
    ("bounds", "text"),
    [(COUNT, "at least 1"), (SHARE, "at least 0 and at most 1"), (WITHIN, "above 0 and below 1"), (Bounds(), "")],
)
def test_bounds_say_what_they_are(bounds, text):
    assert str(bounds) == text


@pytest.mark.parametrize(("name", "size", "near"), [("global_size", 200, "192"), ("local_size", 100, "96")])
def test_crops_are_multiples_of_a_vits_patch(name, size, near):
    recipe = RECIPES["clever_vits16_in100"]
    with pytest.raises(UserError, match=f"recipe.{name} is {size}.*patch of 16 px, such as {near}"):
        replace(recipe, **{name: size})
    replace(recipe, local_crops=0, local_size=100)
    replace(RECIPES["clever_resnet50_in100"], **{name: size})


def test_a_backbones_patch_is_that_of_its_network():
    for backbone in BACKBONES.values():
        if backbone.name.startswith("vit_"):
            assert backbone.build(0.0).patch_embed.patch_size == (backbone.patch,) * 2


def test_a_process_needs_as_many_images_as_batch_norm(tmp_path):
    from clever_fast.train import train

    for batch_size, world in ((1, "1"), (2, "2")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WORLD_SIZE", world)
            with pytest.raises(UserError, match=rf"leaves 1 image\(s\) .* ddcl needs 2: give {2 * int(world)} or more"):
                train(siamese(batch_size=batch_size), Execution(device="cpu"), Run(folder=tmp_path, data=tmp_path))


def test_a_policy_keeps_its_own_numbers_unless_the_recipe_sets_them():
    recipe = RECIPES["clever_resnet50_in100"]
    assert [view.scale for view in recipe.views.views[:2]] == [(0.4, 1.0)] * 2
    moco = replace(recipe, policy=MOCO_CAUG, local_crops=0)
    assert [view.scale for view in moco.views.views] == [(0.2, 1.0)] * 2
    assert replace(moco, global_scale=0.3).views.views[0].scale == (0.3, 1.0)
    assert moco.views.largest_blur == MOCO_CAUG.largest_blur == 2.0
    assert replace(moco, max_blur=0.5).views.largest_blur == 0.5


def test_a_run_that_wrote_the_numbers_out_is_the_same_run():
    recipe = RECIPES["clever_resnet50_in100"]
    before = recipe.as_dict() | {"global_scale": 0.4, "max_blur": 2.0}
    assert with_policy_numbers(recipe.as_dict()) == with_policy_numbers(before) == before
    written_out = recipe.as_dict() | {"policy": CAUG.as_dict()}
    assert with_policy_numbers(written_out)["global_scale"] == 0.4

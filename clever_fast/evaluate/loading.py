"""A trained method out of a run's folder."""

from pathlib import Path

from clever_fast import checkpoint
from clever_fast.errors import UserError
from clever_fast.methods import Method
from clever_fast.recipe import Recipe


def load_run(run: Path) -> tuple[Method, Recipe, int]:
    """The method of a run with all its weights, on the CPU, its recipe, and the step it was saved at.

    Raises:
        UserError: no checkpoint there, or one that does not fit its own recipe.
    """
    path = run / checkpoint.NEWEST
    if not path.exists():
        raise UserError(f"{run} holds no {checkpoint.NEWEST}; give the folder that pretrain's --run named")
    state = checkpoint.load(path)
    recipe = Recipe.from_dict(state["recipe"])
    method = recipe.method.build(recipe.backbone, recipe.drop_path)
    try:
        method.load_state_dict(checkpoint.method_state(state))
    except RuntimeError as error:
        raise UserError(f"{path} does not fit its recipe: {' '.join(str(error).split())}") from None
    return method, recipe, state["step"]

"""NVIDIA DALI, imported only when a graph is built, so that everything else here works without it."""

from clever_fast.errors import UserError

try:
    from nvidia.dali import Pipeline, fn, pipeline_def, types
except ModuleNotFoundError as error:
    raise UserError(
        "NVIDIA DALI is not installed; pip install 'clever_fast[cuda12]' (or [cuda13], never both: "
        "the docs say which drivers each needs)"
    ) from error

__all__ = ["Pipeline", "fn", "pipeline_def", "types"]

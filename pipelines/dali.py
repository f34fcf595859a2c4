"""NVIDIA DALI, imported only when a graph is built, so that everything else here works without it."""

from clever_fast.errors import UserError

try:
    from nvidia.dali import Pipeline, fn, math, pipeline_def, types
except ModuleNotFoundError as error:
    raise UserError(
        "NVIDIA DALI is not installed; pip install 'clever_fast[cuda12]' (or [cuda13], never both: "
        "the docs say which drivers each needs)"
    ) from error

__all__ = ["Pipeline", "fn", "math", "pipeline_def", "refuse_missing_npp", "types"]


def refuse_missing_npp(error: Exception) -> None:
    """Raise UserError if DALI failed because NVIDIA's NPP is not there, which remaps images on a GPU."""
    if "libnpp" in str(error):
        raise UserError(
            "elastic deformation on a GPU needs NVIDIA's NPP: pip install nvidia-npp-cu12 (nvidia-npp with DALI for "
            "CUDA 13), or put a CUDA toolkit's libraries on LD_LIBRARY_PATH"
        ) from error

"""DALI pipelines of multi-crop views whose every parameter is drawn outside, by a counter-based generator.

Imports NVIDIA DALI and numpy, never torch. Installed as `clever_fast.pipelines`.
"""

if __name__ != "clever_fast.pipelines":
    raise ImportError(f"import clever_fast.pipelines, not {__name__}: a second copy's classes would not compare equal")

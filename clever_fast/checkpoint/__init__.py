"""Checkpoints: what they hold (`state`), how they are written during training (`writer`) and read again (`resume`)."""

from clever_fast.checkpoint.state import (
    FORMAT,
    KEPT,
    NEWEST,
    TEMPORARY,
    by_child,
    content,
    differences,
    load,
    load_method,
    method_state,
    prepare_folder,
    read_pickle,
    refuse_other,
    save,
)

__all__ = [
    "FORMAT",
    "KEPT",
    "NEWEST",
    "TEMPORARY",
    "by_child",
    "content",
    "differences",
    "load",
    "load_method",
    "method_state",
    "prepare_folder",
    "read_pickle",
    "refuse_other",
    "save",
]

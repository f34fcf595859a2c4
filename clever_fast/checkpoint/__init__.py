"""Checkpoints: what they hold (`state`), how they are written during training (`writer`) and read again (`resume`)."""

from clever_fast.checkpoint.state import (
    FORMAT,
    KEPT,
    NEWEST,
    TEMPORARY,
    Trained,
    commit,
    differences,
    load,
    load_method,
    method_state,
    prepare_folder,
    refuse_other,
    restore,
    save,
    state_bytes,
    state_dict,
)

__all__ = [
    "FORMAT",
    "KEPT",
    "NEWEST",
    "TEMPORARY",
    "Trained",
    "commit",
    "differences",
    "load",
    "load_method",
    "method_state",
    "prepare_folder",
    "refuse_other",
    "restore",
    "save",
    "state_bytes",
    "state_dict",
]

"""TensorBoard, Weights & Biases and trackio: where a run's numbers go besides its JSON lines."""

import os
import secrets
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from clever_fast.errors import UserError
from clever_fast.options import Logger

PROJECT = "clever_fast"


class Open(NamedTuple):
    """A logger at work. `write` takes values by name and their step."""

    name: Logger
    write: Callable[[dict[str, float], int], None]
    close: Callable[[], None]


def open_loggers(names: tuple[Logger, ...] | None, folder: Path, start_step: int) -> list[Open]:
    """Open each; None for TensorBoard where it is installed.

    Weights & Biases and trackio go on with the run whose name the folder keeps; of steps that are done again the first
    keeps the earlier values, the second both. WANDB_MODE, TRACKIO_SPACE_ID and the like work as their makers say.

    Raises:
        UserError: one is not installed or does not start.
    """
    if names is None:
        try:
            return [_tensorboard(folder, start_step)]
        except ImportError:
            return []
        except UnicodeEncodeError:  # TensorBoard takes no other names of folders
            print(f"note: TensorBoard writes into no folder whose name is not UTF-8, such as {folder}: it is left out")
            return []
    return [_open(name, folder, start_step) for name in dict.fromkeys(names)]


def _open(name: Logger, folder: Path, start_step: int) -> Open:
    try:
        if name == "tensorboard":
            return _tensorboard(folder, start_step)
        return _tracker(import_module(name), name, folder)
    except ImportError as error:
        raise UserError(f"--loggers names {name}, which is not there ({error}): pip install {name}") from None
    except Exception as error:  # no account, no network
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name} does not start: {reason}; leave it out of --loggers to train without it") from error


def _tensorboard(folder: Path, start_step: int) -> Open:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder / "tensorboard", purge_step=start_step)

    def write(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return Open("tensorboard", write, writer.close)


def _tracker(module: ModuleType, name: Logger, folder: Path) -> Open:
    """wandb or trackio, which has wandb's interface."""
    kept = folder / f"{name}.id"
    if not kept.exists():
        kept.write_text(f"{folder.resolve().name}-{secrets.token_hex(4)}")
    key = kept.read_text()
    how: dict[str, Any] = {"id": key, "dir": str(folder)} if name == "wandb" else {}
    project = os.environ.get(f"{name.upper()}_PROJECT", PROJECT)
    module.init(project=project, name=key, resume="allow", **how)
    return Open(name, lambda values, step: module.log(values, step=step), module.finish)

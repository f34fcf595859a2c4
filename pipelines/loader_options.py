"""Options of every loader: speed alone, never the pixels."""

from __future__ import annotations

from dataclasses import dataclass

from clever_fast.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How a loader uses the machine.

    Args:
        threads: of the data pipeline; 0 for the cores of this machine divided by its processes.
        prefetch: batches that the data pipeline holds ready.
        hw_decoder_load: share of a batch that a GPU's JPEG hardware decodes, where it has some; the rest are decoded by
            its cores and the host.
        preallocate: have a GPU's decoder reserve memory for 99 % of the images when it is built.
        affinity: pin the data pipeline's threads to the cores that are nearest to the GPU.
    """

    threads: int = 0
    prefetch: int = 2
    hw_decoder_load: float = 0.65
    preallocate: bool = False
    affinity: bool = False

    def __post_init__(self) -> None:
        if self.prefetch < 1 or self.threads < 0:
            name = "prefetch" if self.prefetch < 1 else "threads"
            raise UserError(f"execution.{name} is {getattr(self, name)}; it must be at least {int(name == 'prefetch')}")
        if not 0 <= self.hw_decoder_load <= 1:
            raise UserError(f"execution.hw_decoder_load is {self.hw_decoder_load}; it must be between 0 and 1")


USUAL = LoaderOptions(threads=2)

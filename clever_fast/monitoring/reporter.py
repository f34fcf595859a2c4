"""What a run measures between two reports, and what it warns about."""

from clever_fast.methods import Progress
from clever_fast.monitoring.collapse import Collapse
from clever_fast.monitoring.metrics import Clock, Log, Meter, peak_memory_mib
from clever_fast.monitoring.slow_run import Pace
from clever_fast.train_state import TrainState


class Reporter:
    """A run's meter and clock, read and restarted by every report."""

    def __init__(self, log: Log, state: TrainState, steps_per_epoch: int):
        self.log, self.state = log, state
        self.meter, self.clock = Meter(), Clock(state.accelerator.device)
        self.pace, self.collapse = Pace(state.accelerator), Collapse(state.recipe, steps_per_epoch)

    def report(self, progress: Progress) -> None:
        """Write down the means since the last report. Waits for the device."""
        values, clock = self.meter.read(), self.clock  # the clock is read after the device was waited for
        values |= {
            "lr": self.state.optimizer.param_groups[0]["lr"],
            "images_per_second": self.state.recipe.batch_size * clock.steps / clock.seconds,
            "seconds_per_step": clock.seconds / clock.steps,
            "data_wait": clock.waited / clock.seconds,
            "memory_mib": peak_memory_mib(self.state.accelerator.device),
        }
        if self.state.scaler.is_enabled():
            values["loss_scale"] = self.state.scaler.get_scale()
        self.log.train(progress, values, clock.seconds)
        for warning in (self.pace.warning(clock), self.collapse.warning(progress, values)):
            if warning:
                self.log.warn(progress, warning)
        clock.restart()

"""`clever-fast pretrain`: train a recipe, or go on where it stopped."""

import atexit
import gc
import signal
import socket
import sys

from clever_fast import distributed
from clever_fast.command_line import parse_pretrain
from clever_fast.nonfinite.stop import NotFiniteError
from clever_fast.signals import stopped_by
from clever_fast.train import train


def pretrain(words: list[str]) -> int:
    """Returns the exit code: 0 also for a run that a scheduler told to stop (SIGUSR1, SIGUSR2), 130, 143 or 129 for one
    that SIGINT, SIGTERM or SIGHUP did, 1 for a loss not finite, a disk that failed or another process that is gone."""
    atexit.register(gc.freeze)  # or Python walks over all of torch's objects again, in a second that schedulers count
    try:
        train(*parse_pretrain(words))
        # of several processes, the one that leaves first with another code than 0 has the launcher kill the others
        if distributed.world_size() == 1 and (number := stopped_by()) not in (None, signal.SIGUSR1, signal.SIGUSR2):
            return 128 + number
    except (NotFiniteError, OSError) as error:
        if distributed.is_main():
            print(f"clever-fast: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if not distributed.lost_peer(error):
            raise
        print(
            f"clever-fast: another process of this run is gone, as rank {distributed.rank()} on {socket.gethostname()} "
            f"sees it ({str(error).splitlines()[0]}); the launcher's last lines name the first that failed. "
            "The same command goes on from the newest checkpoint",
            file=sys.stderr,
        )
        return 1
    finally:
        distributed.stop()
    return 0

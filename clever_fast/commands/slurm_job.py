"""Job files for SLURM."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from clever_fast.fields import COUNT, NOT_NEGATIVE, validate

RESTARTS = 5  # times that a job whose process was killed goes back to the queue


@dataclass(frozen=True)
class Job:
    """What is asked of SLURM.

    Args:
        nodes: machines.
        gpus_per_node: GPUs and processes of a machine; 0 for one process on its CPU.
        cpus_per_task: cores of a process; 0 for the partition's default.
        time: limit as SLURM writes it, such as 24:00:00 or 2-00:00:00; the partition's default where empty.
        partition: queue; the default one where empty.
        account: who pays; the default one where empty.
        warning: seconds before the limit at which the run is told to save.
        setup: a line of shell to run first, such as `module load cuda` or `source .venv/bin/activate`.
    """

    nodes: int = 1
    gpus_per_node: int = 8
    cpus_per_task: int = 0
    time: str = ""
    partition: str = ""
    account: str = ""
    warning: int = 120
    setup: str = ""

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("nodes", "warning"), COUNT)
        validate(self, "--", {**counts, **dict.fromkeys(("gpus_per_node", "cpus_per_task"), NOT_NEGATIVE)})

    @property
    def processes(self) -> int:
        return self.nodes * max(1, self.gpus_per_node)


def slurm_script(job: Job, program: list[str], words: list[str], run: Path) -> str:
    """An sbatch file that runs `program` with `words` on all nodes and goes back to the queue until it is done.

    Args:
        program: how to start clever-fast.
        words: the command and its options.
        run: folder of the run, which names the job and takes its output.
    """
    tasks = max(1, job.gpus_per_node)
    options = {
        "job-name": run.name,
        "nodes": job.nodes,
        "ntasks-per-node": tasks,
        "gpus-per-node": job.gpus_per_node,
        "cpus-per-task": job.cpus_per_task,
        "time": job.time,
        "partition": job.partition,
        "account": job.account,
        "output": run / "slurm-%j.out",
        "open-mode": "append",
        "signal": f"B:USR1@{job.warning}",
    }
    lines = [f"#SBATCH --{name}={_word(value)}" for name, value in options.items() if value]
    command = " \\\n    ".join([shlex.join([*program, words[0]]), *_pairs(words[1:])])
    setup = f"{job.setup}\n" if job.setup else ""
    cores = "--cpus-per-task=$SLURM_CPUS_PER_TASK " if job.cpus_per_task else ""
    return f"""#!/bin/bash
{chr(10).join(lines)}
#SBATCH --requeue

# Every start of this job goes on from the newest checkpoint in {run}.
# - {job.warning} s before the time limit SLURM sends USR1 to this script: it saves, leaves, and is queued again.
#   `scancel --batch --signal=USR1 JOBID` does the same at any time.
# - A node that fails or a preemption puts the job back by itself (--requeue).
# - A process that was killed (exit code above 128) puts it back as well, at most {RESTARTS} times.
# - A run that ended by itself, or with an error that a restart would repeat, ends the job with its exit code.

{setup}step= requeue= cancelled=
trap 'requeue=yes; kill -USR1 $step' USR1   # srun hands the signal to every process
trap 'cancelled=yes; kill -TERM $step' TERM

srun {cores}--kill-on-bad-exit=1 {command} &
step=$!

wait "$step"; code=$?
while kill -0 "$step" 2>/dev/null; do       # a trap ended the wait, not the run
    wait "$step"; code=$?
done

if [ "$code" -gt 128 ] && [ -z "$cancelled" ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {RESTARTS} ]; then
    requeue=yes
fi
if [ -n "$requeue" ]; then
    echo "exit code $code at $(date): queued again"
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def _word(value: object) -> str:
    """SLURM reads its lines as a shell does."""
    return shlex.quote(str(value))


def _pairs(words: list[str]) -> list[str]:
    """One line for each option and what belongs to it."""
    lines: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not lines:
            lines.append([word])
        else:
            lines[-1].append(word)
    return [shlex.join(line) for line in lines]

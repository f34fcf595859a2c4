"""Two hosts as torchrun sees them: two agents with addresses of their own, in network namespaces where allowed."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path(__file__).with_name("mortal_rank.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def namespaces() -> Iterator[list[str]]:
    """The names of two network namespaces joined by a cable, with 10.77.0.1 and 10.77.0.2.

    Raises:
        OSError or subprocess.CalledProcessError: not allowed here, or no `ip`.
    """
    names = [f"cf{os.getpid()}{side}" for side in "ab"]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for i, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.77.0.{i}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


class Hosts:
    """Two torchrun agents of one process each; host 0 holds the rendezvous."""

    def __init__(self, logs: Path, arguments: list[str], *, elastic: int | None = None, names: list[str] | None = None):
        """`elastic`: restarts allowed, by the c10d rendezvous; None for a static one without restarts."""
        addresses = ["10.77.0.1", "10.77.0.2"] if names else ["127.0.0.1", "127.0.0.2"]
        port = str(free_port())
        self.logs = [logs / f"host{i}.log" for i in range(2)]
        self.agents = []
        for i, address in enumerate(addresses):
            words = ["--nnodes=2", "--nproc-per-node=1", f"--local-addr={address}"]
            if elastic is None:
                words += [f"--node-rank={i}", f"--master-addr={addresses[0]}", f"--master-port={port}"]
            else:
                endpoint = f"--rdzv-endpoint={addresses[0]}:{port}"
                conf = f"--rdzv-conf=is_host={int(i == 0)},last_call_timeout=1"
                words += ["--rdzv-backend=c10d", "--rdzv-id=test", endpoint, conf, f"--max-restarts={elastic}"]
            enter = ["ip", "netns", "exec", names[i]] if names else []
            command = [*enter, sys.executable, "-m", "torch.distributed.run", *words, str(PROGRAM), *arguments]
            env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable" if names else "lo"}
            env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # docs/training.md says why
            with self.logs[i].open("w") as log:
                self.agents.append(subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True))

    def wait(self, seconds: float) -> list[int]:
        """The agents' exit codes; TimeoutExpired if one is there after so many seconds."""
        end = time.monotonic() + seconds
        return [agent.wait(max(0.1, end - time.monotonic())) for agent in self.agents]

    def text(self) -> str:
        return "\n".join(log.read_text() for log in self.logs)

    def close(self) -> None:
        """End what still runs: the agents and their workers, by their own process groups."""
        for agent in self.agents:
            if agent.poll() is None:
                os.killpg(agent.pid, 9)
                agent.wait()

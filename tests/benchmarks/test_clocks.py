"""What the clocks make of their laps, the machine's ceilings and energy."""

import sys
import weakref
from types import SimpleNamespace

import pytest
import torch

from clever_fast.benchmarks import ceilings, clocks, session
from clever_fast.performance import energy
from clever_fast.performance.timing import Lap
from clever_fast.recipes import RECIPES


def test_laps_are_summed_up():
    laps = [Lap(100, 10.0, 1.0, 20.0, 500.0), Lap(100, 5.0, 0.5, 10.0, 300.0), Lap(100, 20.0, 2.0, 30.0, 600.0)]
    found = clocks.rates(laps)
    assert found["images_per_second"] == {"median": 10.0, "low": 5.0, "high": 20.0, "rounds": 3}
    assert found["data_wait"] == pytest.approx(3.5 / 35)
    assert found["cpu_ms_per_image"] == pytest.approx(200.0)
    assert found["joules_per_image"] == {"median": 5.0, "low": 3.0, "high": 6.0, "rounds": 3}
    assert "joules_per_image" not in clocks.rates([Lap(100, 10.0)])


def test_a_cpu_gets_small_crops_and_a_gpu_the_recipes():
    small, whole = (clocks.sized("clever_vits16_in100", device, 4) for device in ("cpu", "cuda"))
    assert (small.global_size, small.local_crops, small.method.prototypes, small.batch_size) == (64, 2, 4096, 4)
    assert (whole.global_size, whole.local_crops, whole.method.prototypes, whole.batch_size) == (224, 8, 65536, 4)
    assert clocks.sized("clever_vits16_in100", "cpu", 4, whole=True) == whole
    assert clocks.sized("clever_demo", "cpu", 64) == RECIPES["clever_demo"]


def test_ceilings_are_operations_and_bytes_over_time(monkeypatch):
    monkeypatch.setattr(ceilings, "SIDE", {"cpu": 100})
    monkeypatch.setattr(ceilings, "CPU_COPY", 1000)
    monkeypatch.setattr(ceilings, "cpu_ms", lambda function: function() is not None and 2.0)
    found = ceilings.ceilings.__wrapped__("cpu", torch.float32)
    assert found == {"product_tflops": pytest.approx(2e6 / 2e-3 / 1e12), "copy_gb_s": pytest.approx(2000 / 2e-3 / 1e9)}


class NVMLError(Exception):
    pass


def fake_nvml(monkeypatch, joules):
    def read(handle):
        if joules is None:
            raise NVMLError("not supported")
        assert handle == "GPU-1234"
        return joules * 1000

    module = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=read,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))


def test_energy_is_read_where_nvml_tells_it(monkeypatch):
    gpu = torch.device("cuda", 0)
    fake_nvml(monkeypatch, 7.5)
    assert energy.energy_meter(gpu)() == 7.5
    assert energy.energy_meter(torch.device("cpu")) is None
    fake_nvml(monkeypatch, None)
    assert energy.energy_meter(gpu) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.energy_meter(gpu) is None


def test_recipes_leave_neither_memory_nor_compiled_code_to_the_next(tmp_path, monkeypatch):
    """Dynamo keeps eight forms of a function, and four recipes of one architecture compile twelve; a run out of memory
    holds its tensors by cycles."""
    alive, left = [], []

    class Network(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x)

    def measure(name, *_, **__):
        left.append([ref() for ref in alive if ref() is not None])
        network = Network(8, 8)
        network.itself = [network]
        alive.append(weakref.ref(network))
        network.compile(fullgraph=True, dynamic=False, backend="eager")
        for rows in (2, 3, 4):
            network(torch.ones(rows, 8))
        if name == "clever_vits16_in100":
            raise torch.OutOfMemoryError
        yield {"benchmark": "step", "recipe": name}

    monkeypatch.setattr(session.clocks, "measure", measure)
    monkeypatch.setattr(session, "line", str)
    names = ["clever_vitt16_in100", "clever_vits16_in100", "clever_vitb16_in100", "dino_vits16_in100"]
    rows = session.time_recipes(names, ["fast"], ("step",), tmp_path)
    assert [row["recipe"] for row in rows] == [names[0], *names[2:]]
    assert left == [[]] * 4

"""Every choice of an execution leaves a step's weights where they were, up to rounding, and does what it says."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from clever_fast.accelerator import Accelerator
from clever_fast.benchmarks.checks import memory
from clever_fast.errors import UserError
from clever_fast.methods import Batch, Progress
from clever_fast.models import BACKBONES
from clever_fast.ops import extension
from clever_fast.options import EXECUTIONS, Execution
from clever_fast.train_state import TrainState
from tests.recipes import VIT

CPU = Execution(device="cpu", precision="fp32")
PLAIN = replace(EXECUTIONS["plain"], device="cpu", precision="fp32")
MINI, RESNET = BACKBONES["vmamba_mini"], BACKBONES["resnet10_small"]
BACKBONES_HERE = [VIT, MINI, RESNET]


def steps(recipe, execution: Execution, *, first: int = 2, count: int = 3):
    """The method after `count` steps on batches of noise, and the losses of each."""
    accelerator = Accelerator.from_execution(execution)
    trained = TrainState(recipe, accelerator)
    losses = []
    for number in range(first, first + count):
        noise = torch.Generator().manual_seed(number)
        batch = Batch(
            torch.randn(8, 3, 32, 32, generator=noise), torch.randn(8, 3, 16, 16, generator=noise), torch.zeros(4)
        )
        values = trained.step(batch, Progress(number, 20, 2))
        losses.append(values["loss"].item())
    return trained, losses


def assert_same_training(recipe, one: Execution, other: Execution, **options) -> None:
    (a, a_losses), (b, b_losses) = (steps(recipe, execution, **options) for execution in (one, other))
    torch.testing.assert_close(torch.tensor(a_losses), torch.tensor(b_losses), rtol=1e-4, atol=1e-5)
    weights = dict(b.method.named_parameters())
    for name, p in a.method.named_parameters():
        torch.testing.assert_close(p, weights[name], rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.fixture
def trainable(small):
    """SGD, with which rounding stays rounding; drop path is on."""

    def recipe(backbone):
        return small(backbone=backbone, optimizer="sgd", base_lr=0.05, warmup_epochs=0, drop_path=0.3)

    return recipe


@pytest.mark.parametrize("backbone", BACKBONES_HERE, ids=str)
def test_a_network_is_traced_whole_on_a_gpu(backbone, monkeypatch):
    """Its branches for CUDA tensors too, on tensors that have a device and no content."""
    if not extension.has_kernels("cuda"):  # a build without nvcc
        monkeypatch.setattr(extension, "has_kernels", lambda device_type: True)
    monkeypatch.setattr(memory, "_attention", F.scaled_dot_product_attention)
    with torch.device("meta"):
        network = backbone.build(0.1).train()
    with memory.on_a_fake_gpu():
        network = network.to_empty(device="cuda")
        network.compile(fullgraph=True, dynamic=False, backend="eager")
        for size in (32, 16):
            features = network(torch.empty(2, 3, size, size, device="cuda", dtype=torch.float16))
            assert features.shape == (2, network.embed_dim)
            assert features.is_cuda
    torch.compiler.reset()


@pytest.mark.parametrize("backbone", BACKBONES_HERE, ids=str)
@pytest.mark.parametrize("execution", [replace(CPU, checkpointing=True), PLAIN], ids=["checkpointing", "plain"])
def test_no_choice_changes_what_is_learned(trainable, backbone, execution):
    assert_same_training(trainable(backbone), CPU, execution)


@pytest.fixture
def graphs():
    """How many graphs torch.compile has captured since the test began."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


@pytest.fixture
def captured(monkeypatch):
    """torch.compile without code generation, which takes minutes: graphs, guards and the functional form remain."""
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, *, options, **rest: original(f, backend="aot_eager", **rest))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("backbone", [VIT, pytest.param(MINI, marks=pytest.mark.full)], ids=str)
def test_capture_changes_no_weight_and_no_drop_path_and_happens_once(
    trainable, captured, graphs, backbone, checkpointing
):
    compiled = replace(CPU, compile="on", checkpointing=checkpointing)
    assert_same_training(trainable(backbone), CPU, compiled, count=4)
    assert graphs() == 3  # the student at two sizes, the teacher at one


def test_batchnorm_is_either_compiled_or_checkpointed(trainable):
    with pytest.raises(UserError, match=r"checkpointing.*BatchNorm.*--execution.compile off"):
        TrainState(trainable(RESNET), Accelerator.from_execution(replace(CPU, compile="on", checkpointing=True)))


@pytest.mark.full
@pytest.mark.parametrize("backbone", BACKBONES_HERE, ids=str)
def test_compilation_changes_no_weight_and_no_drop_path_and_happens_once(trainable, graphs, backbone):
    assert_same_training(trainable(backbone), CPU, replace(CPU, compile="on"), count=4)
    assert graphs() == 3


def test_an_evaluation_compiles_nothing(trainable, images):
    from clever_fast.evaluate.features import features
    from clever_fast.pipelines.manifest import open_manifest

    accelerator = Accelerator.from_execution(replace(CPU, compile="on"))
    method = TrainState(trainable(VIT), accelerator).method
    torch._dynamo.utils.counters.clear()
    features(method.encoder, open_manifest(images), 32, accelerator, batch_size=5)
    assert not torch._dynamo.utils.counters["stats"]


@pytest.mark.parametrize("backbone", BACKBONES_HERE, ids=str)
def test_checkpointing_keeps_fewer_activations(trainable, backbone):
    def kept(execution: Execution) -> int:
        student, _ = TrainState(trainable(backbone), Accelerator.from_execution(execution)).method.networks()
        own = {p.untyped_storage().data_ptr() for p in student.parameters()}
        bytes_kept = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                bytes_kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            student(torch.randn(4, 3, 32, 32)).sum().backward()
        return sum(bytes_kept.values())

    assert kept(replace(CPU, checkpointing=True)) < 0.5 * kept(CPU)


def test_only_the_released_way_spells_attention_out(trainable):
    def explicit(execution: Execution) -> int:
        accelerator = Accelerator.from_execution(execution)
        student, _ = TrainState(trainable(VIT), accelerator).method.networks()
        with torch.profiler.profile() as profile:
            student(torch.randn(2, 3, 32, 32))
        return sum(event.count for event in profile.key_averages() if event.key == "aten::softmax")

    assert explicit(CPU) == 0
    assert explicit(PLAIN) == 2  # blocks


class GroupStepAdam(torch.optim.Optimizer):
    """Apex's FusedAdam as its source reads: AdamW that counts steps by group, also while a group has no gradient."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for p in group["params"]:
                if p.grad is None:
                    continue
                m, v = (self.state[p].setdefault(key, torch.zeros_like(p)) for key in ("exp_avg", "exp_avg_sq"))
                m.lerp_(p.grad, 0.1)
                v.lerp_(p.grad.square(), 0.001)
                step, lr = group["step"], group["lr"]
                p.mul_(1 - lr * group["weight_decay"])
                p.sub_(lr * m / (1 - 0.9**step) / ((v / (1 - 0.999**step)).sqrt() + group["eps"]))


def test_apex_counts_steps_by_group_and_trains_alike(small, monkeypatch):
    """The last layers start in epoch 1, two steps later than the rest."""
    monkeypatch.setitem(sys.modules, "apex", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "apex.optimizers", SimpleNamespace(FusedAdam=GroupStepAdam))
    recipe = small(backbone=VIT, base_lr=1e-2, warmup_epochs=0, drop_path=0.0)
    assert_same_training(recipe, CPU, replace(CPU, optimizer="apex"), first=0, count=4)


def test_another_project_called_apex_is_told_apart(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "apex", SimpleNamespace())
    monkeypatch.delitem(sys.modules, "apex.optimizers", raising=False)
    with pytest.raises(UserError, match="PyPI's apex is another project"):
        TrainState(small(), Accelerator.from_execution(replace(CPU, optimizer="apex")))

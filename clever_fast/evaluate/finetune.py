"""Training a whole network with a linear classifier on top: fine-tuning, and semi-supervised learning."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clever_fast import distributed, schedules
from clever_fast.accelerator import Accelerator
from clever_fast.data import LabelledBatches
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.errors import UserError
from clever_fast.evaluate import labelled, metrics
from clever_fast.evaluate.features import features
from clever_fast.evaluate.heads import MOMENTUM, STD
from clever_fast.evaluate.results import Row
from clever_fast.ops import selection
from clever_fast.pipelines.manifest import Manifest
from clever_fast.progress import images_bar


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """How a whole network is trained; SGD with momentum 0.9, the learning rate on half a cosine, epoch by epoch.

    Args:
        epochs: passes over the labelled images.
        batch_size: images of one step over all processes together.
        lr: learning rate for a batch of 256; the rate used is lr * batch_size / 256.
        weight_decay: of all parameters.
        seed: of the classifier's weights, the crops and the order.
        tests: how often the test images are classified, spread evenly over the epochs, the last time at the end.
    """

    epochs: int = 200
    batch_size: int = 256
    lr: float = 0.001
    weight_decay: float = 1e-4
    seed: int = 0
    tests: int = 5

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr", "tests"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must be above 0")


class Classifier(nn.Module):
    """A network and a linear classifier of one part of its features."""

    def __init__(self, network: nn.Module, part: slice, classes: int):
        super().__init__()
        self.network, self.part = network, part
        self.head = nn.Linear(len(range(*part.indices(network.embed_dim))), classes)
        nn.init.normal_(self.head.weight, std=STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.network(images)[:, self.part])


def finetune(
    encoder: TrainedEncoder,
    bank: Manifest,
    query: Manifest,
    accelerator: Accelerator,
    settings: Finetuning,
    *,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Accuracy and mean accuracy of the classes on `query`, after some epochs of training all weights on `bank`.

    Each of the encoder's parts is trained on its own, from the encoder's weights, which stay as they are. Random crops
    and flips; one central crop in the test.
    """
    labelled.check(bank, query)
    return [row for part in encoder.parts for row in _train(encoder, part, bank, query, accelerator, settings, say)]


def _train(
    encoder: TrainedEncoder,
    part: str,
    bank: Manifest,
    query: Manifest,
    accelerator: Accelerator,
    settings: Finetuning,
    say: Callable[[str], None],
) -> list[Row]:
    torch.manual_seed(settings.seed)
    network = copy.deepcopy(encoder.network).requires_grad_(True)
    classifier = accelerator.place(Classifier(network, encoder.parts[part], len(bank.classes))).train()
    images = LabelledBatches(bank, encoder.size, settings.batch_size, settings.seed, accelerator)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.0, momentum=MOMENTUM, weight_decay=settings.weight_decay)
    scaler, model, stream = accelerator.scaler(), accelerator.parallel(classifier), iter(images)
    tested = {settings.epochs * (i + 1) // settings.tests for i in range(settings.tests)} - {0}
    rows = []
    try:
        for epoch in range(settings.epochs):
            lr = settings.lr * settings.batch_size / 256
            optimizer.param_groups[0]["lr"] = schedules.cosine(epoch, steps=settings.epochs, start=lr, end=0.0)
            total = images.steps_per_epoch * settings.batch_size
            with images_bar(f"epoch {epoch + 1} of {settings.epochs}", total, shown=distributed.is_main()) as advance:
                for _ in range(images.steps_per_epoch):
                    _step(model, optimizer, scaler, next(stream), accelerator)
                    advance(settings.batch_size)
            if epoch + 1 in tested:
                logits, labels = features(classifier, query, encoder.size, accelerator)
                predicted = logits.argmax(1)
                row = {
                    "part": part,
                    "epoch": epoch + 1,
                    "accuracy": metrics.accuracy(predicted, labels).item(),
                    "class_accuracy": metrics.class_accuracy(predicted, labels).item(),
                }
                rows.append(row)
                of_classes = f"mean of the classes {row['class_accuracy']:.2f} %"
                say(f"{part}, epoch {epoch + 1}: {row['accuracy']:.2f} %, {of_classes}")
    finally:
        images.close()
    return rows


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batch: tuple[Tensor, Tensor],
    accelerator: Accelerator,
) -> None:
    images, labels = batch
    with selection.use(accelerator.execution.kernels):
        with accelerator.autocast():
            loss = F.cross_entropy(model(images).float(), labels)
        scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)

"""Training a whole network with a linear classifier on top: fine-tuning, and semi-supervised learning."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clever_fast import distributed, schedules
from clever_fast.accelerator import Accelerator
from clever_fast.data import LabelledBatch, LabelledBatches
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.evaluate import labelled, metrics
from clever_fast.evaluate.features import features, for_linear
from clever_fast.evaluate.heads import MOMENTUM, STD
from clever_fast.evaluate.protocol import PROTOCOLS, Protocol, Report
from clever_fast.evaluate.results import Row
from clever_fast.fields import ABOVE_ZERO, COUNT, NOT_NEGATIVE, SEED, validate
from clever_fast.ops import selection
from clever_fast.pipelines.manifest import Manifest
from clever_fast.progress import images_bar

FINETUNING_BOUNDS = {
    **dict.fromkeys(("epochs", "batch_size", "tests"), COUNT),
    **dict.fromkeys(("lr", "backbone_lr"), ABOVE_ZERO),
    "weight_decay": NOT_NEGATIVE,
    "seed": SEED,
}


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """How a whole network is trained; SGD with momentum 0.9, the learning rate on half a cosine, epoch by epoch.

    What is None is the protocol's; `under` puts it in.

    Args:
        epochs: passes over the labelled images.
        batch_size: images of one step over all processes together; 256, or 32 by SimSiam's protocol, by default.
        lr: learning rate of the classifier for a batch of 256; the rate used is lr * batch_size / 256. By default
            0.001; by SimSiam's protocol 30, or 3 with few labels.
        backbone_lr: of the network below it; by default that of the classifier, or by SimSiam's protocol 0.03.
        weight_decay: of all parameters.
        seed: of the classifier's weights, the crops and the order.
        report: the accuracy of the best of the epochs that are tested, which is chosen on the test images, as the
            released code does, or of the last.
        tests: how often the test images are classified, spread evenly over the epochs, the last time at the end; by
            default after every epoch, or with the report of the last one 5 times.
        interpolation: of the training crops, antialiased.
    """

    epochs: int = 200
    batch_size: int | None = None
    lr: float | None = None
    backbone_lr: float | None = None
    weight_decay: float = 1e-4
    seed: int = 0
    report: Report = "best_epoch"
    tests: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        validate(self, "", FINETUNING_BOUNDS)

    def under(self, protocol: Protocol, *, few: bool) -> "Finetuning":
        """These settings with the protocol's where there is None.

        few: of semi-supervised learning, not of fine-tuning.
        """
        lr = self.lr or (protocol.few_lr if few else protocol.finetune_lr)
        return replace(
            self,
            batch_size=self.batch_size or protocol.batch_size,
            lr=lr,
            backbone_lr=self.backbone_lr or protocol.backbone_lr or lr,
            tests=self.tests or (self.epochs if self.report == "best_epoch" else 5),
        )


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
    few: bool = False,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Accuracy and mean accuracy of the classes on `query`, after some epochs of training all weights on `bank`.

    Each of the encoder's parts is trained on its own, from the encoder's weights, which stay as they are. A ViT's
    classifier sees the class tokens of its last four blocks, as `features.for_linear` has them. Random crops and flips;
    one central crop in the test. The settings that are None are those of the encoder's protocol.

    few: semi-supervised learning, which SimSiam's protocol does at another learning rate. The row of each part that is
    reported is "shown".
    """
    labelled.check(bank, query)
    settings, rows = settings.under(PROTOCOLS[encoder.protocol], few=few), []
    for part in encoder.parts:
        found = _train(for_linear(encoder), part, bank, query, accelerator, settings, say)
        best = settings.report == "best_epoch"
        reported = max(found, key=lambda row: row["accuracy"]) if best else found[-1]
        rows += [row | {"shown": row is reported} for row in found]
    return rows


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
    images = LabelledBatches(
        bank, encoder.size, settings.batch_size, settings.seed, accelerator, interpolation=settings.interpolation
    )
    groups = [{"params": list(net.parameters())} for net in (classifier.head, classifier.network)]
    lrs = [lr * settings.batch_size / 256 for lr in (settings.lr, settings.backbone_lr)]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, weight_decay=settings.weight_decay)
    original = PROTOCOLS[encoder.protocol].original
    scaler, model, stream = accelerator.scaler(), accelerator.parallel(classifier), iter(images)
    tested = {settings.epochs * (i + 1) // settings.tests for i in range(settings.tests)} - {0}
    rows = []
    try:
        for epoch in range(settings.epochs):
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = schedules.cosine(epoch, steps=settings.epochs, start=lr, end=0.0)
            total = images.steps_per_epoch * settings.batch_size
            with images_bar(f"epoch {epoch + 1} of {settings.epochs}", total, shown=distributed.is_main()) as advance:
                for _ in range(images.steps_per_epoch):
                    _step(model, optimizer, scaler, next(stream), accelerator)
                    advance(settings.batch_size)
            if epoch + 1 in tested:
                logits, labels = features(classifier, query, encoder.size, accelerator, perturbation=original)
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
    batch: LabelledBatch,
    accelerator: Accelerator,
) -> None:
    images, labels, total = batch
    with selection.use(accelerator.execution.kernels):
        with accelerator.autocast():
            logits = model(images).float()[: len(labels)]
            loss = F.cross_entropy(logits, labels, reduction="sum") * distributed.world_size() / total
        scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)

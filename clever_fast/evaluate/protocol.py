"""How the methods' released code evaluates: DINO's protocol, which CLeVER follows, and SimSiam's, which DDCL does."""

from dataclasses import dataclass
from typing import Literal

from clever_fast.pipelines.perturbations import BILINEAR, ORIG, Perturbation

Report = Literal["best_epoch", "last"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The settings that differ between the two. Learning rates are for a batch of 256.

    Args:
        name: of the protocol, in the table and in results.
        original: the test images that are not perturbed.
        linear_lr: of a linear classifier of frozen features.
        linear_epochs: over which it is trained.
        rates: learning rates tried where nothing is published, by `robustness` and `rotation`.
        perturbed_by_best: with `best_epoch`, whether perturbed images too are classified by the best epoch's
            classifier, or by the last one's.
        few_lr: of the classifier in semi-supervised learning.
        finetune_lr: of the classifier in fine-tuning.
        backbone_lr: of the network below it; None for the classifier's.
        batch_size: of both, over all processes.
    """

    name: str
    original: Perturbation
    linear_lr: float
    linear_epochs: int
    rates: tuple[float, ...]
    perturbed_by_best: bool
    few_lr: float
    finetune_lr: float
    backbone_lr: float | None
    batch_size: int


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="dino",
            original=ORIG,
            linear_lr=0.001,
            linear_epochs=100,
            rates=(0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
            perturbed_by_best=False,
            few_lr=0.001,
            finetune_lr=0.001,
            backbone_lr=None,
            batch_size=256,
        ),
        Protocol(
            name="simsiam",
            original=BILINEAR,
            linear_lr=30.0,
            linear_epochs=200,
            rates=(0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
            perturbed_by_best=True,
            few_lr=3.0,
            finetune_lr=30.0,
            backbone_lr=0.03,
            batch_size=32,
        ),
    )
}

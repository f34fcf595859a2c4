"""Semi-supervised learning: the whole network is trained on the labels of a few images."""

from collections.abc import Callable

from clever_fast.accelerator import Accelerator
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.evaluate.finetune import Finetuning, finetune
from clever_fast.evaluate.results import Row
from clever_fast.pipelines.manifest import Manifest


def semi(
    encoder: TrainedEncoder,
    shares: dict[str, Manifest],
    query: Manifest,
    accelerator: Accelerator,
    settings: Finetuning,
    *,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Fine-tune the encoder anew on each share of the labelled images, by name."""
    rows = []
    for name, share in shares.items():
        say(f"{name}: {len(share):,} labelled images")
        found = finetune(encoder, share, query, accelerator, settings, few=True, say=say)
        rows += [{"labels": name, "images": len(share)} | row for row in found]
    return rows

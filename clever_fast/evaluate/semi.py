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
    """Fine-tune the encoder anew on each share of the labelled images, by name; only the last test of each is shown."""
    rows = []
    for name, share in shares.items():
        say(f"{name}: {len(share):,} labelled images")
        found = finetune(encoder, share, query, accelerator, settings, say=say)
        known = {"labels": name, "images": len(share)}
        rows += [known | row | {"shown": row["epoch"] == settings.epochs} for row in found]
    return rows

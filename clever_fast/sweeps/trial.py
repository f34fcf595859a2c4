"""One run of a sweep in a process of its own: `python -m clever_fast.sweeps.trial LABELS` with the words of `pretrain`.

LABELS: how many images of each class vote, or null for all.
"""

import json
import sys

from clever_fast.accelerator import Accelerator
from clever_fast.command_line import parse_pretrain
from clever_fast.encoders import export
from clever_fast.encoders.encoder import load_encoder, untrained
from clever_fast.errors import UserError
from clever_fast.evaluate import knn, labelled
from clever_fast.monitoring import metrics
from clever_fast.nonfinite.stop import NotFiniteError
from clever_fast.options import Execution, Recipe, Run
from clever_fast.pipelines.manifest import open_manifest
from clever_fast.sweeps.grid import SCORE
from clever_fast.train import train

K = 20
STOPPED = 3  # exit code of a run that was told to stop: neither finished nor failed


def main(labels: int | None, words: list[str]) -> int:
    """Returns the exit code; the reason of a failure is the last line of standard error."""
    try:
        recipe, execution, run = parse_pretrain(words)
        train(recipe, execution, run)
        if not (run.folder / export.NAME).exists():
            return STOPPED
        unfinished = run.folder / "score.tmp"
        unfinished.write_text(json.dumps(evaluate(recipe, execution, run, labels), indent=2) + "\n")
        unfinished.replace(run.folder / SCORE)
    except (UserError, NotFiniteError, OSError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    return 0


def evaluate(recipe: Recipe, execution: Execution, run: Run, labels: int | None) -> dict:
    """k-NN accuracy in percent (k = 20) of every part of the features, and of all of them before training.

    The first `labels` training images of each class vote.
    """
    images = open_manifest(run.data, classes=run.classes)
    bank = images if labels is None else labelled.few_of_each_class(images, labels)
    query = open_manifest(run.data, split="val", classes=run.classes)
    knn.check(bank, query, (K,))
    accelerator = Accelerator.from_execution(execution)
    accuracy = {}
    for name, encoder in (("trained", load_encoder(run.folder)), ("untrained", untrained(run.folder))):
        parts = encoder.parts if name == "trained" else {"all": slice(None)}
        network = accelerator.place(encoder.network)
        found = knn.score(network, parts, bank, query, encoder.size, accelerator, (K,))
        accuracy |= {f"{name} {part}": values[K] for part, values in found.items()}
    last = [record for record in metrics.read(run.folder / metrics.LOG) if record["kind"] == "train"][-1]
    return {
        "accuracy": accuracy,
        "k": K,
        "labels": labels,
        "images": len(images),
        "bank": len(bank),
        "queries": len(query),
        "loss": last["loss"],
        "epochs": last["epoch"],
        "seconds": last["seconds"],
        "recipe": recipe.as_dict(),
    }


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))

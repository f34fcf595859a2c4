"""Classifiers side by side against torch's own, one at a time; shares of a batch; metrics against scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F

from clever_fast import schedules
from clever_fast.errors import UserError
from clever_fast.evaluate.heads import BestEpoch, CachedBatches, Fitting, Heads, fit
from clever_fast.evaluate.metrics import accuracy, class_accuracy, spread

PARTS = {"all": slice(None), "IR": slice(0, 5), "EF": slice(5, None)}
CPU = torch.device("cpu")


def data(count: int = 48, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 7, generator=generator), torch.randint(classes, (count,), generator=generator)


def test_every_classifier_takes_the_steps_of_torchs_sgd():
    fitting = Fitting(epochs=4, batch_size=16, lrs=(0.5, 8.0), seed=3)
    x, y = data(41)  # the last batch of an epoch holds 9
    heads = Heads(PARTS, 7, 3, fitting, CPU)
    initial = {part: weight[:3].clone() for part, weight in heads.weights.items()}
    batches = CachedBatches(x, y, batch_size=16, seed=3)
    fit(heads, batches, batches.steps_per_epoch, fitting)
    for part, channels in PARTS.items():
        assert initial[part].std() == pytest.approx(0.01, rel=0.5)
        for i, lr in enumerate(fitting.lrs):
            single = nn.Linear(initial[part].shape[1], 3).double()
            single.load_state_dict({"weight": initial[part], "bias": torch.zeros(3)})
            optimizer = torch.optim.SGD(single.parameters(), lr=lr * 16 / 256, momentum=0.9)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
            for step, (rows, labels, _) in zip(range(12), batches):
                F.cross_entropy(single(rows[:, channels].double()), labels).backward()
                optimizer.step()
                optimizer.zero_grad()
                if step % 3 == 2:
                    schedule.step()
            torch.testing.assert_close(
                heads.weights[part][3 * i : 3 * i + 3].double(), single.weight, rtol=0, atol=1e-5
            )
            torch.testing.assert_close(
                heads.biases[part][3 * i : 3 * i + 3, 0].double(), single.bias, rtol=0, atol=1e-5
            )
            expected = single(x[:, channels].double()).argmax(1)
            assert torch.equal(heads.predict(x, part, chunk=13)[i], expected)


def test_separable_parts_are_perfect_and_noise_is_chance():
    y = torch.arange(400) % 4
    x = torch.cat([F.one_hot(y, 5)[:, :5].float(), torch.randn(400, 2, generator=torch.Generator().manual_seed(0))], 1)
    fitting = Fitting(epochs=30, batch_size=100, lrs=(3.0,))
    heads = Heads(PARTS, 7, 4, fitting, CPU)
    batches = CachedBatches(x, y, batch_size=100, seed=0)
    fit(heads, batches, batches.steps_per_epoch, fitting)
    found = {part: float(accuracy(heads.predict(x, part), y)) for part in PARTS}
    assert found["all"] == found["IR"] == 100
    assert found["EF"] < 40


def test_cached_batches_are_whole_epochs_in_an_order_of_the_seed():
    x, y = torch.arange(10.0)[:, None], torch.arange(10)
    for size, lengths in ((5, [5, 5]), (4, [4, 4, 2]), (11, [10])):
        batches = CachedBatches(x, y, batch_size=size, seed=0)
        steps = batches.steps_per_epoch
        found = [(labels, total) for _, (_, labels, total) in zip(range(2 * steps), batches)]
        first, second = (torch.cat([labels for labels, _ in found[i : i + steps]]) for i in (0, steps))
        assert [total for _, total in found] == [len(labels) for labels, _ in found] == 2 * lengths
        assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
        assert not torch.equal(first, second)
        assert all(torch.equal(a, b) for (a, _), (_, b, _) in zip(found, batches))


def test_the_best_epoch_is_each_classifier_s_own():
    """Against a copy of the classifiers after every epoch, each tested; the first of equals counts."""
    fitting = Fitting(epochs=6, batch_size=16, lrs=(0.5, 40.0), report="best_epoch")
    (x, y), test = data(), data(31)
    heads, again = (Heads(PARTS, 7, 3, fitting, CPU) for _ in range(2))
    batches = CachedBatches(x, y, batch_size=16, seed=0)
    best = BestEpoch(heads, test)
    fit(heads, batches, 3, fitting, best)
    seen = []
    for step, batch in zip(range(18), batches):
        again.step(*batch, schedules.cosine(step // 3, steps=6, start=1.0, end=0.0))
        if step % 3 == 2:
            seen.append({part: (accuracy(again.predict(test[0], part), test[1]), again.weights[part].clone())
                         for part in PARTS})  # fmt: skip
    for part in PARTS:
        scores = torch.stack([epoch[part][0] for epoch in seen])
        chosen = scores.argmax(0)
        assert best.epoch[part].tolist() == (chosen + 1).tolist()
        assert torch.equal(accuracy(best.heads.predict(test[0], part), test[1]), scores.amax(0))
        for i, epoch in enumerate(chosen.tolist()):
            assert torch.equal(best.heads.weights[part][3 * i : 3 * i + 3], seen[epoch][part][1][3 * i : 3 * i + 3])
    assert len({tuple(epochs.tolist()) for epochs in best.epoch.values()}) > 1  # they differ, so the test can fail


def test_metrics_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, 101), rng.integers(0, 5, (3, 101))
    labels[labels == 2] = 1  # a class that nothing belongs to
    ours = accuracy(torch.from_numpy(predicted), torch.from_numpy(labels))
    balanced = class_accuracy(torch.from_numpy(predicted), torch.from_numpy(labels))
    for row, a, b in zip(predicted, ours.tolist(), balanced.tolist(), strict=True):
        assert a == pytest.approx(100 * sklearn.metrics.accuracy_score(labels, row))
        assert b == pytest.approx(100 * sklearn.metrics.recall_score(labels, row, average="macro", labels=[0, 1, 3, 4]))


def test_spread_is_numpys():
    values = np.random.default_rng(0).normal(size=(5, 3))
    mean, deviation = spread(torch.from_numpy(values))
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_allclose(deviation, values.std(0, ddof=1))
    assert spread(torch.ones(1, 2))[1].tolist() == [0, 0]


@pytest.mark.parametrize(("options", "message"), [({"epochs": 0}, "epochs is 0"), ({"lrs": (0.1, 0.0)}, "above 0")])
def test_options_that_teach_nothing_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Fitting(**options)


def rank_main(rank: int, folder: str) -> None:
    """Two ranks encode 25 + 11 images and score them by k-NN, classifiers and all."""
    from pathlib import Path

    from clever_fast.accelerator import Accelerator
    from clever_fast.evaluate.features import features
    from clever_fast.evaluate.finetune import Finetuning, finetune
    from clever_fast.evaluate.knn import score
    from clever_fast.evaluate.linear import linear
    from clever_fast.options import Execution
    from clever_fast.pipelines.manifest import open_manifest
    from clever_fast.pipelines.perturbations import ORIG, PERTURBATIONS
    from tests.evaluate.segmentation import scenes

    if rank >= 0:
        dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.set_num_threads(1)
    encoder, accelerator = (
        scenes.encoder(),
        Accelerator.from_execution(Execution(device="cpu", precision="fp32", threads=1)),
    )
    bank, query = (open_manifest(Path(folder) / "data", split=split) for split in ("train", "val"))
    x, y = features(encoder.network, bank, encoder.size, accelerator, batch_size=4)
    found = {"x": x, "y": y}
    found["knn"] = score(encoder.network, encoder.parts, bank, query, encoder.size, accelerator, (3, 7))
    fitting = Fitting(epochs=2, batch_size=8, lrs=(0.3, 1.0), repetitions=3)
    settings = Finetuning(epochs=2, batch_size=8, lr=30.0)
    found["finetune"] = finetune(encoder, bank, query, accelerator, settings, say=lambda _: None)
    for augment in (True, False):
        tests = (ORIG, PERTURBATIONS["CJ+Ro"])
        rows = linear(encoder, bank, query, accelerator, fitting, augment=augment, perturbations=tests)
        found[f"augment {augment}"] = rows
    torch.save(found, f"{folder}/{rank}.pth")
    if rank >= 0:
        dist.destroy_process_group()


def test_two_ranks_score_as_one(tmp_path):
    from tests.evaluate.segmentation import scenes

    scenes.write(tmp_path / "data", {"train": 12, "val": 5})
    (tmp_path / "data/train/dull/0.png").unlink()  # 23 and 10: neither is a multiple of what the ranks share
    (tmp_path / "data/val/vivid/0.png").unlink()
    rank_main(-1, str(tmp_path))
    mp.spawn(rank_main, (str(tmp_path),), nprocs=2)
    one, *two = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (-1, 0, 1))
    assert len(one["y"]) == 23
    for many in two:
        torch.testing.assert_close(many["x"], one["x"])
        assert torch.equal(many["y"], one["y"])
        assert many["knn"] == one["knn"]
        for key in ("augment True", "augment False", "finetune"):
            for a, b in zip(many[key], one[key], strict=True):
                assert a == {name: pytest.approx(v) if isinstance(v, float) else v for name, v in b.items()}

"""Every protocol on images whose answer is known, and from the command line to its files."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clever_fast.accelerator import Accelerator
from clever_fast.benchmarks.checks import references
from clever_fast.data import LabelledBatches
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.errors import UserError
from clever_fast.evaluate.features import features, for_linear
from clever_fast.evaluate.finetune import Classifier, Finetuning, finetune
from clever_fast.evaluate.heads import Fitting
from clever_fast.evaluate.labelled import balanced_share, check, listed_share
from clever_fast.evaluate.linear import choose, linear
from clever_fast.evaluate.protocol import PROTOCOLS
from clever_fast.evaluate.robustness import robustness
from clever_fast.evaluate.rotation import rotation
from clever_fast.evaluate.semi import semi
from clever_fast.options import Execution
from clever_fast.pipelines.manifest import Manifest, open_manifest
from clever_fast.pipelines.perturbations import BILINEAR, PERTURBATIONS
from clever_fast.pipelines.pretraining import MEAN, STD
from tests import recipes
from tests.evaluate.segmentation import scenes

FITTING = Fitting(epochs=20, batch_size=16, lrs=(0.3, 3.0), repetitions=3)


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator.from_execution(Execution(device="cpu", precision="fp32"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return scenes.write(tmp_path_factory.mktemp("scenes"), {"train": 24, "val": 16})


@pytest.fixture(scope="module")
def data(folder) -> tuple[Manifest, Manifest]:
    return open_manifest(folder), open_manifest(folder, split="val")


def shown(rows: list[dict], *names: str) -> dict[tuple, float]:
    names = names or ("part", "test")
    return {tuple(row[name] for name in names): row["accuracy"] for row in rows if row.get("shown", True)}


@pytest.mark.parametrize("augment", [True, False])
def test_linear_keeps_what_is_invariant_and_loses_what_is_not(data, accelerator, augment):
    tests = (PERTURBATIONS["Ro"], PERTURBATIONS["ET"])
    rows = linear(scenes.encoder(), *data, accelerator, FITTING, perturbations=tests, augment=augment)
    found = shown(rows)
    assert list(found) == [(part, test) for test in ("Orig", "Ro", "ET") for part in ("all", "IR", "EF")]
    if not augment:
        assert found["EF", "Orig"] == 100
    assert found["IR", "Orig"] == found["IR", "Ro"] == found["IR", "ET"] == 100
    assert found["EF", "Ro"] < 85
    assert len(rows) == 18  # every learning rate is kept


def test_rotation_tells_invariant_from_sensitive_parts(data, accelerator):
    found = shown(rotation(scenes.encoder(), *data, accelerator, FITTING))
    assert found["IR", "upright"] == found["IR", "rotated"] == 100
    assert found["EF", "upright"] == 100
    assert found["EF", "rotated"] < 75
    assert found["EF", "four-fold"] == found["all", "four-fold"] == 100
    assert found["IR", "four-fold"] == pytest.approx(25, abs=8)
    assert (found["chance", "upright"], found["chance", "four-fold"]) == (50, 25)


def test_the_robustness_matrix_is_whole_and_repeatable(data, accelerator):
    tests = (PERTURBATIONS["Ro"], PERTURBATIONS["CJ"])
    options = {"perturbations": tests, "neighbours": 5}
    rows = robustness(scenes.encoder(), *data, accelerator, FITTING, **options)
    found = shown(rows, "classifier", "part", "test")
    parts, names = ("all", "IR", "EF"), ("Orig", "Ro", "CJ")
    expected = {(c, part, name) for c in ("5-NN", "linear") for part in parts for name in names}
    assert found.keys() == expected
    for classifier in ("5-NN", "linear"):
        assert found[classifier, "IR", "Ro"] == 100
    assert found["linear", "EF", "Ro"] < found["linear", "EF", "Orig"] == 100
    assert robustness(scenes.encoder(), *data, accelerator, FITTING, **options) == rows
    assert all(row["spread"] == 0 for row in rows if row["test"] == "Orig")


def test_the_best_learning_rate_is_that_of_the_unperturbed_images():
    scores = {("IR", "Orig"): (50, 60), ("IR", "Ro"): (40, 30), ("EF", "Orig"): (20, 10), ("EF", "Ro"): (5, 9)}
    rows = [
        {"part": part, "test": test, "lr": lr, "accuracy": value}
        for (part, test), values in scores.items()
        for lr, value in zip((0.1, 1.0), values)
    ]
    assert shown(choose(rows)) == {("IR", "Orig"): 60, ("IR", "Ro"): 30, ("EF", "Orig"): 20, ("EF", "Ro"): 5}


def test_a_vits_classifier_sees_four_class_tokens_and_ir_drops_only_the_last_ones_ef(accelerator):
    torch.manual_seed(0)
    network = recipes.vit(48, 6, 2, 0.0, patch_size=8, image_size=32).eval()
    encoder = TrainedEncoder(network, {"all": slice(None), "IR": slice(0, 38), "EF": slice(38, None)}, 32, "test")
    probe, images = for_linear(encoder), torch.randn(3, 3, 32, 32)
    assert probe.parts == {"all": slice(0, 192), "IR": slice(0, 182), "EF": slice(182, 192)}
    tokens, kept = probe.network(images), []
    for block in network.blocks:
        block.register_forward_hook(lambda _block, _inputs, output: kept.append(network.norm(output)[:, 0]))
    torch.testing.assert_close(tokens[:, -48:], network(images))
    torch.testing.assert_close(tokens, torch.cat(kept[-4:], dim=1))
    assert probe.network.embed_dim == 192


def test_finetuning_learns_what_the_features_alone_do_not_hold(data, accelerator):
    encoder = scenes.encoder().with_parts(["all", "IR"])
    torch.nn.init.normal_(encoder.network.weight, std=1e-3)
    before = encoder.network.weight.clone()
    settings = Finetuning(epochs=8, batch_size=16, lr=0.5, tests=2)
    rows = finetune(encoder, *data, accelerator, settings, say=lambda text: None)
    assert [(row["part"], row["epoch"]) for row in rows] == [("all", 4), ("all", 8), ("IR", 4), ("IR", 8)]
    assert all(row["accuracy"] == row["class_accuracy"] == 100 for row in rows if row["epoch"] == 8)
    assert torch.equal(encoder.network.weight, before)


@pytest.mark.parametrize(("part", "inputs"), [("all", 192), ("IR", 182)])
def test_finetuning_a_vit_learns_from_four_class_tokens(part, inputs, data, accelerator, monkeypatch):
    """1,536 of a ViT-S, 1,459 of its IR; and all blocks learn."""
    made = []

    class Seen(Classifier):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append((self, copy.deepcopy(self)))

    monkeypatch.setattr("clever_fast.evaluate.finetune.Classifier", Seen)
    torch.manual_seed(0)
    network = recipes.vit(48, 6, 2, 0.0, patch_size=8, image_size=32)
    parts = {"all": slice(None), "IR": slice(0, 38), "EF": slice(38, None)}
    encoder = TrainedEncoder(network, parts, 32, "test").with_parts([part])
    finetune(encoder, *data, accelerator, Finetuning(epochs=1, batch_size=48, lr=0.1, tests=1), say=lambda _: None)
    ((after, before),) = made
    assert after.head.in_features == inputs
    for (name, a), b in zip(after.named_parameters(), before.parameters(), strict=True):
        assert not torch.equal(a, b), name


def test_the_network_may_learn_at_another_rate_than_its_classifier(data, accelerator, monkeypatch):
    """The rates of SimSiam's protocol, as the optimizer has them in the first epoch: 30 and 0.03 x 32 / 256."""
    rates = []
    step = torch.optim.SGD.step

    def seen(self, *arguments, **options):
        rates.append([group["lr"] for group in self.param_groups])
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", seen)
    encoder = scenes.encoder().with_parts(["all"]).replace(protocol="simsiam")
    for few, lr in ((False, 30.0), (True, 3.0)):
        rates.clear()
        finetune(encoder, *data, accelerator, Finetuning(epochs=1), few=few, say=lambda _: None)
        assert rates == [[pytest.approx(lr / 8), pytest.approx(0.03 / 8)]] * 2  # 48 images: 32, then 16


def test_the_report_is_the_best_epoch_s_or_the_last_s(data, accelerator):
    """At a rate that is far too high the last epoch is not the best."""
    encoder = scenes.encoder().with_parts(["IR"])
    best, last = (
        linear(encoder, *data, accelerator, replace(FITTING, epochs=6, lrs=(3.0,), report=report), perturbations=(),
               augment=False)
        for report in ("best_epoch", "last")
    )  # fmt: skip
    assert [row["test"] for row in best] == ["Orig"]
    assert best[0]["accuracy"] >= last[0]["accuracy"]
    assert best[0]["epoch"] <= last[0]["epoch"] == 6
    rows = finetune(encoder, *data, accelerator, Finetuning(epochs=4, batch_size=16, lr=300.0), say=lambda _: None)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    (reported,) = [row for row in rows if row["shown"]]
    assert reported["accuracy"] == max(row["accuracy"] for row in rows)
    settings = Finetuning(epochs=4, batch_size=16, lr=300.0, report="last", tests=2)
    rows = finetune(encoder, *data, accelerator, settings, say=lambda _: None)
    assert [(row["epoch"], row["shown"]) for row in rows] == [(2, False), (4, True)]


def test_by_simsiam_s_protocol_unperturbed_images_are_resized_bilinearly(accelerator, tmp_path):
    """Fine stripes, whose mean contrast the two kernels leave differently."""
    for split in ("train", "val"):
        for name, period in (("fine", 3), ("coarse", 24)):
            (tmp_path / split / name).mkdir(parents=True)
            stripes = np.where(np.arange(96) % period < period / 2, 255, 0).astype(np.uint8)
            Image.fromarray(np.tile(stripes, (96, 1))).convert("RGB").save(tmp_path / split / name / "0.png")
    (bank, query), seen = (open_manifest(tmp_path, split=split) for split in ("train", "val")), {}
    encoder = scenes.encoder()
    forward = encoder.network.forward
    for name in PROTOCOLS:
        kept = seen.setdefault(name, [])
        encoder.network.forward = lambda images, kept=kept: (kept.append(images.clone()), forward(images))[1]
        of = encoder.replace(protocol=name)
        linear(of, bank, query, accelerator, Fitting(epochs=1), perturbations=(), augment=False)
    assert all((a - b).abs().max() > 0.05 for a, b in zip(seen["dino"], seen["simsiam"], strict=True))
    expected = features(lambda x: x.flatten(1), query, encoder.size, accelerator, perturbation=BILINEAR)[0]
    torch.testing.assert_close(seen["simsiam"][0].flatten(1), expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_training_crops_are_torchvision_s(interpolation, data, accelerator):
    bank, _ = data
    images = LabelledBatches(bank, 24, 8, 0, accelerator, interpolation)
    batch, sampler = next(iter(images)), images.loader.sampler
    drawn, indices = sampler.parameters(sampler.indices(0), 0)[0], sampler.indices(0)
    images.close()
    assert torch.equal(batch.labels, torch.from_numpy(bank.labels[indices]))
    for i, index in enumerate(indices):
        ends = (drawn[name][i].astype(int) for name in ("crop_start", "crop_end"))
        picture = references.crop(Image.open(bank.root / bank.paths[index]).convert("RGB"), *ends, 24, interpolation)
        pixels = batch.images[i].permute(1, 2, 0).numpy() * STD + MEAN
        gap = np.abs(pixels - np.asarray(picture))
        assert gap.max() < 1.01  # torch's resize and Pillow's differ by a grey level at most
        assert gap.mean() < 0.1


def test_semi_supervised_learning_starts_anew_for_each_share(data, accelerator):
    bank, query = data
    shares = {"a quarter": balanced_share(bank, 0.25, 0), "all": bank, "a quarter again": balanced_share(bank, 0.25, 0)}
    rows = semi(
        scenes.encoder(), shares, query, accelerator, Finetuning(epochs=3, batch_size=8, lr=0.3), say=lambda _: None
    )
    found = shown(rows, "labels", "images")
    assert list(found) == [("a quarter", 12), ("all", 48), ("a quarter again", 12)]
    assert found["a quarter", 12] == found["a quarter again", 12]
    assert found["all", 48] == 100


def test_shares_are_balanced_seeded_and_never_empty(data):
    bank, _ = data
    few = balanced_share(bank, 0.25, 7)
    assert np.bincount(few.labels).tolist() == [6, 6]
    assert balanced_share(bank, 0.25, 7).paths == few.paths
    assert balanced_share(bank, 0.25, 8).paths != few.paths
    assert balanced_share(bank, 1.0, 7).paths == bank.paths
    assert few.fingerprint != bank.fingerprint
    with pytest.raises(UserError, match="of the 24 images of class dull is none"):
        balanced_share(bank, 0.01, 0)
    with pytest.raises(UserError, match=r"a share of 10 .* 1 % is 0.01"):
        balanced_share(bank, 10, 0)


def test_lists_name_images_by_path_or_by_a_name_of_their_own(data, tmp_path):
    bank, _ = data
    file = tmp_path / "few.txt"
    file.write_text("vivid/3.png\n\ndull/1.png\n")
    assert listed_share(bank, file).paths == ["dull/1.png", "vivid/3.png"]
    for text, message in (
        ("3.png", "several images are called '3.png'"),
        ("x.png", "no readable image"),
        ("", "no image"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            listed_share(bank, file)
    with pytest.raises(UserError, match="cannot read the list"):
        listed_share(bank, tmp_path / "none.txt")


def test_data_that_cannot_be_tested_is_refused(data, folder):
    bank, query = data
    with pytest.raises(UserError, match="no val/ or test/"):
        check(bank, open_manifest(folder / "train"))
    one = Manifest(bank.root, ["a"], bank.sizes[:1], bank.labels[:1], ["only"], {}, "x")
    with pytest.raises(UserError, match="holds one class, only"):
        check(one, Manifest(query.root, ["b"], bank.sizes[:1], bank.labels[:1], ["only"], {}, "y"))
    with pytest.raises(UserError, match="no part 'IRR'; there is all, IR, EF"):
        scenes.encoder().with_parts(["IRR"])

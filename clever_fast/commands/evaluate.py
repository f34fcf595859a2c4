"""`clever-fast evaluate`: what a representation is worth, one function a protocol."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from clever_fast.commands.segmentation import saliency, video
from clever_fast.commands.session import Inputs, Opened, open_inputs, publish, say
from clever_fast.encoders.encoder import untrained
from clever_fast.errors import find
from clever_fast.evaluate import labelled
from clever_fast.evaluate.finetune import Finetuning
from clever_fast.evaluate.finetune import finetune as evaluate_finetuned
from clever_fast.evaluate.heads import Fitting
from clever_fast.evaluate.knn import compare
from clever_fast.evaluate.linear import linear as evaluate_linear
from clever_fast.evaluate.protocol import PROTOCOLS
from clever_fast.evaluate.results import Results
from clever_fast.evaluate.robustness import robustness as evaluate_robustness
from clever_fast.evaluate.rotation import rotation as evaluate_rotation
from clever_fast.evaluate.semi import semi as evaluate_semi
from clever_fast.pipelines.perturbations import PERTURBATIONS, PUBLISHED, Perturbation

PUBLISHED_NAMES = tuple(perturbation.name for perturbation in PUBLISHED)
CHOSEN = "the best of each part on the unperturbed test images; the files hold all"

__all__ = ["finetune", "knn", "linear", "robustness", "rotation", "saliency", "semi", "video"]


def knn(
    inputs: Inputs, *, neighbours: tuple[int, ...] | None = None, labels: int | tuple[int, ...] | None = None
) -> None:
    """Weighted k-NN accuracy of the features, whole and in parts, and what it is without training.

    The images of train/ vote on those of val/ or test/. So do raw pixels (32 x 32), and those of a run's encoder before
    training.

    Args:
        neighbours: the values of k; 10, 20, 100 and 200, as far as the images allow, by default.
        labels: images of each class that vote, the first by name; several numbers as [50,500]; all by default.
    """
    counts = (labels,) if labels is None or isinstance(labels, int) else labels
    with open_inputs(inputs) as opened:
        encoder, bank, query, accelerator = opened
        encoders = {"trained": encoder}
        if inputs.run:
            encoders["untrained"] = untrained(inputs.run).with_parts(list(encoder.parts))
        rows = compare(encoders, bank, query, accelerator, neighbours=neighbours, labels=counts)
        down, across = (("features",), "k") if len(counts) == 1 else (("features", "k"), "labels")
        publish(inputs, opened, Results("knn", "k-NN accuracy in %", rows, down, across))


def linear(
    inputs: Inputs,
    fitting: Fitting,
    *,
    augment: Literal["crops", "off"] = "crops",
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    perturbations: tuple[str, ...] = PUBLISHED_NAMES,
) -> None:
    """Accuracy of linear classifiers of frozen features, on test images as they are and perturbed.

    By default the protocol of the released code, with its one learning rate and the best epoch. Given several --lrs,
    all are trained in one pass over the data, and the table shows each part at the one that does best on the
    unperturbed test images.

    Args:
        augment: a new random crop and flip of each training image in every epoch; or off, which encodes them once.
        interpolation: of those crops, antialiased.
        perturbations: of the test images, by name.
    """
    chosen = _perturbations(perturbations)
    with open_inputs(inputs) as opened:
        options = {"augment": augment == "crops", "interpolation": interpolation}
        rows = evaluate_linear(*opened, fitting, perturbations=chosen, **options)
        about = _about(opened, fitting, published=True) | {"augment": augment, "interpolation": interpolation}
        found = Results("linear", "Linear classification: accuracy in %", rows, ("part",), "test", about)
        publish(inputs, opened, found)


def robustness(
    inputs: Inputs,
    fitting: Fitting,
    *,
    classifiers: tuple[Literal["knn", "linear"], ...] = ("knn", "linear"),
    perturbations: tuple[str, ...] = PUBLISHED_NAMES,
    neighbours: int = 20,
) -> None:
    """The whole matrix of parts and perturbations, by k-NN and by linear classifiers of features encoded once.

    Args:
        classifiers: knn, linear, or both.
        perturbations: of the test images, by name.
        neighbours: k of k-NN.
    """
    chosen = _perturbations(perturbations)
    with open_inputs(inputs) as opened:
        options = {"perturbations": chosen, "neighbours": neighbours}
        rows = evaluate_robustness(*opened, fitting, classifiers=classifiers, **options)
        about = _about(opened, fitting, published=False) | {"augment": "off"}
        title = "Robustness: accuracy in % on perturbed test images"
        publish(inputs, opened, Results("robustness", title, rows, ("classifier", "part"), "test", about))


def rotation(inputs: Inputs, fitting: Fitting) -> None:
    """What the whole features and their parts keep of an image's orientation.

    upright and rotated: classes of test images as they are, and rotated by random angles, told by linear classifiers of
    upright images. four-fold: which of 0, 90, 180 and 270 degrees an image was turned by; chance is 25 %.
    """
    with open_inputs(inputs) as opened:
        rows = evaluate_rotation(*opened, fitting)
        about = _about(opened, fitting, published=False) | {"augment": "off"}
        title = "Rotation: accuracy in %, of classes (upright, rotated) and of the angle (four-fold)"
        publish(inputs, opened, Results("rotation", title, rows, ("part",), "test", about))


def finetune(inputs: Inputs, settings: Finetuning) -> None:
    """Train the whole network and a linear classifier on all labelled images; accuracy along the way.

    The classifier sees the whole features; with --parts [all,IR], each of these in a training of its own.
    """
    with open_inputs(_whole(inputs)) as opened:
        rows = evaluate_finetuned(*opened, settings, say=say)
        title = "Fine-tuning: accuracy in %"
        rows = [row | {"report": settings.report.replace("_", " ")} for row in rows]
        about = asdict(settings.under(PROTOCOLS[opened.encoder.protocol], few=False))
        publish(inputs, opened, Results("finetune", title, rows, ("part",), "report", about))


def semi(
    inputs: Inputs,
    settings: Finetuning,
    *,
    shares: tuple[float, ...] = (0.01, 0.1),
    lists: tuple[Path, ...] = (),
) -> None:
    """Train the whole network and a linear classifier on the labels of a few images, 1 % and 10 % by default.

    The classifier sees the whole features; with --parts [all,IR], each of these in a training of its own.

    Args:
        shares: of every class, drawn at random by the seed.
        lists: files of image names, one a line, instead of shares.
    """
    with open_inputs(_whole(inputs)) as opened:
        encoder, bank, query, accelerator = opened
        if lists:
            few = {file.stem: labelled.listed_share(bank, file) for file in lists}
        else:
            few = {f"{100 * share:g} %": labelled.balanced_share(bank, share, settings.seed) for share in shares}
        rows = evaluate_semi(encoder, few, query, accelerator, settings, say=say)
        title = "Semi-supervised: accuracy in % with few labels"
        about = asdict(settings.under(PROTOCOLS[encoder.protocol], few=True))
        publish(inputs, opened, Results("semi", title, rows, ("part",), "labels", about))


def _about(opened: Opened, fitting: Fitting, *, published: bool) -> dict[str, Any]:
    """The settings that were used, for the results."""
    return asdict(fitting.under(PROTOCOLS[opened.encoder.protocol], published=published)) | {"lr shown": CHOSEN}


def _whole(inputs: Inputs) -> Inputs:
    return replace(inputs, parts=inputs.parts or ("all",))


def _perturbations(names: tuple[str, ...]) -> list[Perturbation]:
    return [find("perturbation", name, PERTURBATIONS) for name in names]

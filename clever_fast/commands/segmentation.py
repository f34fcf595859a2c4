"""`clever-fast evaluate video` and `clever-fast evaluate saliency`: unsupervised segmentation with frozen features."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

from clever_fast.commands.session import Device, open_encoder, publish_percentages
from clever_fast.encoders.encoder import EncoderSource
from clever_fast.errors import UserError
from clever_fast.evaluate.segmentation import clips, sheets
from clever_fast.evaluate.segmentation import saliency as cuts
from clever_fast.evaluate.segmentation import video as videos
from clever_fast.evaluate.segmentation.maps import feature_maps, has_keys, stride
from clever_fast.evaluate.segmentation.masks import write_mask
from clever_fast.evaluate.segmentation.propagation import Propagation
from clever_fast.progress import images_bar


def video(
    source: EncoderSource,
    *,
    data: Path,
    mask: Path | None = None,
    part: str = "all",
    size: int = 480,
    previous: int = 7,
    radius: int = 12,
    neighbours: int = 5,
    animate: bool = False,
    out: Path | None = None,
    device: Device = "auto",
) -> None:
    """Video object segmentation: frozen features carry the mask of the first frame through each clip.

    Takes DAVIS-2017 or DAVIS-2016 in their official folders, or a folder of frames and a mask of its first. Writes
    indexed masks, a contact sheet of each clip, and the scores J, F and J&F beside those of the first mask held still.

    Args:
        data: folder of DAVIS, or of frames.
        mask: of the first frame, for a folder of frames.
        part: of the features, such as all, IR or EF.
        size: shorter side of the frames that the network sees, in pixels.
        previous: frames that labels are taken from, beside the first one.
        radius: how far away a neighbour may be, in positions of the feature map.
        neighbours: of a position, that vote.
        animate: also write each clip with its masks as an animated WebP.
        out: folder for the results; RUN/video by default.
        device: where to compute.
    """
    found = clips.find_clips(data, mask)
    settings = Propagation(previous, radius, neighbours)
    encoder, accelerator, folder = open_encoder(source, out, "video", device)
    patch = stride(encoder)
    if size < patch or size % patch:
        raise UserError(f"--size {size} must be a multiple of {patch}, the pixels between two features of the encoder")
    maps = feature_maps(encoder, part, accelerator)
    scores, still, skipped = [], [], []
    with images_bar("segmenting", sum(len(clip.frames) for clip in found)) as advance:
        for clip in found:
            masks = folder / "masks" / clip.name

            def keep(frame: Path, mask: np.ndarray, masks: Path = masks) -> None:
                masks.mkdir(parents=True, exist_ok=True)
                write_mask(masks / f"{frame.stem}.png", mask)
                advance()

            try:
                clips.check(clip, patch)
                labelled = videos.segment(clip, maps, videos.frame_size(clip, size), settings, accelerator)
                own, kept = videos.score(clip, labelled, keep)
            except UserError as error:
                skipped.append(_skip(clip.name, error))
                continue
            title = f"{clip.name}: J&F {videos.summary(own)['J&F']:.1f}" if own else clip.name
            sheets.clip_sheet(clip, masks, title).save(folder / f"{clip.name}.jpg", quality=90)
            if animate:
                sheets.animation(clip, masks, folder / f"{clip.name}.webp")
            scores, still = scores + own, still + kept
    if len(skipped) < len(found):
        rows = {name: videos.summary(some) for name, some in ((part, scores), ("first mask", still)) if some}
        about = {"clips": len(found) - len(skipped), "size": size, **asdict(settings)}
        objects = [videos.as_row(score) for score in scores]
        title = f"{len(scores)} objects in {len({score.clip for score in scores})} clips"
        if bare := [clip.name for clip in found if not clip.truth and clip.name not in skipped]:
            print(f"segmented, with no masks to be scored by: {', '.join(bare)}")
        publish_percentages(
            folder / "video.json", rows, title, encoder, data, accelerator, about | {"objects": objects}
        )
    _report(skipped, len(found), "clips")


def saliency(
    source: EncoderSource,
    *,
    data: Path,
    masks: Path | None = None,
    part: str = "all",
    features: Literal["auto", "keys", "tokens"] = "auto",
    solver: bool = True,
    largest: int = 640,
    pictures: int = 8,
    out: Path | None = None,
    device: Device = "auto",
) -> None:
    """Unsupervised saliency with TokenCut: each image's features are cut in two, the object and the rest.

    Takes ECSSD, DUTS-TE or DUT-OMRON in their official folders, or a folder of images and one of masks. Writes maps,
    a picture of the first images, and max F, IoU and accuracy.

    Args:
        data: folder of the set, or of images.
        masks: folder of the images' masks, where data is a folder of images.
        part: of the features, such as all, IR or EF.
        features: the keys of a ViT's last block, or what the last block or stage puts out (less its mean over the
            image where a network has no keys); auto takes keys where there are any, but not for a part, because a key
            mixes all channels.
        solver: refine the masks with the bilateral solver; the unrefined are scored as well.
        largest: pixels that the longer side of larger images is shrunk to.
        pictures: images in the picture, the first by name.
        out: folder for the results; RUN/saliency by default.
        device: where to compute.
    """
    name, pairs = cuts.find_pairs(data, masks)
    encoder, accelerator, folder = open_encoder(source, out, "saliency", device)
    keys = features == "keys" or (features == "auto" and part == "all" and has_keys(encoder))
    maps, patch = feature_maps(encoder, part, accelerator, keys=keys), stride(encoder)
    if not has_keys(encoder):
        maps = cuts.centred(maps)
    if largest < patch:
        raise UserError(f"--largest {largest} is smaller than a patch of {patch} px")
    good, skipped = [], []
    for pair in pairs:
        try:
            cuts.check(pair, patch)
            good.append(pair)
        except UserError as error:
            skipped.append(_skip(pair.image.name, error))
    shown = {pair.image: None for pair in good[:pictures]}
    measured: dict[str, list] = {}
    (folder / "maps").mkdir(exist_ok=True)
    with images_bar("cutting", len(good)) as advance:
        for found in cuts.cut_all(good, maps, patch, accelerator, largest=largest, solver=solver):
            truth = cuts.read_truth(found.pair.truth)
            for row, soft in found.maps.items():
                measured.setdefault(row, []).append(cuts.measures(truth, soft))
            cuts.write_map(folder / "maps" / f"{found.pair.image.stem}.png", found.final)
            if found.pair.image in shown:
                shown[found.pair.image] = found
            advance()
    if good:
        rows = {f"{part}, {row}": cuts.summary(measures) for row, measures in measured.items()}
        about = {"images": len(good), "features": "keys" if keys else "tokens", "largest": largest}
        what = name if masks else f"{data.resolve().name}, laid out as {name}"
        title = f"{what}: {len(good)} images"
        if shown:
            sheets.saliency_sheet(list(shown.values()), title).save(folder / "saliency.jpg", quality=90)
        publish_percentages(folder / "saliency.json", rows, title, encoder, data, accelerator, about)
    _report(skipped, len(pairs), "images")


def _skip(name: str, error: UserError) -> str:
    print(f"clever-fast: skipped {name}: {error}", file=sys.stderr)
    return name


def _report(skipped: list[str], total: int, what: str) -> None:
    """Raise UserError where anything was skipped, so that no script takes the score of some for that of all."""
    if skipped:
        more = ", ..." if len(skipped) > 5 else ""
        rest = f"the scores are of the other {total - len(skipped)}" if len(skipped) < total else "nothing is left"
        raise UserError(f"skipped {len(skipped)} of {total} {what} ({', '.join(skipped[:5])}{more}): {rest}")

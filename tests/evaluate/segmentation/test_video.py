"""Clips in their folders, masks as files, and segmentation with features whose score is known."""

import numpy as np
import pytest
import torch
from PIL import Image

from clever_fast.accelerator import Accelerator
from clever_fast.errors import UserError
from clever_fast.evaluate.segmentation.clips import Clip, check, find_clips
from clever_fast.evaluate.segmentation.masks import palette, read_mask, write_mask
from clever_fast.evaluate.segmentation.propagation import Propagation
from clever_fast.evaluate.segmentation.video import frame_size, harden, measures, score, segment, summary
from clever_fast.options import Execution

COLOURS = np.array([(30, 30, 30), (220, 60, 60), (60, 60, 220)], np.uint8)
PATCH = 16


def write_clip(data, name, frames=8, size=(96, 128)):
    """Two squares of one colour each, on whole patches: one moves by a patch every second frame, one stands still."""
    for time in range(frames):
        mask = np.zeros(size, np.uint8)
        mask[16:48, time // 2 * 16 : time // 2 * 16 + 32] = 1
        mask[64:80, 80:112] = 2
        frame, truth = (data / kind / "480p" / name / f"{time:05d}.png" for kind in ("JPEGImages", "Annotations"))
        for path in (frame, truth):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLOURS[mask]).save(frame)
        write_mask(truth, mask)


@pytest.fixture
def davis(tmp_path):
    for name in ("bear", "swan"):
        write_clip(tmp_path, name)
    listed = tmp_path / "ImageSets/2017/val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("swan\nbear\n")
    return tmp_path


def colours_of_patches(images):
    return torch.nn.functional.avg_pool2d(images, PATCH)


def noise(images):
    generator = torch.Generator().manual_seed(int(images.abs().sum()))
    return torch.randn(len(images), 32, images.shape[2] // PATCH, images.shape[3] // PATCH, generator=generator)


def segmented(clip, maps, settings=Propagation()):  # noqa: B008
    accelerator = Accelerator.from_execution(Execution(device="cpu"))
    masks = segment(clip, maps, frame_size(clip, 96), settings, accelerator)
    kept = []
    found, still = score(clip, masks, lambda _frame, mask: kept.append(mask))
    return summary(found), summary(still), kept


def upsampled(truth):
    """The best that labels of whole patches can be: the truth with its corners rounded."""
    coarse = torch.from_numpy(truth[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH]).long()
    return harden(torch.nn.functional.one_hot(coarse, 3).movedim(-1, 0).float(), truth.shape)


def test_perfect_features_give_the_known_score_and_random_ones_the_floor(davis):
    clip = find_clips(davis)[0]
    check(clip, PATCH)
    own, still, kept = segmented(clip, colours_of_patches, Propagation(neighbours=1))
    truth = [read_mask(clip.truth[frame.stem]) for frame in clip.frames]
    assert (kept[0] == truth[0]).all()
    for mask, wanted in zip(kept[1:], truth[1:], strict=True):
        assert (mask == upsampled(wanted)).all()
    measured = np.mean([measures(t, upsampled(t), 2) for t in truth[1:-1]], axis=(0, 2))
    assert [own["J mean"], own["F mean"]] == pytest.approx(100 * measured)
    assert own["J&F"] == pytest.approx(50 * measured.sum())
    assert own["J mean"] > 85
    j = [1, 1 / 3, 1 / 3, 0, 0, 0]  # of 32 columns, frames 1 to 6 have moved on by 0, 16, 16, 32, 32 and 48
    assert still["J mean"] == pytest.approx(50 * (np.mean(j) + 1))
    lost, _, _ = segmented(clip, noise)
    assert lost["J mean"] < 40
    assert lost["J&F"] < own["J&F"] - 40


def test_a_portrait_is_segmented_too(tmp_path):
    write_clip(tmp_path, "bear")
    for path in (tmp_path / "JPEGImages/480p/bear").iterdir():
        Image.open(path).transpose(Image.Transpose.TRANSPOSE).save(path)
    first = tmp_path / "first.png"
    write_mask(first, read_mask(tmp_path / "Annotations/480p/bear/00000.png").T)
    (clip,) = find_clips(tmp_path / "JPEGImages/480p/bear", first)
    assert frame_size(clip, 96) == (128, 96)
    check(clip, PATCH)
    *_, last = segment(
        clip, colours_of_patches, (128, 96), Propagation(), Accelerator.from_execution(Execution(device="cpu"))
    )
    truth = read_mask(tmp_path / "Annotations/480p/bear/00007.png").T
    assert (last == truth).mean() > 0.98


@pytest.mark.parametrize(
    ("size", "wanted"), [((854, 480), (480, 832)), ((480, 854), (832, 480)), ((500, 480), (480, 448))]
)
def test_frame_sizes_are_dino_s(tmp_path, size, wanted):
    Image.new("1", size).save(tmp_path / "0.png")
    assert frame_size(Clip("x", [tmp_path / "0.png"], tmp_path / "0.png"), 480) == wanted


def test_labels_are_stretched_before_the_highest_wins():
    soft = torch.zeros(3, 4, 4)
    soft[0], soft[0, 0] = 0.6, 0.9
    soft[1, 3] = 0.3  # its highest, though below the background's
    mask = harden(soft, (4, 4))
    assert (mask[3] == 1).all()
    assert (mask[:3] == 0).all()  # an object that is nowhere wins nowhere


def test_the_layout_of_davis_2016(davis):
    (davis / "ImageSets/2017/val.txt").unlink()
    listed = davis / "ImageSets/480p/val.txt"
    listed.parent.mkdir()
    lines = [f"/JPEGImages/480p/bear/{i:05d}.jpg /Annotations/480p/bear/{i:05d}.png\n" for i in range(8)]
    listed.write_text("".join(lines))
    for path in (davis / "Annotations/480p/bear").iterdir():
        Image.fromarray((read_mask(path) == 1).astype(np.uint8) * 255).save(path)
    (clip,) = find_clips(davis)
    assert clip.name == "bear"
    check(clip, PATCH)
    own, _, kept = segmented(clip, colours_of_patches)
    assert kept[0].max() == 1
    assert own["J mean"] > 90


def test_what_is_missing_is_named_with_the_archive(davis, tmp_path):
    with pytest.raises(UserError, match=r"nowhere is no folder; unpack DAVIS-2017-trainval-480p.zip"):
        find_clips(tmp_path / "nowhere")
    (davis / "ImageSets/2017/val.txt").unlink()
    with pytest.raises(UserError, match=r"lacks ImageSets/2017/val.txt: unpack DAVIS-2017-trainval-480p.zip"):
        find_clips(davis)
    frames = davis / "JPEGImages/480p/bear"
    with pytest.raises(UserError, match=r"give the mask of 00000.png with --mask FILE"):
        find_clips(frames)
    with pytest.raises(UserError, match="no such mask"):
        find_clips(frames, davis / "none.png")


def spoil_no_first_mask(clip):
    clip.first_mask.unlink()
    return rf"{clip.first_mask} is missing"


def spoil_size(clip):
    path = clip.truth["00003"]
    Image.new("L", (50, 40)).save(path)
    return rf"{path} is 50 x 40 pixels, its clip's first frame 128 x 96"


def spoil_objects(clip):
    Image.fromarray(np.arange(96 * 128, dtype=np.uint16).reshape(96, 128)).save(clip.first_mask)
    return rf"{clip.first_mask} holds object 12287: an indexed mask has at most 255 objects"


def spoil_numbers(clip):
    clip.frames[4].unlink()
    return r"00005.png follows 00003.png: the frames jump in number, the others rise by 1"


def spoil_black(clip):
    Image.new("L", (128, 96)).save(clip.first_mask)
    return rf"{clip.first_mask} is all black"


def spoil_small(clip):
    for path in (*clip.frames, *clip.truth.values()):
        Image.open(path).resize((12, 10)).save(path)
    return rf"{clip.frames[0]} is 12 x 10 pixels, smaller than a patch of 16"


def spoil_colour(clip):
    Image.fromarray(COLOURS[read_mask(clip.first_mask)]).save(clip.first_mask)
    return rf"{clip.first_mask} is a colour picture"


def spoil_truth(clip):
    clip.truth["00004"].unlink()
    return r"00004.png has no mask"


def spoil_frame(clip):
    clip.frames[2].write_bytes(b"no image")
    return rf"{clip.frames[2]}: not an image"


def spoil_all_frames(clip):
    for path in clip.frames[1:]:
        path.unlink()
    return rf"{clip.frames[0]} is the only frame"


SPOILS = [value for name, value in sorted(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILS)
def test_bad_clips_are_named(davis, spoil):
    message = spoil(find_clips(davis)[0])
    swan, bear = find_clips(davis)
    with pytest.raises(UserError, match=message) as raised:
        check(swan, PATCH)
    assert "\n" not in str(raised.value)
    check(bear, PATCH)


def test_masks_are_written_with_the_palette_and_read_back(tmp_path):
    mask = np.arange(255, dtype=np.uint8).reshape(15, 17)
    write_mask(tmp_path / "a.png", mask)
    assert (read_mask(tmp_path / "a.png") == mask).all()
    image = Image.open(tmp_path / "a.png")
    assert image.mode == "P"
    assert image.getpalette()[3:12] == [128, 0, 0, 0, 128, 0, 128, 128, 0]  # PASCAL VOC's first colours
    assert palette()[255].tolist() == [224, 224, 192]
    void = np.array([[0, 1, 255]], np.uint8)
    write_mask(tmp_path / "b.png", void)
    assert read_mask(tmp_path / "b.png").tolist() == [[0, 1, 0]]
    write_mask(tmp_path / "c.png", np.array([[0, 255]], np.uint8))
    assert read_mask(tmp_path / "c.png").tolist() == [[0, 1]]
    assert read_mask(tmp_path / "c.png", objects=2).tolist() == [[0, 0]]

"""Every path reads the same pixels, those of DALI, out of every odd file; what it does not read, it names rightly."""

import io
import os

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, types
from PIL import Image, ImageOps

from clever_fast.errors import UserError
from clever_fast.evaluate.segmentation.masks import read_image
from clever_fast.pipelines import reading
from clever_fast.pipelines.decoding import decode, path_bytes
from clever_fast.pipelines.manifest import open_manifest
from clever_fast.pipelines.reading import read_file, read_pixels, silent_codecs, size_of
from clever_fast.show.images import read
from tests import odd_images
from tests.images import encode, photograph

SOUND, UNREAD = odd_images.sound(), odd_images.unread()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One class folder whose name is no UTF-8, with every odd file."""
    root = tmp_path_factory.mktemp("odd")
    odd_images.draw(root / os.fsdecode(b"cl\xe9"))
    return root


def in_training(path) -> np.ndarray:
    """The pixels that the graphs of training and evaluation decode, from the file itself."""

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def graph():
        return decode(fn.external_source(lambda: [path_bytes(path)], batch=True, dtype=types.UINT8), "cpu")

    return np.asarray(graph().run()[0].at(0))


@pytest.mark.parametrize("name", SOUND, ids=ascii)
def test_every_path_reads_the_pixels_of_training(folder, name):
    path = folder / os.fsdecode(b"cl\xe9") / name
    wanted = in_training(path)
    np.testing.assert_array_equal(read_file(path), wanted)
    np.testing.assert_array_equal(np.asarray(read_image(path)), wanted)  # of evaluate video and saliency
    assert size_of(path) == wanted.shape[1::-1]
    shorter = min(wanted.shape[:2])
    if max(wanted.shape[:2]) <= 8 * shorter:  # of show, which takes the middle of longer ones
        shown = read(path.read_bytes(), name, least=1, size=shorter).image
        np.testing.assert_array_equal(np.asarray(shown), wanted)
    if name not in (*odd_images.KEPT_VALUES, "damaged_middle.jpg"):
        with Image.open(path) as image:
            np.testing.assert_array_equal(wanted, np.asarray(ImageOps.exif_transpose(image).convert("RGB")))


def test_values_of_16_bits_and_floats_keep_their_scale(tmp_path):
    grey = np.asarray(photograph().convert("L")).astype(float)
    for name in ("grey16.png", "grey16.tif", "float32.tif"):
        assert abs(read_pixels(SOUND[name], name)[..., 0] - grey).max() <= 1
    rng = np.random.default_rng(0)
    noise = encode(Image.fromarray(rng.integers(0, 2**16, (50, 60), dtype=np.uint16)), "PNG")
    path = tmp_path / "noise.png"
    path.write_bytes(noise)
    np.testing.assert_array_equal(read_pixels(noise, "noise"), in_training(path))


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_read_is_called_what_it_is(folder, name):
    path = folder / os.fsdecode(b"cl\xe9") / name
    with pytest.raises(UserError, match="cannot read the image") as failed:
        read_file(path)
    assert f"{path}: {UNREAD[name][1]}" in str(failed.value)


def test_the_index_agrees_and_waits_for_no_fifo(folder):
    manifest = open_manifest(folder)
    own = {path.partition("/")[2] for path in manifest.paths}
    assert own == {*SOUND, "link.jpg"}
    reasons = {path.partition("/")[2]: reason for path, reason in manifest.unreadable.items()}
    assert set(reasons) == {*UNREAD, "dangling.jpg", "fifo.jpg"}
    assert all(reasons[name].startswith(start) for name, (_, start) in UNREAD.items())
    assert reasons["fifo.jpg"] == "cannot be opened: it is a folder, a pipe or a device, not a file"
    for row, path in enumerate(manifest.paths):
        assert tuple(manifest.sizes[row]) == read_pixels(manifest.read(row), path).shape[1::-1]


def test_data_of_12_bits_in_16_is_known_as_dim(folder):
    assert [name for name, data in SOUND.items() if reading.is_dim(data)] == list(odd_images.DIM)


def test_an_image_above_the_limit_is_refused_before_it_is_decoded():
    data = encode(Image.new("L", (13400, 13400)), "PNG")
    assert reading.MOST_PIXELS < 13400**2
    for read_ in (reading.decoder(), reading.header_reader()):
        assert read_(data) == (0, 0, "13,400 x 13,400 pixels; 178,956,970 pixels are the most that an image may have")


def test_an_image_that_is_all_length_is_shown_by_its_middle():
    picture = read(SOUND["line.png"], "line.png", least=224, size=None, multiple=16)
    assert picture.image.size == (8 * 224, 224)
    assert picture.lines[-1] == "30000 x 1 px, its middle seen at 1792 x 224"


def test_silence_of_one_thread_does_not_end_that_of_another():
    kept = os.fstat(2)
    outer, inner = silent_codecs(), silent_codecs()
    outer.__enter__(), inner.__enter__()
    outer.__exit__(None, None, None)
    assert os.fstat(2).st_rdev == os.stat(os.devnull).st_rdev
    inner.__exit__(None, None, None)
    assert os.fstat(2) == kept


def test_a_mask_keeps_its_values_and_turns_with_its_image(tmp_path):
    from clever_fast.evaluate.segmentation.masks import read_mask

    indexed = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4), "P")
    indexed.putpalette(bytes(range(256)) * 3)
    exif = Image.Exif()
    exif[0x112] = 6
    file = io.BytesIO()
    indexed.save(file, "PNG", exif=exif)
    (tmp_path / "mask.png").write_bytes(file.getvalue())
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), np.rot90(np.arange(12).reshape(3, 4), -1))

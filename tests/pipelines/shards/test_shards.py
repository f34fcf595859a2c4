"""Shards from a folder: the same bytes every time, the same manifest, the same batches, and faults by name."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest

from clever_fast.errors import UserError
from clever_fast.pipelines.evaluation import EvaluationLoader
from clever_fast.pipelines.manifest import open_manifest
from clever_fast.pipelines.policies import CAUG_PLUS
from clever_fast.pipelines.pretraining import PretrainingLoader
from clever_fast.pipelines.reading import decoder, header_reader, silent_codecs
from clever_fast.pipelines.shards.building import build_shards
from clever_fast.pipelines.shards.listing import find_shards
from clever_fast.pipelines.shards.verifying import verify
from tests.images import encode, photograph, readable, unreadable
from tests.pipelines.shards.test_archive import archive


def build(folder, out, *, name="toy-train", size=20_000, seed=None) -> int:
    return build_shards(open_manifest(folder), out, name=name, bytes_per_shard=size, seed=seed)


def contents(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.*"))}


def views(manifest, steps=4) -> list[np.ndarray]:
    loader = PretrainingLoader(manifest, CAUG_PLUS, seed=3, batch_size=8, dtype="float32")
    stream, found = iter(loader), []
    for _ in range(steps):  # into the second epoch
        indices, crops = next(stream)
        found += [indices, *crops]
    loader.close()
    return found


def test_headers_tell_the_sizes_that_decoding_does():
    by_header, by_decoding = header_reader(), decoder()
    with silent_codecs():
        for name, data in readable().items():
            assert by_header(data) == by_decoding(data), name
        for name in ("empty.jpg", "html.jpg", "gif.jpg", "header.jpg"):
            assert by_header(unreadable()[name]) == by_decoding(unreadable()[name]), name


def test_building_again_anywhere_gives_the_same_bytes(images, tmp_path):
    shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copy)
    build(images, tmp_path / "a")
    build(tmp_path / "copy", tmp_path / "b")
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    assert list(first)[:2] == ["shards.json", "toy-train-000000.tar"]
    assert len(first) > 3
    assert all(len(data) <= 20_000 for name, data in first.items() if name.endswith(".tar"))
    index = json.loads(first["shards.json"])
    assert (index["complete"], index["samples"], index["classes"]) == (True, 24, ["bars", "discs", "waves"])
    with tarfile.open(tmp_path / "a" / "toy-train-000000.tar") as tar:
        assert tar.getnames()[:3] == ["00000000.jpg", "00000000.cls", "00000000.json"]
        assert tar.extractfile("00000000.jpg").read() == (images / "train/bars/0.jpg").read_bytes()
        about = json.load(tar.extractfile("00000000.json"))
    assert (about["path"], about["class"]) == ("bars/0.jpg", "bars")


@pytest.mark.parametrize("seed", [None, 5])
def test_the_manifest_is_that_of_the_folder(images, tmp_path, seed):
    build(images, tmp_path, seed=seed)
    folder, shards = open_manifest(images), open_manifest(tmp_path)
    for manifest in (shards, open_manifest(tmp_path)):  # indexed, then loaded
        assert (manifest.paths, manifest.classes) == (folder.paths, folder.classes)
        assert (manifest.sizes.tolist(), manifest.labels.tolist()) == (folder.sizes.tolist(), folder.labels.tolist())
        assert manifest.fingerprint == folder.fingerprint
        assert [manifest.read(i) for i in range(24)] == [folder.read(i) for i in range(24)]
    in_order = (shards.places.numbers[:, :2] == sorted(shards.places.numbers[:, :2].tolist())).all()
    assert in_order == (seed is None)


def test_the_batches_are_those_of_the_folder_bit_for_bit(images, tmp_path):
    build(images, tmp_path, seed=1)
    folder, shards = open_manifest(images), open_manifest(tmp_path)
    for expected, found in zip(views(folder), views(shards), strict=True):
        assert np.array_equal(expected, found)
    for (rows, a), (same, b) in zip(
        *(EvaluationLoader(m, size=32, batch_size=7) for m in (folder, shards)), strict=True
    ):
        assert np.array_equal(rows, same)
        assert np.array_equal(a, b)


def test_every_kind_of_image_survives_and_bad_ones_stay_behind(tmp_path):
    for name, data in (readable() | unreadable() | {"two.dots.jpg": readable()["plain.jpg"]}).items():
        (tmp_path / "data/c").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data/c" / name).write_bytes(data)
    build(tmp_path / "data", tmp_path / "out", size=10**9)
    folder, shards = open_manifest(tmp_path / "data"), open_manifest(tmp_path / "out")
    assert (len(shards), shards.unreadable, shards.fingerprint) == (len(readable()) + 1, {}, folder.fingerprint)


def test_classes_take_a_part_of_the_shards(images, tmp_path):
    build(images, tmp_path / "out")
    (tmp_path / "list.txt").write_text("waves\nbars\n")
    folder, shards = (open_manifest(data, classes=tmp_path / "list.txt") for data in (images, tmp_path / "out"))
    assert (shards.classes, shards.paths, shards.fingerprint) == (folder.classes, folder.paths, folder.fingerprint)
    assert shards.labels.tolist() == folder.labels.tolist()
    assert shards.read(9) == folder.read(9)
    part = shards.take(np.array([9, 2]), "part")
    assert (part.paths[0], part.read(0), part.read(1)) == (folder.paths[9], folder.read(9), folder.read(2))


def test_an_interrupted_build_goes_on(images, tmp_path, monkeypatch):
    build(images, tmp_path / "whole")
    replace, renamed = __import__("os").replace, []

    def interrupted(source, target):
        renamed.append(target)
        if len(renamed) == 5:  # the third shard is written and not yet there
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(images, tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(UserError, match="not finished: call `clever-fast shard build` again"):
        open_manifest(tmp_path / "out")
    damaged = tmp_path / "out" / "toy-train-000001.tar"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    assert sorted(path.name for path in times) == ["toy-train-000000.tar", "toy-train-000001.tar"]
    assert build(images, tmp_path / "out") == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    kept = tmp_path / "out" / "toy-train-000000.tar"
    assert kept.stat().st_mtime_ns == times[kept]


def test_other_shards_are_never_overwritten(images, tmp_path):
    build(images, tmp_path / "out")
    for other in ({"size": 30_000}, {"seed": 1}, {"name": "other"}):
        with pytest.raises(UserError, match="holds other shards"):
            build(images, tmp_path / "out", **other)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/a.tar").write_bytes(b"")
    with pytest.raises(UserError, match="holds other shards"):
        build(images, tmp_path / "foreign")
    with pytest.raises(UserError, match="holds shards already"):
        build(tmp_path / "out", tmp_path / "again")


def test_a_file_that_changes_during_the_build_is_named(images, tmp_path):
    shutil.copytree(images / "train", tmp_path / "data")
    manifest = open_manifest(tmp_path / "data")
    (tmp_path / "data/discs/3.jpg").unlink()
    with pytest.raises(UserError, match=r"cannot build shards .*discs/3.jpg"):
        build_shards(manifest, tmp_path / "out", name="a", bytes_per_shard=10**6, seed=None)


def foreign(tmp_path, *shards: dict[str, bytes], **types: bytes):
    for number, entries in enumerate(shards):
        (tmp_path / f"set-train-{number:04d}.tar").write_bytes(archive(entries, tarfile.PAX_FORMAT, **types))
    return tmp_path


def sample(key: str, label: bytes = b"0", seed: int = 0) -> dict[str, bytes]:
    return {f"{key}.jpg": encode(photograph(seed=seed)), f"{key}.cls": label, f"{key}.json": b"not read"}


def test_shards_of_others_are_ordered_by_key(tmp_path):
    folder = foreign(tmp_path, sample("b", b"2\n") | sample("d"), sample("a", b"1") | sample("b", b"0", 1))
    foreign_val = archive(sample("v", b"7"))
    (tmp_path / "set-val-0000.tar").write_bytes(foreign_val)
    manifest = open_manifest(folder)
    assert [path.removeprefix("set-train-") for path in manifest.paths] == [
        "0001.tar/a.jpg", "0000.tar/b.jpg", "0001.tar/b.jpg", "0000.tar/d.jpg",
    ]  # fmt: skip
    assert (manifest.labels.tolist(), manifest.classes) == ([1, 2, 0, 0], ["0", "1", "2"])
    assert manifest.read(2) == encode(photograph(seed=1))
    assert open_manifest(folder, split="val").labels.tolist() == [7]
    pattern = open_manifest(folder / "set-train-{0001..0001}.tar")
    assert pattern.paths == ["set-train-0001.tar/a.jpg", "set-train-0001.tar/b.jpg"]
    foreign(tmp_path, sample("b", b"2\n"))  # one is replaced by another
    assert len(open_manifest(folder)) == 3


BAD = {
    "../climbs.jpg": "its path climbs out of the archive",
    "/climbs.cls": "its path climbs out of the archive",
    "link.jpg": "a symbolic link",
    "html.jpg": "not an image, starts with b'<html><body>'",
    "gif.jpg": "GIF, which DALI does not decode: convert it to JPEG or PNG",
    "empty.jpg": "empty file",
    "word.cls": "its label 'cat' is not a whole number",
    "negative.cls": "its label '-1' is not a whole number",
    "unlabelled.jpg": "no label: its .cls is missing",
    "text": "no image",
}


def test_what_is_wrong_is_named_and_left_out(tmp_path):
    jpeg, entries = encode(photograph()), {}
    for name in ("link", "html", "gif", "empty"):
        entries |= {f"{name}.jpg": unreadable().get(f"{name}.jpg", b""), f"{name}.cls": b"0"}
    entries |= {"../climbs.jpg": jpeg, "/climbs.cls": b"0", "unlabelled.jpg": jpeg, "text.cls": b"0", "text.txt": b"?"}
    entries |= {"word.jpg": jpeg, "word.cls": b"cat", "negative.jpg": jpeg, "negative.cls": b"-1"}
    entries |= sample("fine") | {"fine.png": encode(photograph(), "PNG"), "._fine.jpg": b"of macOS"}
    folder = foreign(tmp_path, entries, **{"link.jpg": tarfile.SYMTYPE})
    before = {path for path in tmp_path.parent.rglob("*") if ".clever_fast" not in path.parts}
    manifest = open_manifest(folder)
    assert manifest.paths == ["set-train-0000.tar/fine.jpg"]
    expected = {f"set-train-0000.tar/{name}": reason for name, reason in BAD.items()}
    for name in ("word.jpg", "negative.jpg"):
        expected[f"set-train-0000.tar/{name}"] = "no label: its .cls is missing"
    expected["set-train-0000.tar/fine.png"] = "a second image of one sample"
    expected["set-train-0000.tar/link"] = "no image"
    assert manifest.unreadable == expected
    assert {path for path in tmp_path.parent.rglob("*") if ".clever_fast" not in path.parts} == before


def test_a_second_member_and_a_shard_cut_off_are_named(tmp_path, fault):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in [*sample("a").items(), *sample("a", b"1", 1).items(), *sample("b").items()]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset
    (tmp_path / "x.tar").write_bytes(file.getvalue()[:end])
    manifest = open_manifest(tmp_path)
    assert manifest.paths == ["x.tar/a.jpg", "x.tar/b.jpg"]
    assert manifest.read(0) == encode(photograph())
    assert [reason for path, reason in manifest.unreadable.items() if path == "x.tar/a.jpg"] == [
        "a second member of this name"
    ]
    assert manifest.unreadable["x.tar"].startswith("cut off: no end mark after")
    fault(
        "a shard is cut off, and holds two members of one name",
        f"both are named (“{manifest.unreadable['x.tar']}”); the images before the cut are used, the first of the name",
        "what lay behind the cut",
    )


def test_verify_names_what_is_wrong(images, tmp_path, fault):
    build(images, tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.tar"))
    assert verify(find_shards(tmp_path, "train")) == (24, {})
    (tmp_path / names[0]).unlink()
    short, flipped = tmp_path / names[1], tmp_path / names[2]
    short.write_bytes(short.read_bytes()[:-700])
    data = bytearray(flipped.read_bytes())
    with tarfile.open(flipped) as tar:
        image = tar.next()
    data[image.offset_data + 2 : image.offset_data + image.size] = bytes(image.size - 2)
    flipped.write_bytes(data)
    with pytest.raises(UserError, match=f"{names[0]} is missing"):
        open_manifest(tmp_path)
    sound, faults = verify(find_shards(tmp_path, "train", whole=False))
    assert faults[names[0]] == "missing"
    assert "bytes" in faults[names[1]] or "cut off" in faults[names[1]]
    assert faults[names[2]] == "its checksum is not the one it was built with"
    path = open_manifest(images).paths[int(image.name[:-4])]
    assert faults[path] == "truncated or corrupt JPEG"
    assert 0 < sound < 24
    fault(
        f"of {len(names)} shards one is missing, one is shorter and one has other bytes",
        "training refuses them, naming the missing one; `shard verify` names all three and the broken image: "
        f"“{faults[names[0]]}”, “{faults[names[1]]}”, “{faults[names[2]]}”, “{faults[path]}”",
        "nothing",
    )


def test_a_member_that_breaks_after_indexing_is_replaced(images, tmp_path, fault):
    build(images, tmp_path, size=10**6)
    manifest = open_manifest(tmp_path)
    (shard,) = tmp_path.glob("*.tar")
    _, offset, size = map(int, manifest.places.numbers[4])
    with shard.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * size)
    loader = PretrainingLoader(manifest, CAUG_PLUS, seed=0, batch_size=24, dtype="float32")
    next(iter(loader))
    assert loader.replaced == {manifest.paths[4]: "cannot be decoded"}
    shard.unlink()
    evaluation = EvaluationLoader(open_manifest(images).take(np.arange(3), ""), size=32, batch_size=2)
    assert sum(len(rows) for rows, _ in evaluation) == 3
    gone = EvaluationLoader(manifest.take(np.arange(2), ""), size=32, batch_size=2)
    manifest.places.shards.store._opened.cache_clear()
    assert list(gone) == []
    assert set(gone.broken.values()) == {"the file is gone"}
    fault(
        "an image of a shard becomes zeros after it was indexed",
        "the next readable image takes its place, which is reported: "
        f"{manifest.paths[4]} ({loader.replaced[manifest.paths[4]]})",
        "1 image of 24",
    )


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "is damaged"),
        ('{"clever_fast shards": 9, "complete": true, "classes": [], "shards": []}', "has version 9"),
        (
            '{"clever_fast shards": 1, "complete": true, "classes": [], '
            f'"shards": [{{"name": "../../a.tar", "bytes": 1, "sha256": "{"0" * 64}"}}]}}',
            "is damaged",
        ),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, index, message):
    (tmp_path / "a.tar").write_bytes(archive(sample("a")))
    (tmp_path / "shards.json").write_text(index)
    with pytest.raises(UserError, match=message):
        open_manifest(tmp_path)


def test_what_a_user_can_get_wrong(images, tmp_path):
    foreign(tmp_path, sample("a"))
    with pytest.raises(UserError, match="has shards of train, but none of val"):
        open_manifest(tmp_path, split="val")
    with pytest.raises(UserError, match=r"no such shard: .*set-0002\.tar"):
        open_manifest(tmp_path / "set-{0002..0003}.tar")
    with pytest.raises(UserError, match="count backwards"):
        open_manifest(tmp_path / "set-{3..2}.tar")
    (tmp_path / "split/train").mkdir(parents=True)
    shutil.copy(tmp_path / "set-train-0000.tar", tmp_path / "split/train")
    with pytest.raises(UserError, match="has shards of train, but none of val"):
        open_manifest(tmp_path / "split", split="val")
    (tmp_path / "split/train/set-train-0000.tar").write_bytes(b"x" * 512)
    with pytest.raises(UserError, match="none of the 1 images"):
        open_manifest(tmp_path / "split")

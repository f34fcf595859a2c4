import io
import tarfile

import numpy as np
import pytest

from clever_fast.pipelines.shards.archive import ArchiveError, header, members, padding, stored_size

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def listed(data: bytes) -> list:
    def read(offset, size):
        assert 0 <= offset <= offset + size <= len(data)
        return data[offset : offset + size]

    return list(members(read, len(data)))


def archive(entries: dict[str, bytes], kind: int = tarfile.USTAR_FORMAT, **types: bytes) -> bytes:
    """A tar archive of files; `types` gives other types of entries by name."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), types.get(name, tarfile.REGTYPE), "elsewhere"
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_it_finds_what_tarfile_finds(kind):
    names = ["a.jpg", "b/c.cls", "e" * 99, "x/" * 60 + "deep.jpg"]
    names += [] if kind == "ustar" else ["long" * 60 + ".jpg", "ünï.jpg"]
    data = archive({name: bytes([i]) * (511 + i) for i, name in enumerate(names)} | {"empty": b""}, FORMATS[kind])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(info.name, info.offset_data, info.size, "") for info in tar]
    assert listed(data) == expected
    assert [name for name, *_ in expected] == [*names, "empty"]


def test_headers_are_those_that_tar_reads():
    content = b"x" * 700
    data = header("k.jpg", 700) + content + padding(700) + bytes(1024)
    assert len(data) == stored_size(700) + 1024
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.extractfile("k.jpg").read() == content
        assert (tar.getmember("k.jpg").mtime, tar.getmember("k.jpg").uid) == (0, 0)


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "a/../../b.jpg", "..\\a.jpg", "C:\\a.jpg", "C:/a.jpg"])
def test_a_path_that_climbs_out_is_named(name):
    assert [(m.name, m.fault) for m in listed(archive({name: b"1"}))] == [(name, "its path climbs out of the archive")]
    as_folder = listed(archive({name: b""}, **{name: tarfile.DIRTYPE}))
    assert [m.fault for m in as_folder] == ["its path climbs out of the archive"]


def test_links_and_devices_are_named_and_folders_passed_over():
    names = {"a.jpg": tarfile.SYMTYPE, "b.jpg": tarfile.LNKTYPE, "c.jpg": tarfile.FIFOTYPE, "d": tarfile.DIRTYPE}
    found = listed(archive(dict.fromkeys(names, b"") | {"./e..f.jpg": b"1"}, **names))
    assert [(m.name, m.fault) for m in found] == [
        ("a.jpg", "a symbolic link"),
        ("b.jpg", "a hard link"),
        ("c.jpg", "neither a file nor a folder"),
        ("e..f.jpg", ""),
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "no end mark"),
        (lambda data: b"GIF89a" + bytes(600), "not a tar archive"),
        (lambda data: data[:400], "no end mark"),
        (lambda data: data[:1000], "cut off in 'a.jpg'"),
        (lambda data: data[:2048], "no end mark"),
        (lambda data: data[:2048] + b"\1" + data[2049:], "no tar header at byte 2,048"),
        (lambda data: data[:124] + b"-0000000010\0" + data[136:], "not a tar archive"),
    ],
)
def test_a_broken_archive_says_where(damage, message):
    with pytest.raises(ArchiveError, match=message):
        listed(damage(archive({"a.jpg": b"1" * 1500, "b.jpg": b"2"})))


def test_damage_at_random_is_an_error_or_seen_as_another_sound_file():
    rng = np.random.default_rng(0)
    whole = archive({f"{i}.jpg": bytes(rng.integers(0, 256, 40 * i, np.uint8)) for i in range(8)}, tarfile.PAX_FORMAT)
    whole += archive({"ö" * 80: b"3"}, tarfile.PAX_FORMAT)
    errors = 0
    for _ in range(600):
        data = bytearray(whole[: rng.integers(0, len(whole))] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, max(1, len(data)), rng.integers(0, 6)) if data else ():
            data[place] ^= 1 << rng.integers(0, 8)
        try:
            for member in listed(bytes(data)):  # asserts that it asks for nothing outside
                assert 0 <= member.offset <= member.offset + member.size <= len(data)
        except ArchiveError:
            errors += 1
    assert 150 < errors < 600

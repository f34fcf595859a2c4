from clever_fast.commands.index import index
from tests.images import encode, photograph


def test_index_says_what_there_is(tmp_path, capsys):
    for name, data in {"a/1.jpg": encode(photograph()), "b/1.jpg": encode(photograph()), "b/2.jpg": b""}.items():
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).write_bytes(data)
    index(tmp_path)
    first = capsys.readouterr().out.splitlines()
    assert first[0].startswith("indexed 3 images in ")
    assert first[0].endswith(" images/s")
    assert first[1:] == [
        f"{tmp_path}/train: 2 images, 2 classes, 1 unreadable",
        "  b/2.jpg: empty file",
        f"manifest: {tmp_path}/train/.clever_fast/manifest.tsv",
    ]
    index(tmp_path)
    assert capsys.readouterr().out.splitlines() == first[1:]
    index(tmp_path, force=True)
    assert capsys.readouterr().out.startswith("indexed 3 images")

"""`clever-fast shard`: tar shards in place of a folder of images."""

from pathlib import Path

from clever_fast.errors import UserError

LISTED = 20  # faults that `verify` prints


def build(
    data: Path,
    out: Path,
    *,
    name: str = "images",
    megabytes: int = 256,
    seed: int | None = None,
    classes: Path | None = None,
    threads: int = 0,
) -> None:
    """Writes the images of a folder as tar shards in WebDataset's naming: KEY.jpg, KEY.cls and KEY.json a sample.

    OUT gets train/NAME-train-000000.tar and so on, and the same for val/ and test/ where DATA has them. `--data OUT` is
    then as good as `--data DATA`: the same crops, bit for bit. The bytes of the images are copied as they are. Equal
    images give equal shards. After an interruption the same command goes on.

    Args:
        data: Folder with one folder of images per class, or with train/ and val/ that hold them.
        out: Folder to write.
        name: How the shards' names begin.
        megabytes: Upper bound of a shard's size, in units of 1,000,000 bytes.
        seed: Shuffle the samples with this seed; by default they lie class by class. Training shuffles by itself.
        classes: Text file with one class folder per line, to take only these.
        threads: Decoding threads where the folder must be indexed first; 0 is one per core.
    """
    from clever_fast.pipelines.listing import find_split, split_folders
    from clever_fast.pipelines.manifest import open_manifest
    from clever_fast.pipelines.shards.building import build_shards

    if megabytes < 1:
        raise UserError(f"--megabytes {megabytes} is too small: give at least 1")
    if not name or "/" in name or name[0] in ".-":
        raise UserError(f"--name {name!r} cannot begin a file's name: take letters and digits")
    find_split(data, "train")  # or a line that says what is wrong with the folder
    for split in split_folders(data) or [""]:
        manifest = open_manifest(data, split=split or "train", classes=classes, threads=threads, progress=True)
        called = f"{name}-{split}" if split else name
        there = build_shards(
            manifest, out / split, name=called, bytes_per_shard=megabytes * 10**6, seed=seed, progress=True
        )
        shards = open_manifest(out / split, force=True, progress=True)
        if shards.fingerprint != manifest.fingerprint:
            raise UserError(f"{out / split} does not hold what {manifest.root} does now: remove it and build again")
        before = f", of which {there:,} were there" if there else ""
        print(f"{out / split}: {len(shards):,} images in {len(shards.places.names):,} shards{before}")


def verify(data: str, *, split: str | None = None, threads: int = 0) -> int:
    """Reads everything: checksums where `shard build` wrote them, every header, every image decoded.

    Names what is short, cut off, damaged, twice there, a link, no image, or would climb out of the archive. The exit
    code is 1 if there is any.

    Args:
        data: Folder, URL or pattern of shards.
        split: Which split, where there are splits; all of them by default.
        threads: Decoding threads; 0 is one per core.
    """
    from clever_fast.pipelines.manifest_file import escape
    from clever_fast.pipelines.shards.verifying import verify

    found = 0
    for shards in [_shards(data, name, whole=False) for name in _splits(data, split)]:
        sound, faults = verify(shards, threads=threads, progress=True)
        for name, reason in list(faults.items())[:LISTED]:
            print(escape(f"{name}: {reason}"))
        if len(faults) > LISTED:
            print(f"and {len(faults) - LISTED:,} more")
        print(f"{shards.store.place}: {len(shards.sizes):,} shards, {sound:,} sound images, {len(faults):,} faults")
        found += len(faults)
    return int(found > 0)


def index(data: str, *, split: str | None = None, threads: int = 0, force: bool = False) -> None:
    """Lists the samples of shards, also of other makers: one pass over the tar headers and the images' headers.

    `pretrain` does it by itself on first use. The manifest is kept in .clever_fast/ beside the shards. Copied to a
    bucket with them, it spares whoever reads them there the indexing.

    Args:
        data: Folder, URL or pattern of shards, such as DIR/imagenet1k-train-{0000..1023}.tar.
        split: Which split, where there are splits; all of them by default.
        threads: Threads; 0 is one per core.
        force: Look again at shards that are indexed.
    """
    from clever_fast.pipelines.manifest import open_manifest

    names = _splits(data, split)
    for name in names:
        _shards(data, name)
    for name in names:
        manifest = open_manifest(data, split=name, threads=threads, progress=True, force=force)
        print(f"{manifest.summary()}\nmanifest: {manifest.file}")


def _splits(data: str, split: str | None) -> list[str]:
    from clever_fast.pipelines.shards.listing import splits_of_shards

    return splits_of_shards(data) if split is None else [split]


def _shards(data: str, split: str, *, whole: bool = True):
    from clever_fast.pipelines.shards.listing import find_shards

    shards = find_shards(data, split, whole=whole)
    if shards is None:
        raise UserError(f"{data} holds no tar shards; `clever-fast shard build` makes them from a folder of images")
    return shards

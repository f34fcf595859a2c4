"""`clever-fast index`: look at every image once."""

from pathlib import Path


def index(
    data: Path, *, split: str = "train", classes: Path | None = None, threads: int = 0, force: bool = False
) -> None:
    """Decodes every image once and stores the sizes, the labels and what cannot be read.

    `pretrain` does it by itself on first use. A second call looks only at files that are new or have changed. A file
    overwritten in place, in a folder where nothing else changed, is not noticed without --force.

    Args:
        data: Folder with one folder of images per class, or with train/ and val/ that hold them.
        split: Which split to index, where there are splits.
        classes: Text file with one class folder per line, to take only these.
        threads: Decoding threads; 0 is one per core.
        force: Decode every file again.
    """
    from clever_fast.pipelines.manifest import dim_warning, open_manifest

    manifest = open_manifest(data, split=split, classes=classes, threads=threads, progress=True, force=force)
    print(f"{manifest.summary()}\nmanifest: {manifest.file}")
    if warning := dim_warning(manifest):
        print(f"warning: {': '.join(warning)}")

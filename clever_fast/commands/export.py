"""`clever-fast export`: an encoder for other software."""

from pathlib import Path
from typing import Literal

from clever_fast.encoders.encoder import EncoderSource
from clever_fast.encoders.export import description, write_onnx, write_safetensors, write_timm
from clever_fast.encoders.weights import recognise
from clever_fast.errors import UserError

ENDINGS = {"safetensors": ".safetensors", "timm": ".pth", "onnx": ".onnx"}


def export(
    source: EncoderSource,
    *,
    out: Path,
    format: Literal["safetensors", "timm", "onnx"] = "safetensors",
) -> None:
    """Write the encoder of a run, or of a checkpoint of another project, for other software.

    safetensors: weights under the backbone's own names, and a JSON file beside them with the parts of the features.
    timm: a state dict that timm.create_model(NAME, num_classes=0, checkpoint_path=OUT) loads; NAME is printed.
    onnx: a graph with any batch size; needs the extra `export`.

    Args:
        out: file to write: .safetensors, .pth for timm, or .onnx.
        format: what to write.
    """
    if out.suffix != ENDINGS[format]:
        raise UserError(f"--out {out} does not end in {ENDINGS[format]}, as --format {format} does")
    found = source.load()
    encoder, known = found.network.eval(), recognise(found.network.state_dict())
    about = description(encoder, known, found.parts, found.size, origin=found.origin, protocol=found.protocol)
    note = ""
    try:
        if format == "safetensors":
            write_safetensors(out, encoder, about)
            note = f", described in {out.with_suffix('.json').name}"
        elif format == "timm":
            note = f", for timm.create_model({write_timm(out, encoder, known)!r}, num_classes=0)"
        else:
            write_onnx(out, encoder, about)
            note = f", images (N, 3, {found.size}, {found.size}) to features (N, {encoder.embed_dim})"
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from None
    print(f"{out}: {known} of {found.origin}{note}, {out.stat().st_size / 2**20:.1f} MiB")

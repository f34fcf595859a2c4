"""Records as the three clocks write them, for tests."""

import json
from pathlib import Path

ROW = {
    "benchmark": "step", "recipe": "clever_vits16_in100", "method": "clever", "backbone": "vit_small_patch16_224",
    "changes": {"batch_size": 128}, "execution": "fast", "settings": {"kernels": "fused"}, "device": "NVIDIA H200",
    "precision": "bfloat16", "threads": 16, "policy": "caug", "crops": "2x224 + 8x96", "batch": 128,
    "gflop_per_image": 115.2, "tflops": 345.6, "share_of_peak": 0.432, "warm_up_s": 60.0, "peak_mib": 21000.0,
    "ceilings": {"product_tflops": 800.0, "copy_gb_s": 4300.0}, "data_wait": 0.0, "date": "2026-11-01", "commit": "abc",
    "cpu": "a processor", "cores": 16, "python": "3.11", "versions": {"torch": "2.14.1"},
}  # fmt: skip


def row(rate: float = 3000.0, **changes) -> dict:
    """A record of a step at `rate` images/s, give or take 1 %."""
    spread = {"median": rate, "low": 0.99 * rate, "high": 1.01 * rate, "rounds": 5}
    return ROW | {"images_per_second": spread} | changes


def write(path: Path, *records: dict) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path

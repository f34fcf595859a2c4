"""The page and the tables say what the records say, and keep predictions apart."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from clever_fast.benchmarks import markdown
from clever_fast.benchmarks.report import html_page
from clever_fast.errors import UserError
from tests.benchmarks.rows import row

PHASES = {"data": 1.0, "teacher": 4.0, "student": 10.0, "backward": 20.0, "optimizer": 4.0, "other": 1.0}
SCAN = {
    "benchmark": "selective_scan", "images": 2, "channels": 96, "side": 56, "bytes": 10**9, "copy_gb_s": 100.0,
    "ms": {"kernel": {"median": 20.0}, "doubling": {"median": 90.0}}, "device": "cpu", "threads": 2,
}  # fmt: skip
EPOCH = {"benchmark": "epoch", "data_wait": 0.2, "phases_ms": PHASES}


def records() -> list[dict]:
    conditions = {name: row()[name] for name in ("date", "commit", "cpu", "cores", "versions")}
    plain = row(1000.0, execution="plain", settings={})
    loader = row(2800.0, benchmark="loader")
    return [row(3000.0), plain, loader, row(2400.0, **EPOCH), SCAN | conditions]


def section(page: str, heading: str) -> str:
    return next(part for part in page.split("<h2>") if part.startswith(heading))


def test_the_bars_are_as_long_as_the_rates():
    part = section(html_page(records()), "Images per second")
    fast, plain = 100 * 3000 / 3030, 100 * 1000 / 3030  # of the fastest round
    assert f'width="{fast:.3f}%"' in part
    assert f'width="{plain:.3f}%"' in part
    assert f'x1="{100 * 251 / 3030:.3f}%"' in part  # the paper's line
    assert "NVIDIA H200, bfloat16, 128 images of 2x224 + 8x96 px" in part
    assert 'width="43.200%"' in part  # of the peak


def test_the_papers_line_is_only_where_the_crops_are_the_papers():
    small = row(3.0, device="cpu", crops="2x64 + 2x32", batch=2)
    page = html_page([small])
    assert "251" not in section(page, "Images per second")
    assert "Nothing here was measured on a GPU" in page
    assert "Nothing here" not in html_page(records())


def test_the_clocks_say_what_limits():
    cells = re.findall(r"<td>(.*?)</td>", section(html_page(records()), "What limits"))
    assert cells == ["CLeVER ViT-S/16", "2,800", "3,000", "2,400", "20%", "the loader"]


def test_phases_fill_the_bar_in_order():
    part = section(html_page(records()), "Where a step")
    drawn = re.findall(r'<rect x="([\d.]+)%" width="([\d.]+)%"', part)
    shares = 100 * np.array(list(PHASES.values())) / 40
    np.testing.assert_allclose([float(width) for _, width in drawn], shares, atol=1e-3)
    np.testing.assert_allclose([float(x) for x, _ in drawn], np.cumsum(shares) - shares, atol=2e-3)
    assert "backward: 20.00 ms, 50%" in part


def test_kernels_are_a_share_of_the_copy():
    part = section(html_page(records()), "Kernels")
    assert 'width="50.000%"' in part  # 1 GB in 20 ms is 50 GB/s
    assert "50% <small>20 ms</small>" in part


def test_predictions_stand_alone_with_their_formula():
    page = html_page(records())
    part = section(page, "Predicted, not measured")
    assert "(GFLOP an image) / (share × peak)" in part
    assert "812 to 1,083" in part  # 0.3 and 0.4 x 312,000 / 115.2, ViT-S on an A100
    assert page.count("url(#hatch)") == part.count("url(#hatch)") == 16


def test_the_page_needs_nothing_else():
    page = html_page(records())
    assert not re.search(r"https?:|src=|<link|<script|@import", page)


def test_records_without_a_step_still_make_a_page():
    assert "No training step" in html_page(records()[-1:])


def test_the_tables_keep_measured_and_predicted_apart(tmp_path):
    (tmp_path / "docs").mkdir()
    for page, names in (("README.md", ["bench"]), ("docs/speed.md", ["expected", "step"])):
        (tmp_path / page).write_text("".join(f"top\n<!-- {n}:begin -->\nold\n<!-- {n}:end -->\nend\n" for n in names))
    assert [path.name for path in markdown.write(records()[:-1], tmp_path)] == ["README.md", "speed.md"]
    readme, speed = (tmp_path / "README.md").read_text(), (tmp_path / "docs/speed.md").read_text()
    assert "old" not in readme + speed
    assert "| ViT-S/16 | 3,000 | 812 to 1,083 | 2,057 to 2,743 |" in readme
    assert "A100, 2x224 + 8x96: *predicted*" in readme
    assert "NVIDIA H200, images/s, measured" in speed
    line = next(line for line in speed.splitlines() if line.startswith("| clever_vits16_in100"))
    assert "| 3,000 | 1,000 | **3.00** | 346 | 43.2% |" in line


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no place for the table"):
        markdown.write(records(), tmp_path)


@pytest.mark.skipif(not shutil.which("chromium"), reason="Debian's chromium is not installed")
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_draws_it(tmp_path, width):
    page, shot = tmp_path / "report.html", tmp_path / "shot.png"
    page.write_text(html_page(records()))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},1400"]
    subprocess.run(
        ["chromium", *words, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True, timeout=60
    )
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape == (1400, width, 3)
    blue = (abs(pixels - [0x2F, 0x6F, 0xDB]).max(axis=-1) < 4).sum(axis=1)
    assert blue.max() > 0.3 * width  # the longest bar
    assert (pixels[:, -4:] == 255).all()  # nothing sticks out on the right

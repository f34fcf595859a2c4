import pytest

from clever_fast.benchmarks.checks import storage


@pytest.mark.soak
def test_a_hundred_thousand_files_are_indexed_within_a_minute(tmp_path, fault):
    seconds = storage.index(tmp_path / "many", 100_000)
    assert seconds["without_decoding"] < 60
    fault(
        "a folder of 100,000 files, which then gains one",
        f"indexed in {seconds['first']:.0f} s, {seconds['without_decoding']:.0f} s where nothing is decoded; opened "
        f"again in {seconds['again']:.1f} s, with the new file in {seconds['one_more_file']:.0f} s",
        "nothing",
    )

"""Records are read or refused, and compared only where the conditions are equal."""

import pytest

from clever_fast.benchmarks.compare import compare
from clever_fast.benchmarks.records import read, training
from clever_fast.errors import UserError
from tests.benchmarks.rows import row, write


def test_what_is_no_record_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no records at .*nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no records"):
        read(tmp_path)
    for text in ("not json", "[1]", '{"loss": 3}', '"benchmark"'):
        (tmp_path / "step.jsonl").write_text(f"\n{text}\n")
        with pytest.raises(UserError, match=r"line 2 of .*step.jsonl is no record"):
            read(tmp_path)
    old = {name: value for name, value in row().items() if name not in ("execution", "images_per_second")}
    with pytest.raises(UserError, match="another format: it lacks execution, images_per_second"):
        read(write(tmp_path / "a.jsonl", old))


def test_the_newest_record_of_each_way_counts():
    a, b, other = row(1.0), row(2.0), row(3.0, batch=64)
    assert training([a, other, b, {"benchmark": "ops"}]) == [b, other]


def test_ratios_of_two_files_whatever_the_commit(tmp_path):
    dino = {"recipe": "dino_vits16_in100", "method": "dino"}
    a = write(tmp_path / "a.jsonl", row(2000.0), row(100.0, **dino))
    b = write(tmp_path / "b.jsonl", row(3000.0, commit="def", date="2026-11-02"), row(100.5, **dino))
    pairs = compare(str(a), str(b), tmp_path)
    assert [(p.recipe, p.ratio, p.told_apart) for p in pairs] == [
        ("clever_vits16_in100", 1.5, True),
        ("dino_vits16_in100", 1.005, False),  # the rounds overlap
    ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch": 64}, r"batch \(128, 64\)"),
        ({"device": "NVIDIA A100"}, r"device \(NVIDIA H200, NVIDIA A100\)"),
        ({"versions": {"torch": "2.11.0"}}, r"versions.torch \(2.14.1, 2.11.0\)"),
        ({"crops": "2x64 + 2x32"}, "crops"),
        ({"settings": {"kernels": "reference"}}, r"settings.kernels \(fused, reference\)"),
        ({"cores": 8}, "cores"),
        ({"driver": "580"}, r"driver \(not recorded, 580\)"),
    ],
)
def test_unequal_conditions_are_named_and_refused(tmp_path, change, named):
    a, b = write(tmp_path / "a.jsonl", row()), write(tmp_path / "b.jsonl", row(1500.0, **change))
    with pytest.raises(UserError, match=named):
        compare(str(a), str(b), tmp_path)
    (pair,) = compare(str(a), str(b), tmp_path, anyway=True)
    assert pair.ratio == 0.5
    assert len(pair.unequal) == 1


def test_two_executions_of_one_folder(tmp_path):
    plain = row(1000.0, execution="plain", settings={"kernels": "released"})
    write(tmp_path / "step.jsonl", plain, row(3000.0))
    (tmp_path / "faults.jsonl").write_text("{}\n")  # others keep records beside those of bench
    (pair,) = compare("plain", "fast", tmp_path)
    assert pair.ratio == 3.0
    with pytest.raises(UserError, match=r"quick is neither .* \(there: fast, plain\)"):
        compare("plain", "quick", tmp_path)


def test_nothing_in_common(tmp_path):
    a, b = write(tmp_path / "a.jsonl", row()), write(tmp_path / "b.jsonl", row(recipe="clever_demo"))
    with pytest.raises(UserError, match="nothing to compare"):
        compare(str(a), str(b), tmp_path)

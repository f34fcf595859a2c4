"""The doctor finds what is wrong and says what to do about it."""

import sys
from types import SimpleNamespace

import pytest

from clever_fast import doctor
from clever_fast.cli import main


def states(findings):
    return {finding.about: finding.state for finding in findings}


def versions(monkeypatch, **found):
    names = {name.replace("_", "-"): value for name, value in found.items()}
    monkeypatch.setattr(doctor, "installed_version", names.get)


def test_a_sound_machine_and_data_end_in_0(images, tmp_path, capsys):
    assert main(["doctor", "--data", str(images), "--run", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "24 images of 3 classes, 0 unreadable" in " ".join(told.split())
    assert "0 faults" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("state", ["warning", "fault"])
def test_a_finding_without_a_remedy_cannot_be_made(state):
    with pytest.raises(ValueError, match="needs a remedy"):
        doctor.Finding("disk", state, "it is full")


def test_missing_data_is_a_fault_and_the_exit_code_tells(tmp_path, capsys):
    assert main(["doctor", "--data", str(tmp_path / "nowhere")]) == 1
    told = "".join(capsys.readouterr().out.split())
    assert "nowhere" in told
    assert "->" in told


def test_unreadable_and_tiny_images_are_counted(images, tmp_path):
    from PIL import Image

    folder = tmp_path / "train" / "one"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(folder / "a.png")
    Image.new("RGB", (4, 40)).save(folder / "b.png")
    (folder / "c.jpg").write_bytes(b"no image")
    found = {finding.about: finding for finding in doctor.check_data(tmp_path)}
    assert found["data"].state == "warning"
    assert "2 images of 1 classes, 1 unreadable" in found["data"].text
    assert "1 images have a side below 32 px" in found["image sizes"].text


@pytest.mark.parametrize(
    ("found", "state", "word"),
    [
        ({}, "fault", "not installed"),
        ({"nvidia_dali_cuda120": "2.4", "nvidia_dali_cuda130": "2.4"}, "fault", "two builds"),
    ],
)
def test_dali_missing_or_twice(monkeypatch, found, state, word):
    versions(monkeypatch, **found)
    (finding,) = doctor.dali()
    assert (finding.state, word in finding.text) == (state, True)


def test_triton_of_another_torch(monkeypatch):
    monkeypatch.setitem(
        sys.modules, "torch", SimpleNamespace(__version__="2.11.0", cuda=SimpleNamespace(is_available=lambda: True))
    )
    versions(monkeypatch, triton="3.8.0")
    assert states(doctor.triton()) == {"Triton": "warning"}
    versions(monkeypatch, triton="3.6.1")
    assert states(doctor.triton()) == {"Triton": "ok"}
    versions(monkeypatch)
    assert states(doctor.triton()) == {"Triton": "fault"}


@pytest.mark.parametrize(("driver", "state"), [("535.1", "fault"), (None, "ok")])
def test_a_driver_that_torch_cannot_use_is_a_fault(monkeypatch, driver, state):
    cuda = SimpleNamespace(is_available=lambda: False)
    fake = SimpleNamespace(__version__="2.14.1", cuda=cuda, version=SimpleNamespace(cuda="13.0"))
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(doctor, "driver_version", lambda: driver)
    assert states(doctor.torch_and_driver()) == {"torch": state}


def test_pypis_apex_is_told_from_nvidias(monkeypatch):
    known = {"apex"}
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: name in known or None)
    assert states(doctor.apex()) == {"Apex": "warning"}
    known.add("apex.optimizers")
    assert states(doctor.apex()) == {"Apex": "ok"}
    known.clear()
    assert states(doctor.apex()) == {"Apex": "ok"}


def test_a_check_that_raises_is_a_fault_of_its_own(monkeypatch):
    def broken():
        raise OSError("libcuda.so.1: cannot open")
        yield

    monkeypatch.setattr(doctor, "dali", broken)
    found = {finding.about: finding for finding in doctor.check_machine()}
    assert "libcuda.so.1" in found["broken"].text
    assert "reinstall" in found["broken"].remedy
    assert "cores" in found


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert states(doctor.check_disk(tmp_path / "run")) == {"disk": "fault"}

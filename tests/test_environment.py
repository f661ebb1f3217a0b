# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The report on an installation, and the cure of torchaudio. Broken libraries are made up in a temporary folder."""

import subprocess
import sys

import pytest

from freeze_omni_hf import environment
from freeze_omni_hf.environment import Requirement, check_environment, read_requirements


BROKEN_TORCHAUDIO = """
import glob, os
if glob.glob(os.path.join(os.path.dirname(__file__), "lib", "*.so")):
    raise OSError("Could not load this library: _torchaudio.abi3.so")
"""
FAKE_TORCH = """
class cuda:
    device_count = staticmethod(lambda: 1)
    get_device_name = staticmethod(lambda index: "Fake 100")
class backends:
    class mps:
        is_available = staticmethod(lambda: False)
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder first on the import path, here and in child processes, with a fake torch."""
    monkeypatch.syspath_prepend(str(tmp_path))
    # The command looks for libraries before anything is imported.
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "torch.py").write_text(FAKE_TORCH)
    for name in ("torchaudio", "soundfile", "torchcodec"):
        (tmp_path / f"{name}.py").write_text("")
    return tmp_path


@pytest.fixture
def broken_torchaudio(site):
    (site / "torchaudio.py").unlink()
    (site / "torchaudio" / "lib").mkdir(parents=True)
    (site / "torchaudio" / "__init__.py").write_text(BROKEN_TORCHAUDIO)
    for name in ("_torchaudio.abi3.so", "libtorchaudio.abi3.so", "__init__.py"):
        (site / "torchaudio" / "lib" / name).write_text("")
    return site / "torchaudio" / "lib"


def test_sound_installation(site):
    report = check_environment([Requirement("pytest", [(">=", "1")])])
    assert report.faults == []
    assert dict(report.lines)["devices"] == "cpu, cuda:0 (Fake 100)"
    assert "Nothing that is needed is broken." in str(report)


def test_broken_torchaudio_is_named_with_its_cure(broken_torchaudio):
    report = check_environment([Requirement("pytest", [])])
    assert report.torchaudio_broken
    assert len(report.faults) == 1
    assert "_torchaudio.abi3.so" in report.faults[0] and "freeze-omni env --fix" in report.faults[0]


def test_fix_removes_only_native_libraries(broken_torchaudio, monkeypatch, capsys):
    monkeypatch.setattr(environment, "read_requirements", lambda: [Requirement("pytest", [])])
    assert environment.main() == 1
    assert len(list(broken_torchaudio.iterdir())) == 3
    assert environment.main(fix=True) == 0
    assert [file.name for file in broken_torchaudio.glob("*.*")] == ["__init__.py"]
    assert "removed from" in capsys.readouterr().out


def test_fix_leaves_a_sound_torchaudio_alone(broken_torchaudio, monkeypatch, capsys):
    monkeypatch.setattr(environment, "read_requirements", lambda: [Requirement("pytest", [])])
    (broken_torchaudio.parent / "__init__.py").write_text("")
    assert environment.main(fix=True) == 0
    assert (broken_torchaudio / "_torchaudio.abi3.so").exists()


def test_broken_torch_is_not_blamed_on_torchaudio(broken_torchaudio, site):
    (site / "torch.py").write_text("raise ImportError('libfoo')")
    report = check_environment([Requirement("pytest", [])])
    assert not report.torchaudio_broken
    assert any(fault.startswith("torch cannot be imported (ImportError: libfoo)") for fault in report.faults)


def test_a_crash_is_reported_and_later_libraries_are_still_looked_at(site):
    (site / "torchaudio.py").write_text("import os; os._exit(11)")
    (site / "torchcodec.py").write_text("raise RuntimeError('wrong torch')")
    report = check_environment([Requirement("pytest", [])])
    assert report.faults == [
        "torchaudio cannot be imported (the interpreter ended with code 11). "
        "Run `pip install --force-reinstall torchaudio`."
    ]
    assert any("torchcodec cannot be loaded (RuntimeError: wrong torch)" in remark for remark in report.remarks)


def test_missing_and_old_libraries(site):
    report = check_environment(
        [
            Requirement("no-such-library", [(">=", "1")]),
            Requirement("no-such-extra", [], "demo"),
            Requirement("pytest", [("<", "2")]),
            Requirement("pluggy", [("<", "0.1")], "train"),
        ]
    )
    assert report.faults[0] == 'no-such-library is missing; run `pip install "no-such-library>=1"`.'
    assert report.faults[1].endswith('does not fit; run `pip install "pytest<2"`.')
    assert len(report.faults) == 2
    remarks = "\n".join(report.remarks)
    assert 'run `pip install "pluggy<0.1"`' in remarks
    assert '`pip install "freeze-omni-hf[demo]"` would add no-such-extra.' in remarks


def test_requirement_lines():
    lines = [
        "torch>=2.6",
        "evaluate<0.5,>=0.4.6 ; extra == 'eval'",
        'jiwer>=4; extra == "eval"',
        "ruff; extra == 'dev'",
    ]
    torch, evaluate, jiwer = read_requirements(lines)
    assert torch == Requirement("torch", [(">=", "2.6")])
    assert (evaluate.extra, jiwer.extra) == ("eval", "eval")
    assert evaluate.admits("0.4.6") and not evaluate.admits("0.5.0") and not evaluate.admits("0.4.5")


@pytest.mark.parametrize(
    ("version", "admitted"),
    [("2.6.0", True), ("2.13.0+cpu", True), ("2.5.9", False), ("3.0.0.dev1", False), ("2.10.0rc1", True)],
)
def test_bounds_are_numbers_not_text(version, admitted):
    assert Requirement("torch", [(">=", "2.6"), ("<", "3")]).admits(version) is admitted


def test_own_requirements_are_read():
    names = [requirement.name for requirement in read_requirements() if requirement.extra is None]
    assert {"torch", "torchaudio", "transformers"} <= set(names)


def test_command_works_where_transformers_cannot_be_imported(broken_torchaudio, site):
    (site / "transformers.py").write_text("raise OSError('transformers was imported')")
    command = [sys.executable, "-m", "freeze_omni_cli", "env"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    assert "BROKEN: torchaudio's native libraries cannot be loaded" in run.stdout
    assert run.stderr == ""

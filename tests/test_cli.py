# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Arguments of the command, its exit codes, and its errors in one line."""

import subprocess
import sys
import types

import pytest

from freeze_omni_hf import cli


@pytest.fixture
def talk(monkeypatch):
    """A stand-in for the talk module; ``talk.run`` may be replaced."""
    module = types.ModuleType("freeze_omni_hf.talk")
    module.calls = []
    module.run = module.calls.append
    monkeypatch.setitem(sys.modules, "freeze_omni_hf.talk", module)
    return module


def test_talk_arguments(talk):
    command = (
        "talk q.wav -o a.wav --model m --llm l --max-new-tokens 7 --greedy --text-only --device cpu --dtype float32"
    )
    assert cli.main([*command.split(), "--system-prompt", "Be brief."]) == 0
    args = talk.calls[0]
    assert (args.audio, args.output, args.model, args.llm) == ("q.wav", "a.wav", "m", "l")
    assert (args.max_new_tokens, args.greedy, args.text_only) == (7, True, True)
    assert (args.device, args.dtype, args.system_prompt) == ("cpu", "float32", "Be brief.")


def test_talk_defaults(talk):
    assert cli.main(["talk", "q.wav"]) == 0
    args = talk.calls[0]
    assert (args.output, args.model, args.llm, args.max_new_tokens, args.device) == ("answer.wav", *[None] * 4)
    assert (args.greedy, args.text_only, args.dtype) == (False, False, "auto")


def test_convert_arguments(monkeypatch):
    module = types.ModuleType("freeze_omni_hf.conversion.convert")
    module.run = lambda args: (
        0 if (args.checkpoints, args.llm, args.output, args.force) == ("c", "l", "o", True) else 9
    )
    monkeypatch.setitem(sys.modules, "freeze_omni_hf.conversion.convert", module)
    assert cli.main(["convert", "c", "--llm", "l", "--output", "o", "--force"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["sing"], "invalid choice: 'sing'"),
        (["talk"], "audio"),
        (["talk", "q.wav", "--max-new-tokens", "0"], "'0' is not a positive number"),
        (["talk", "q.wav", "--max-new-tokens", "many"], "'many' is not a positive number"),
        (["talk", "q.wav", "--dtype", "int4"], "invalid choice: 'int4'"),
        (["convert", "c", "--output", "o"], "--llm"),
    ],
)
def test_wrong_arguments_exit_with_2_and_say_what(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("bad size"), FileNotFoundError("no q.wav"), ImportError("no gguf")])
def test_expected_errors_are_one_line(talk, capsys, error):
    def run(args):
        raise error

    talk.run = run
    assert cli.main(["talk", "q.wav"]) == 1
    assert capsys.readouterr().err == f"error: {error}\n"
    assert cli.main(["talk", "q.wav", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_programming_errors_are_not_hidden(talk):
    def run(args):
        raise KeyError("a bug")

    talk.run = run
    with pytest.raises(KeyError):
        cli.main(["talk", "q.wav"])


def test_exit_code_of_the_job_is_kept(talk):
    talk.run = lambda args: 3
    assert cli.main(["talk", "q.wav"]) == 3


def test_a_job_that_cannot_be_imported_points_to_env(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "freeze_omni_hf.talk", None)
    assert cli.main(["talk", "q.wav"]) == 1
    message = capsys.readouterr().err
    assert "freeze_omni_hf.talk cannot be imported" in message and "freeze-omni env" in message


def test_help_imports_nothing_heavy():
    code = (
        "import sys, freeze_omni_cli\n"
        "sys.argv = ['freeze-omni', '--help']\n"
        "try:\n    freeze_omni_cli.main()\n"
        "except SystemExit:\n    print({'torch', 'transformers', 'numpy', 'freeze_omni_hf'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("set()\n")
    assert "talk" in run.stdout and "convert" in run.stdout and "env" in run.stdout

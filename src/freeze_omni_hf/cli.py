# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The ``freeze-omni`` command: one sub-command a job. Only the standard library is imported until a job starts.

Run as: freeze-omni talk question.wav -o answer.wav
"""

import argparse
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path


DTYPES = ("float32", "bfloat16", "float16")


def build_parser() -> argparse.ArgumentParser:
    """The parser with all sub-commands; ``args.run`` is the function to call."""
    parser = argparse.ArgumentParser(
        prog="freeze-omni", description="Speech-to-speech dialogue with a frozen language model."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")

    talk = commands.add_parser("talk", parents=[common], help="answer a spoken question with text and speech")
    talk.add_argument("audio", help="the question: an audio file of any sampling rate")
    talk.add_argument("-o", "--output", default="answer.wav", help="where the answer goes (default: %(default)s)")
    talk.add_argument("--model", help="folder or Hub id of the model (default: the embedded checkpoint)")
    talk.add_argument("--llm", help="folder or Hub id of the frozen LLM (default: the one that the model names)")
    talk.add_argument("--system-prompt", help="system prompt of the conversation")
    talk.add_argument("--max-new-tokens", type=_positive, help="longest answer, in text tokens")
    talk.add_argument("--greedy", action="store_true", help="always take the likeliest text token")
    talk.add_argument("--text-only", action="store_true", help="answer with text alone; no file is written")
    talk.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    talk.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="numbers to compute with")
    talk.set_defaults(run=_job("freeze_omni_hf.talk"))

    convert = commands.add_parser(
        "convert", parents=[common], help="turn the released checkpoint into a Hugging Face folder"
    )
    convert.add_argument("checkpoints", help="folder with the released files (audiollm, codec, decoder)")
    convert.add_argument("--llm", required=True, help="folder or Hub id of the LLM it was trained with")
    convert.add_argument("-o", "--output", required=True, help="folder to write")
    convert.add_argument(
        "--dtype", choices=("keep", *DTYPES), default="keep", help="type of the weights (default: keep)"
    )
    convert.add_argument("--force", action="store_true", help="overwrite a folder that is not empty")
    convert.set_defaults(run=_job("freeze_omni_hf.conversion.convert"))

    evaluate = commands.add_parser("eval", parents=[common], help="measure what a checkpoint hears and how it answers")
    evaluate.add_argument("checkpoint", nargs="?", help="folder or Hub id (default: the embedded checkpoint)")
    evaluate.add_argument("--llm", help="folder or Hub id of the frozen LLM (default: the one that the model names)")
    evaluate.add_argument("--suite", help="YAML file of data sets (default: those of training/prepare_data.py)")
    evaluate.add_argument("--only", nargs="+", metavar="SET", help="only these sets of the suite")
    evaluate.add_argument("--limit", type=_positive, help="first rows of each set only")
    evaluate.add_argument(
        "--ways", nargs="+", choices=("search", "read_out", "transcribe"),
        help="how transcripts are made: off the vectors of an adapter with a gate (then the default), through the LLM",
    )  # fmt: skip
    evaluate.add_argument("--batch-size", type=_positive, default=16, help="rows at a time (default: %(default)s)")
    evaluate.add_argument("-o", "--output", help="folder for figures.json, rows.jsonl, table.md and figures.png")
    evaluate.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    evaluate.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="numbers to compute with")
    evaluate.set_defaults(run=_job("freeze_omni_hf.evaluation.run"))

    judge = commands.add_parser("judge", parents=[common], help="measure how well a voice can be understood")
    judge.add_argument("checkpoint", nargs="?", help="folder or Hub id (default: the embedded checkpoint)")
    judge.add_argument("--codec", help="judge this codec alone")
    judge.add_argument("--llm", help="folder or Hub id of the frozen LLM (default: the one that the model names)")
    judge.add_argument("--data", help="folder of test sentences and answers (default: of training/prepare_data.py)")
    judge.add_argument(
        "--judges", nargs="+", choices=("whisper-base", "pocketsphinx"), default=["whisper-base"],
        help="recognisers (default: whisper-base)",
    )  # fmt: skip
    judge.add_argument(
        "--top-k", nargs="+", type=_positive, default=[2], help="speech tokens to choose from (default: 2)"
    )
    judge.add_argument(
        "--policies", nargs="+", choices=("sentence", "short_first"),
        help="ways of cutting answers into pieces (default: the model's own)",
    )  # fmt: skip
    judge.add_argument("--limit", type=_positive, default=120, help="first rows only (default: %(default)s)")
    judge.add_argument("-o", "--output", help="folder for speaking.json, speaking.jsonl, speaking.md and speaking.png")
    judge.set_defaults(run=_job("freeze_omni_hf.evaluation.speaking"))

    env = commands.add_parser("env", parents=[common], help="show versions and devices, and name what is broken")
    env.add_argument("--fix", action="store_true", help="remove torchaudio's native libraries where they cannot load")
    env.set_defaults(run=_show_environment)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 1 after an error, 2 after wrong arguments."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError) as error:
        if args.debug:
            traceback.print_exc()
        else:
            print(f"error: {_one_line(error)}", file=sys.stderr)
        return 1


def _job(module: str):
    """A function that imports ``module``, heavy as it may be, and calls its ``run(args)``."""

    def run(args: argparse.Namespace) -> int | None:
        try:
            imported = importlib.import_module(module)
        except Exception as error:
            raise ImportError(
                f"{module} cannot be imported: {_one_line(error)}\n`freeze-omni env` names what is broken."
            ) from error
        return imported.run(args)

    return run


def _show_environment(args: argparse.Namespace) -> int:
    path = Path(__file__).with_name("environment.py")
    spec = importlib.util.spec_from_file_location("_freeze_omni_environment", path)
    environment = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = environment  # dataclasses look their module up
    spec.loader.exec_module(environment)
    return environment.main(fix=args.fix)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _one_line(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Makes the data of the embedded model: spoken sentences and questions, the LLM's own answers, and the model's voice.

Run as: python training/prepare_data.py --install-voices        (once; apt-get needs root)
        python training/prepare_data.py                         (resumes; all cores)
        python training/prepare_data.py --minutes 30            (stops cleanly; run again to go on)
        python training/prepare_data.py --num-shards 4 --shard-index 0      (one of four nodes, one folder)

The recipe (training/data/embedded.yaml) says who says what and in which order. The result are Parquet files under
`data/embedded` in the cache: {asr,qa}/{train,dev,test}-*.parquet for hearing, asr/human-*.parquet, and
speech/{train,dev,test}-*.parquet for speaking.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from freeze_omni_hf.llm_store import DEFAULT_LLM, cache_dir
from freeze_omni_hf.training.answers import AnswerError, answer_questions, text_accuracy
from freeze_omni_hf.training.plan import PlanError, Recipe, Shard, check_held_out
from freeze_omni_hf.training.shards import (
    ShardError,
    check_space,
    make_shard,
    shard_state,
    summarise,
    summary_table,
    write_json,
)
from freeze_omni_hf.training.texts import TextError, select_questions
from freeze_omni_hf.training.voices import INSTALL_HINT, VoiceError, VoiceMissingError, Voices, install_voices


RECIPE = Path(__file__).parent / "data" / "embedded.yaml"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="recipe (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="folder of the data (default: data/embedded in the cache)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    parser.add_argument("--minutes", type=float, help="stop after this time, with the shards in the making finished")
    parser.add_argument("--num-shards", type=int, default=1, help="number of nodes that share the work")
    parser.add_argument("--shard-index", type=int, default=0, help="which of them this is, from 0")
    parser.add_argument("--only", nargs="+", metavar="TASK/SPLIT-NAME", help="only these groups, e.g. asr/test-flite")
    parser.add_argument("--llm", default=DEFAULT_LLM, help="LLM whose answers are imitated (default: %(default)s)")
    parser.add_argument("--skip-missing", action="store_true", help="go on without voices that are not installed")
    parser.add_argument("--remake", action="store_true", help="replace shards that another recipe has left")
    parser.add_argument("--list", action="store_true", help="show what is done and what is left, and end")
    parser.add_argument("--install-voices", action="store_true", help="install voices and texts, and end")
    options = parser.parse_args(arguments)
    if options.workers < 1 or not 0 <= options.shard_index < options.num_shards:
        parser.error("--workers must be 1 or more, and --shard-index from 0 to below --num-shards.")
    options.output = options.output or cache_dir() / "data" / "embedded"
    return options


def main(arguments: list[str] | None = None) -> int:
    """Makes what is left of the data; returns the exit code: 0 done or stopped in time, 1 error, 130 interrupted."""
    options = parse_arguments(arguments)
    if options.install_voices:
        failed = install_voices()
        print("\n".join(["Not installed; run by hand:", *failed]) if failed else "All voices are installed.")
        return 1 if failed else 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    try:
        return Job(options).run()
    except (PlanError, TextError, VoiceError, AnswerError, ShardError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print("error: a worker ended (out of memory?). Finished shards are kept; run again to go on.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. Finished shards are kept; run again to go on.", file=sys.stderr)
        return 130


class Job:
    """One run: what this node has to make, in the recipe's order."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.root = options.output
        self.deadline = time.monotonic() + 60 * options.minutes if options.minutes else None
        self.recipe = Recipe(options.recipe)
        self.groups = self.share_of_node()

    def share_of_node(self) -> list[tuple[dict, list[Shard]]]:
        """Every entry of the recipe with the shards that are this node's."""
        groups, number = [], 0
        for group in self.recipe.groups:
            mine = []
            for shard in self.recipe.shards(group):
                if number % self.options.num_shards == self.options.shard_index:
                    mine.append(shard)
                number += 1
            if not self.options.only or group_name(group) in self.options.only or not group.get("split"):
                groups.append((group, mine))
        unknown = set(self.options.only or ()) - {group_name(group) for group in self.recipe.groups}
        if unknown:
            known = ", ".join(group_name(group) for group in self.recipe.groups if group.get("split"))
            raise PlanError(
                f"There is no group {', '.join(sorted(unknown))} in {self.recipe.file}; known are {known}."
            )
        return groups

    def run(self) -> int:
        held_out = check_held_out(self.recipe)
        print("Held out: " + ", ".join(f"{count} {kind}" for kind, count in held_out.items()) + ".", flush=True)
        shards = [shard for _, mine in self.groups for shard in mine]
        states = {shard.key: shard_state(self.root, shard) for shard in shards}
        if self.options.list:
            self.show(states)
            return 0
        stale = [key for key, state in states.items() if state == "other"]
        if stale and not self.options.remake:
            raise PlanError(
                f"{len(stale)} shards in {self.root} were made from another recipe or other texts, the first is "
                f"{stale[0]}. Give --remake to replace them, or another folder with --output."
            )
        skipped = self.check_voices(states)
        left = {key for key, state in states.items() if state != "done"} - skipped
        rows = sum(len(shard.rows) for shard in shards if shard.key in left)
        check_space(self.root, rows)
        total = sum(len(shard.rows) for shard in shards) - sum(len(s.rows) for s in shards if s.key in skipped)
        with tqdm(total=total, initial=total - rows, unit="row", smoothing=0.02, mininterval=5) as bar:
            answers: dict[str, dict] = {}
            for group, mine in self.groups:
                todo = [shard for shard in mine if shard.key in left]
                bar.set_description(group_name(group))
                if group["task"] == "answers":
                    answers = self.answers()
                elif todo and not self.out_of_time():
                    self.make(todo, answers, bar)
        self.finish(skipped)
        return 0

    def show(self, states: dict[str, str]) -> None:
        for group, mine in self.groups:
            count = Counter(states[shard.key] for shard in mine)
            if mine:
                rows = sum(len(shard.rows) for shard in mine)
                print(f"{group_name(group):20} {rows:6} rows, {count['done']} of {len(mine)} shards done")

    def check_voices(self, states: dict[str, str]) -> set[str]:
        """Keys of shards that are left out because a voice is missing.

        Raises:
            VoiceMissingError: a voice is missing and --skip-missing was not given.
        """
        voices, missing, skipped = Voices(), {}, set()
        for _, mine in self.groups:
            for shard in mine:
                for speaker in {row.speaker for row in shard.rows if row.file is None}:
                    if speaker not in missing:
                        missing[speaker] = voices.missing(speaker)
                    if missing[speaker] and states[shard.key] != "done":
                        skipped.add(shard.key)
        reasons = sorted({reason for reason in missing.values() if reason})
        if skipped and not self.options.skip_missing:
            raise VoiceMissingError(" ".join(reasons) + " Or leave its shards out with --skip-missing.")
        for reason in reasons:
            print(f"warning: {reason} {len(skipped)} shards are left out.", file=sys.stderr)
        return skipped

    def answers(self) -> dict[str, dict]:
        """The LLM's answers to every question of this node's shards, and how many of the test set are right."""
        wanted = {row.text for _, mine in self.groups for shard in mine if shard.needs_answers for row in shard.rows}
        name = f"answers-{self.options.shard_index:02d}-of-{self.options.num_shards:02d}.jsonl"
        with tqdm(total=len(wanted), unit="answer", leave=False, mininterval=5) as bar:
            known = answer_questions(
                wanted, self.root / "answers" / name, self.options.llm, progress=bar.update, stop=self.out_of_time
            )
        for split in ("dev", "test"):
            questions = [(q.text, q.answers) for q in select_questions(self.recipe.questions, split)]
            chosen = [pair for pair in questions if pair[0] in wanted]
            right, asked = text_accuracy(chosen, known)
            if asked:
                print(f"\nThe LLM reads {asked} {split} questions and answers {right} right: {right / asked:.1%}.")
        return known

    def make(self, shards: list[Shard], answers: dict[str, dict], bar: tqdm) -> None:
        """Makes shards on all workers; after the deadline no further one is begun."""
        for shard, report in run_shards(
            shards, self.root, answers, self.options.workers, bar.update, self.out_of_time
        ):
            if report["errors"]:
                bar.write(f"{shard.key}: {len(report['errors'])} rows failed, the first: {report['errors'][0]}")

    def out_of_time(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def finish(self, skipped: set[str]) -> None:
        summary = summarise(self.root)
        write_json(self.root / f"summary-{self.options.shard_index:02d}.json", summary)
        print(summary_table(summary))
        for error in summary["errors"][:20]:
            print(f"failed: {error['id']}: {error['error']}")
        left = [s.key for _, mine in self.groups for s in mine if shard_state(self.root, s) != "done"]
        print(
            f"{len(summary['errors'])} rows failed. {len(left)} shards are left, {len(skipped)} without their voice."
        )
        if skipped:
            print(f"{INSTALL_HINT}, and run again.")


def group_name(group: dict) -> str:
    """ "asr/test-flite" for an entry of the recipe, "answers" for that entry."""
    return f"{group['task']}/{group['split']}-{group['name']}" if group.get("split") else str(group.get("task"))


def answers_of(shard: Shard, answers: dict[str, dict]) -> dict[str, dict]:
    return {row.text: answers[row.text] for row in shard.rows if row.text in answers} if shard.needs_answers else {}


def run_shards(
    shards: list[Shard],
    root: Path,
    answers: dict[str, dict],
    workers: int,
    progress: Callable[[int], object],
    stop: Callable[[], bool],
) -> Iterator[tuple[Shard, dict]]:
    """Makes shards in this process or in several, and gives each with its report as it is finished.

    A shard of questions is only begun when all of them are answered.
    """
    ready = [
        shard for shard in shards if not shard.needs_answers or len(answers_of(shard, answers)) == len(unique(shard))
    ]
    if workers == 1:
        voices = Voices()
        try:
            for shard in ready:
                if stop():
                    return
                yield shard, make_shard(root, shard, voices, answers_of(shard, answers), progress)
        finally:
            voices.close()
        return
    context = multiprocessing.get_context("spawn")
    counter = context.Value("l", 0)
    seen, waiting, running = 0, list(reversed(ready)), {}
    pool = ProcessPoolExecutor(min(workers, len(ready)) or 1, context, initializer=_begin, initargs=(counter,))
    try:
        while waiting or running:
            while waiting and len(running) < workers and not stop():
                shard = waiting.pop()
                running[pool.submit(_work, root, shard, answers_of(shard, answers))] = shard
            if not running:
                return
            done = wait(running, timeout=1, return_when=FIRST_COMPLETED).done
            progress(counter.value - seen)
            seen = counter.value
            for future in done:
                yield running.pop(future), future.result()
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=not running, cancel_futures=True)
        for process in processes if running else ():
            process.terminate()  # a shard in the making is lost anyway; its partial file is removed by the worker


def unique(shard: Shard) -> set[str]:
    return {row.text for row in shard.rows}


def _begin(counter) -> None:
    """Sets up a worker: ends in order when told to, one thread each."""
    global _counter
    _counter = counter
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(root: Path, shard: Shard, answers: dict[str, dict]) -> dict:
    def progress(rows: int) -> None:
        with _counter.get_lock():
            _counter.value += rows

    return make_shard(root, shard, answers=answers, progress=progress)


if __name__ == "__main__":
    sys.exit(main())

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""From a recipe to the rows of every shard: who says what, how fast and how high, decided before anything is made.

A plan is a function of the recipe and the texts alone. So any node can make any shard, and a shard that is made
again is the same.
"""

import hashlib
import json
import random
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import yaml

from .texts import (
    SPLITS,
    Question,
    TextError,
    load_questions,
    name_sentences,
    normalise,
    select_questions,
    split_sentences,
    table_sentences,
    wordnet_definitions,
    wordnet_names,
    wordnet_sentences,
)


HUMAN_FOLDER = Path("/usr/share/pocketsphinx/test/data")
HUMAN_HINT = "Install them with `apt-get install pocketsphinx-testdata`."


class PlanError(ValueError):
    """A recipe that cannot be followed. The message names the place and the cure."""


@dataclass(frozen=True)
class Utterance:
    """One row that is to be made.

    Attributes:
        id: Unique in the whole recipe.
        text: What is said.
        speaker: ``synthesizer/voice``, or ``human/...``.
        speed, pitch: As for `Synthesizer.speak`.
        answers: Accepted answers of a question.
        file: The recording, for a human speaker.
        answered: What is said is not the text but the LLM's answer to it.
    """

    id: str
    text: str
    speaker: str
    speed: float = 1.0
    pitch: float = 1.0
    answers: tuple[str, ...] = ()
    file: str | None = None
    answered: bool = False


@dataclass(frozen=True)
class Shard:
    """A file of rows: ``<task>/<split>-<name>-<index>.parquet``."""

    task: str
    split: str
    name: str
    index: int
    rows: tuple[Utterance, ...]

    @property
    def key(self) -> str:
        """Its name in reports and messages."""
        return f"{self.task}/{self.split}-{self.name}-{self.index:05d}"

    @property
    def needs_answers(self) -> bool:
        """Whether the LLM is asked before it can be made."""
        return self.task == "qa" or any(row.answered for row in self.rows)

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes the rows."""
        values = [asdict(row) for row in self.rows]
        for row in values:
            if not row["answered"]:  # shards from before there was such a thing stay what they were
                del row["answered"]
        rows = json.dumps(values, ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(rows.encode()).hexdigest()[:16]


class Recipe:
    """A recipe's YAML file, and the texts and splits that follow from it.

    Args:
        file: The YAML file; paths in it are relative to its folder.
        sentences, names, definitions: Other ones than WordNet's, for tests.

    Raises:
        PlanError: the file is not there, is no YAML, or lacks a part.
    """

    def __init__(
        self,
        file: str | Path,
        sentences: list[str] | None = None,
        names: list[str] | None = None,
        definitions: list[str] | None = None,
    ):
        self.file = Path(file)
        try:
            self.settings = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"The recipe {file} cannot be read: {error.strerror}.") from error
        except yaml.YAMLError as error:
            raise PlanError(f"The recipe {file} is not valid YAML: {error}") from error
        needed = ("seed", "questions", "held_out", "voices", "groups")
        lacking = [key for key in needed if key not in (self.settings or {})]
        if lacking:
            raise PlanError(f"The recipe {file} lacks {', '.join(lacking)}.")
        self.seed = int(self.settings["seed"])
        self.voices: dict[str, dict[str, dict[str, float]]] = self.settings["voices"]
        self.groups: list[dict] = self.settings["groups"]
        self._given_sentences, self._given_names, self._given_definitions = sentences, names, definitions

    @property
    def table(self) -> Path:
        """The fact table."""
        return self.file.parent / self.settings["questions"]

    def _fact_split(self) -> dict:
        held_out = self.settings["held_out"]
        return {"seed": self.seed, "dev": held_out["dev_facts"], "test": held_out["test_facts"]}

    @cached_property
    def questions(self) -> list[Question]:
        """All questions, each with its split."""
        return load_questions(self.table, **self._fact_split())

    @cached_property
    def sentences(self) -> dict[str, list[str]]:
        """Sentences for recognition by split; those of training without any that is held out as a question."""
        given = wordnet_sentences() if self._given_sentences is None else self._given_sentences
        most = {split: self._most_rows("asr", split) for split in ("dev", "test")}
        splits = split_sentences(given, most, self.settings["held_out"]["sentences"], self.seed)
        forms = table_sentences(self.table, int(self.settings.get("spoken_forms", 0)), **self._fact_split())
        held = {normalise(question.text) for question in self.questions if question.split != "train"}
        held |= {normalise(text) for split in ("dev", "test") for text in splits[split]}
        splits["train"] = [text for text in splits["train"] + forms if normalise(text) not in held]
        return splits

    @cached_property
    def names(self) -> list[str]:
        """Sentences of WordNet's nouns and names, where the recipe asks for them; for training alone."""
        if not self._asks_for("names"):
            return []
        names = wordnet_names() if self._given_names is None else self._given_names
        return self._without_held_out(name_sentences(names, self.seed))

    @cached_property
    def definitions(self) -> list[str]:
        """WordNet's definitions, where the recipe asks for them; for training alone."""
        if not self._asks_for("definitions"):
            return []
        return self._without_held_out(
            wordnet_definitions() if self._given_definitions is None else self._given_definitions
        )

    def _asks_for(self, texts: str) -> bool:
        return any(group.get("texts") == texts for group in self.groups)

    def _without_held_out(self, texts: list[str]) -> list[str]:
        held = {normalise(text) for split in ("dev", "test") for text in self.sentences[split]}
        held |= {normalise(question.text) for question in self.questions if question.split != "train"}
        return [text for text in texts if normalise(text) not in held]

    def _most_rows(self, task: str, split: str) -> int:
        rows = [group.get("rows") or 0 for group in self.groups if self._is(group, task, split)]
        return max(rows, default=0)

    @staticmethod
    def _is(group: dict, task: str, split: str) -> bool:
        return group.get("task") == task and group.get("split") == split

    def shards(self, group: dict) -> list[Shard]:
        """The shards of one entry of `groups`; none for the entry ``answers``.

        Raises:
            PlanError: an unknown task, split or set of voices, or no texts.
        """
        task, split, name = (group.get(key) for key in ("task", "split", "name"))
        if task == "answers":
            return []
        if task not in ("asr", "qa", "speech") or split not in (*SPLITS, "human") or not name:
            raise PlanError(f"{self.file}: {group} needs a task (asr, qa, speech, answers), a split and a name.")
        rows = human_clips() if split == "human" else self._utterances(group, task, split, name)
        size = int(group.get("shard_rows", 1000))
        pieces = [tuple(rows[start : start + size]) for start in range(0, len(rows), size)]
        return [Shard(task, split, name, index, piece) for index, piece in enumerate(pieces)]

    def _utterances(self, group: dict, task: str, split: str, name: str) -> list[Utterance]:
        # Hearing holds voices out by split and names a group after them; speaking has one voice for everything.
        side, who = ("speech", group.get("voice")) if task == "speech" else (split, name)
        voices = self.voices.get(side, {}).get(who)
        if not voices:
            raise PlanError(f"{self.file}: there are no voices {who!r} for {side}; add voices.{side}.{who}.")
        answered = group.get("texts") == "answers"
        if task == "qa" or answered:
            texts = [(q.text, tuple(q.answers)) for q in select_questions(self.questions, split, group.get("rows"))]
        elif (kind := group.get("texts", "sentences")) in ("names", "definitions"):
            if split != "train":
                raise PlanError(f"{self.file}: the texts `{kind}` are for training, not for {split}.")
            texts = [(text, ()) for text in getattr(self, kind)]
        else:
            texts = [(text, ()) for text in self.sentences[split]]
        if not texts:
            raise PlanError(f"{self.file}: there are no texts for {task} {split}.")
        rows = []
        for number in range(len(texts) if group.get("rows") is None else int(group["rows"])):
            turn, place = divmod(number, len(texts))
            if place == 0:
                # Training sets are shuffled, so that a job that was stopped leaves a fair sample of them.
                order = list(range(len(texts)))
                if split == "train":
                    random.Random(f"{self.seed}/{task}/{name}/{turn}").shuffle(order)
            elif split != "train" and turn:
                break
            rng = random.Random(f"{self.seed}/{task}/{split}/{name}/{number}")
            text, answers = texts[order[place]]
            if split == "train":
                speaker = rng.choices(list(voices), list(voices.values()))[0]
            else:
                speaker = list(voices)[number % len(voices)]
            speed, pitch = (round(rng.uniform(*group.get(key, (1.0, 1.0))), 3) for key in ("speed", "pitch"))
            name_of_row = f"{task}-{split}-{name}-{number:06d}"
            rows.append(Utterance(name_of_row, text, speaker, speed, pitch, answers, answered=answered))
        return rows


def human_clips(folder: str | Path | None = None) -> list[Utterance]:
    """Recordings of people with their transcripts, from Debian's ``pocketsphinx-testdata``; [] if not installed."""
    folder = Path(folder) if folder else HUMAN_FOLDER
    rows = []
    for part, transcripts in (("librivox", "transcription"), ("cards", "cards.transcription")):
        file = folder / part / transcripts
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            text, _, stem = line.strip().rstrip(")").rpartition("(")
            audio = folder / part / f"{stem}.wav"
            text = text.replace("<s>", "").replace("</s>", "").strip()
            if audio.is_file() and text:
                rows.append(Utterance(f"human-{part}-{stem}", text, f"human/{part}", file=str(audio)))
    return rows


def check_held_out(recipe: Recipe) -> dict[str, int]:
    """Makes sure that nothing held out is in training: no voice, no sentence, no question, no fact.

    Returns:
        How many voices, sentences, questions and facts are held out.

    Raises:
        PlanError: names what is on both sides.
    """
    sides = {"voice": ({}, {}), "text": ({}, {}), "fact": ({}, {})}
    for split, groups in recipe.voices.items():
        for voices in groups.values():
            sides["voice"][split != "train"].update(dict.fromkeys(voices, split))
    texts = {split: list(rows) for split, rows in recipe.sentences.items()}
    texts["train"] += recipe.names + recipe.definitions
    for question in recipe.questions:
        texts[question.split].append(question.text)
        sides["fact"][question.split != "train"][question.fact] = question.split
    for split, rows in texts.items():
        sides["text"][split != "train"].update({normalise(text): split for text in rows})
    for kind, (train, held) in sides.items():
        both = sorted(set(train) & set(held))
        if both:
            raise PlanError(f"{recipe.file}: held out, yet in training: {kind} {', '.join(map(repr, both[:5]))}.")
    for split in ("dev", "test"):
        if split in recipe.voices and not any(recipe.voices[split].values()):
            raise PlanError(f"{recipe.file}: no voice is held out for {split}.")
    people = {frozenset(("flite/slt", "festival/slt_hts"))}  # one speaker, two programs
    for person in people:
        if person & set(sides["voice"][0]) and person & set(sides["voice"][1]):
            raise PlanError(f"{recipe.file}: {', '.join(sorted(person))} are one speaker and must be on one side.")
    return {
        "voices": len(sides["voice"][1]),
        "sentences": sum(len(recipe.sentences[split]) for split in ("dev", "test")),
        "questions": sum(question.split != "train" for question in recipe.questions),
        "facts": len(sides["fact"][1]),
    }


__all__ = ["PlanError", "Recipe", "Shard", "TextError", "Utterance", "check_held_out", "human_clips"]

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What the Space does without a page: loads models and answers questions as a generator of events."""

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Lock
from time import perf_counter
from typing import Any

import numpy as np
import texts
import torch
from transformers import PreTrainedConfig, TextStreamer

from freeze_omni_hf import (
    AudioStreamer,
    FreezeOmniForConditionalGeneration,
    FreezeOmniProcessor,
    embedded_checkpoint,
    generate_in_thread,
)
from freeze_omni_hf.processing import AudioError, AudioTooLongError, load_audio


logger = logging.getLogger(__name__)

MAX_SECONDS = 30.0
MIN_SECONDS = 0.1
SILENT_RMS = 1e-3  # -60 dB of full scale
MAX_TURNS = 10  # a conversation's older turns are not read again


class SpaceError(Exception):
    """Something that the visitor can understand and mend; the message is shown as it is."""


@dataclass(frozen=True)
class Settings:
    """How an answer is made; the names are those of ``generate``."""

    system_prompt: str = ""
    greedy: bool = True
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    max_new_tokens: int = 128
    speech_top_k: int = 1
    speech_temperature: float = 1.0
    segment_policy: str = "short_first"

    @classmethod
    def of_model(cls, model: FreezeOmniForConditionalGeneration) -> "Settings":
        """What the model's own generation config says."""
        own, base = model.generation_config, cls()
        samples_speech = own.do_sample if own.speech_do_sample is None else own.speech_do_sample
        return cls(
            greedy=not own.do_sample,
            temperature=own.temperature or base.temperature,
            top_k=base.top_k if own.top_k is None else own.top_k,
            top_p=own.top_p or base.top_p,
            max_new_tokens=own.max_new_tokens or base.max_new_tokens,
            speech_top_k=own.speech_top_k if samples_speech else 1,
            speech_temperature=own.speech_temperature,
            segment_policy=own.segment_policy,
        )

    def generate_kwargs(self, speaks: bool) -> dict[str, Any]:
        """Arguments of ``generate``."""
        kwargs: dict[str, Any] = {"do_sample": not self.greedy, "max_new_tokens": int(self.max_new_tokens)}
        if not self.greedy:
            kwargs |= {"temperature": self.temperature, "top_k": int(self.top_k), "top_p": self.top_p}
        if speaks:
            kwargs |= {
                "segment_policy": self.segment_policy,
                "speech_do_sample": self.speech_top_k > 1,
                "speech_top_k": int(self.speech_top_k),
                "speech_temperature": self.speech_temperature,
            }
        return kwargs | {"generation_mode": "audio" if speaks else "text"}


@dataclass
class Turn:
    """A question and its answer.

    Attributes:
        question: Path of its sound.
        text: Of the answer.
        sound: Path of the answer's sound.
        note: What the model does not read.
        heard: The words of the question, where the model names them; later turns read them in the place of the sound.
    """

    question: str
    text: str = ""
    sound: str | None = None
    note: str = ""
    heard: str = ""


@dataclass
class Progress:
    """More of an answer: new text, and new mono float32 samples or None."""

    text: str = ""
    sound: np.ndarray | None = None


@dataclass
class Answer:
    """A finished answer, with the seconds of each part and what was heard."""

    text: str
    sound: np.ndarray
    sampling_rate: int
    timings: dict[str, float] = field(default_factory=dict)
    heard: str = ""


@dataclass
class LoadedModel:
    """A model that can be asked."""

    name: str
    model: FreezeOmniForConditionalGeneration
    processor: FreezeOmniProcessor

    @property
    def speaks(self) -> bool:
        return self.model.config.has_voice

    @property
    def settings(self) -> Settings:
        return Settings.of_model(self.model)

    def describe(self) -> str:
        """One line for the page."""
        return texts.IN_USE.format(
            name=self.name,
            millions=sum(parameter.numel() for parameter in self.model.parameters()) / 1e6,
            device=str(self.model.device).upper(),
            voice="" if self.speaks else texts.TEXT_ONLY,
        )


class Engine:
    """Loads models, keeps the most recent ones, and answers.

    Args:
        capacity: Models that are kept.
        device: Where they run; CUDA if there is one by default.
    """

    def __init__(self, capacity: int = 2, device: str | None = None):
        self.capacity = capacity
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._models: OrderedDict[tuple[str, str], LoadedModel] = OrderedDict()
        self._lock = Lock()

    def load(self, name: str = "", llm: str = "") -> LoadedModel:
        """A model by folder or Hub id, from memory if it was used lately.

        Args:
            name: Checkpoint; the embedded one if empty.
            llm: Frozen LLM; the one that the checkpoint names if empty.

        Raises:
            SpaceError: it cannot be loaded.
        """
        key = (name.strip(), llm.strip())
        with self._lock:
            if key not in self._models:
                loaded = self._load(*key)
                while len(self._models) >= self.capacity:
                    self._models.popitem(last=False)
                self._models[key] = loaded
            self._models.move_to_end(key)
            return self._models[key]

    def _load(self, name: str, llm: str) -> LoadedModel:
        try:
            place = os.path.expanduser(name) if name else str(embedded_checkpoint())
            # No Hub id begins like a path or has two slashes.
            if (place.startswith((".", "/")) or place.count("/") > 1) and not Path(place).is_dir():
                raise ValueError(texts.NO_FOLDER)
            found = PreTrainedConfig.get_config_dict(place)[0].get("model_type")
            if found != FreezeOmniForConditionalGeneration.config_class.model_type:
                raise ValueError(texts.NOT_OURS.format(found=found))
            model = FreezeOmniForConditionalGeneration.from_pretrained(place, language_model=llm or None)
            model.to(self.device).eval()
            processor = FreezeOmniProcessor.from_pretrained(place)
        except Exception as error:  # whatever a folder of a stranger leads to must not end the Space
            logger.warning("Loading %s failed", name or "the embedded model", exc_info=True)
            raise SpaceError(
                texts.NOT_LOADED.format(name=name or "embedded in the package", reason=_one_line(error))
            ) from error
        return LoadedModel(name or Path(place).name, model, processor)

    def answer(self, loaded: LoadedModel, turns: list[Turn], question: str, settings: Settings) -> Iterator[Any]:
        """Answer a question in a conversation.

        Closing the generator stops the model at its next token.

        Args:
            loaded: From `load`.
            turns: The conversation before.
            question: Path of the question's sound.
            settings: How to answer.

        Yields:
            `Progress` as text and sound are made, then one `Answer`.

        Raises:
            SpaceError: the question cannot be used, or generation fails.
        """
        start = perf_counter()
        read_question(question, loaded.processor.feature_extractor.sampling_rate)
        if not all(Path(turn.question).is_file() for turn in turns[-MAX_TURNS:]):
            raise SpaceError(texts.GONE)
        try:
            inputs = loaded.processor.apply_chat_template(
                as_messages(turns[-MAX_TURNS:], question, settings.system_prompt),
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                add_generation_prompt=True,
            ).to(loaded.model.device)
        except (OSError, ValueError) as error:
            raise SpaceError(texts.FAILED.format(reason=_one_line(error))) from error
        features = perf_counter() - start

        feed: Queue = Queue()
        stop = Event()
        tokenizer = loaded.processor.tokenizer

        def work() -> Any:
            try:
                return loaded.model.generate(
                    **inputs,
                    **settings.generate_kwargs(loaded.speaks),
                    tokenizer=tokenizer,
                    streamer=_TextFeed(tokenizer, feed, stop),
                    audio_streamer=_SoundFeed(feed, stop) if loaded.speaks else None,
                    return_dict_in_generate=True,
                )
            finally:
                feed.put(None)

        thread = generate_in_thread(work)
        text, sounds = "", []
        try:
            for progress in _progress_of(feed):
                text += progress.text
                if progress.sound is not None:
                    sounds.append(progress.sound)
                yield progress
            output = thread.result()
        except torch.OutOfMemoryError as error:
            raise SpaceError(texts.FAILED.format(reason=texts.OUT_OF_MEMORY)) from error
        except (RuntimeError, ValueError) as error:
            logger.warning("Answering failed", exc_info=True)
            raise SpaceError(texts.FAILED.format(reason=_one_line(error))) from error
        finally:
            stop.set()
            thread.join()  # the next question must not share the model with this one
        heard = tokenizer.decode(output.heard[0][-1].token_ids).strip() if output.heard else ""
        timings = {"features": features, **output.timings}
        yield Answer(text.strip(), joined(sounds), sound_rate(loaded), timings, heard)


class Line:
    """Who is being answered or waits for it: one question a visitor, ``limit`` visitors."""

    def __init__(self, limit: int):
        self.limit = limit
        self._tickets: dict[str, int] = {}
        self._stopped: set[int] = set()
        self._numbers = count()
        self._lock = Lock()

    def enter(self, visitor: str) -> int:
        """Take a place; returns its ticket.

        Raises:
            SpaceError: the line is full, or the visitor is in it already.
        """
        with self._lock:
            if visitor in self._tickets:
                raise SpaceError(texts.STILL_ANSWERING)
            if len(self._tickets) >= self.limit:
                raise SpaceError(texts.BUSY.format(count=len(self._tickets)))
            self._tickets[visitor] = next(self._numbers)
            return self._tickets[visitor]

    def leave(self, visitor: str, ticket: int | None = None) -> None:
        """Give the place back, whatever the ticket or only with this one; an answer that still runs is for nobody."""
        with self._lock:
            if ticket is None or self._tickets.get(visitor) == ticket:
                self._stopped.discard(self._tickets.pop(visitor, -1))

    def stop(self, visitor: str) -> None:
        """Ask for the end of the visitor's answer."""
        with self._lock:
            if visitor in self._tickets:
                self._stopped.add(self._tickets[visitor])

    def holds(self, visitor: str, ticket: int) -> bool:
        """Whether somebody still waits for what this ticket gets."""
        with self._lock:
            return self._tickets.get(visitor) == ticket

    def goes_on(self, visitor: str, ticket: int) -> bool:
        """Whether the answer should go on."""
        with self._lock:
            return self._tickets.get(visitor) == ticket and ticket not in self._stopped


def read_question(path: str | None, sampling_rate: int) -> np.ndarray:
    """The question's mono samples.

    Raises:
        SpaceError: there is no file, it cannot be read, or nobody speaks in it for between 0.1 and 30 seconds.
    """
    if not path or not Path(path).is_file():
        raise SpaceError(texts.NO_AUDIO)
    try:
        samples = load_audio(path, sampling_rate=sampling_rate, max_seconds=MAX_SECONDS)
    except AudioTooLongError as error:
        raise SpaceError(texts.TOO_LONG.format(limit=MAX_SECONDS)) from error
    except AudioError as error:
        logger.info("Unreadable: %s", error)  # with the server's own path, which is not for the page
        raise SpaceError(texts.UNREADABLE) from error
    seconds = len(samples) / sampling_rate
    if seconds < MIN_SECONDS:
        raise SpaceError(texts.TOO_SHORT.format(seconds=seconds))
    if np.sqrt(np.mean(np.square(samples, dtype=np.float64))) < SILENT_RMS:
        raise SpaceError(texts.SILENCE)
    return samples


def as_messages(turns: list[Turn], question: str, system_prompt: str = "") -> list[dict[str, Any]]:
    """A conversation and its next question for the chat template."""
    messages: list[dict[str, Any]] = []
    if system_prompt.strip():
        messages.append({"role": "system", "content": system_prompt.strip()})
    for turn in turns:
        messages.append({"role": "user", "content": turn.heard} if turn.heard else _question(turn.question))
        messages.append({"role": "assistant", "content": turn.text})
    return [*messages, _question(question)]


def joined(sounds: list[np.ndarray]) -> np.ndarray:
    """Pieces of sound as one; empty for none."""
    return np.concatenate([np.zeros(0, dtype=np.float32), *sounds])


def sound_rate(loaded: LoadedModel) -> int:
    """Samples a second of the answer's sound."""
    return loaded.processor.output_sampling_rate


def _question(path: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "audio", "path": path}]}


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _progress_of(feed: Queue) -> Iterator[Progress]:
    """What arrives until the closing None; what came while nobody looked is one `Progress`."""
    while True:
        items = [feed.get()]
        while items[-1] is not None:
            try:
                items.append(feed.get_nowait())
            except Empty:
                break
        text = "".join(item for item in items if isinstance(item, str))
        sounds = [item for item in items if isinstance(item, np.ndarray)]
        if text or sounds:
            yield Progress(text, joined(sounds) if sounds else None)
        if items[-1] is None:
            return


class _Stopped(RuntimeError):
    """Raised inside ``generate`` when nobody wants the answer any more."""


class _TextFeed(TextStreamer):
    def __init__(self, tokenizer: Any, feed: Queue, stop: Event):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.feed, self.stop = feed, stop

    def put(self, value: torch.Tensor) -> None:
        if self.stop.is_set():
            raise _Stopped
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.feed.put(text)


class _SoundFeed(AudioStreamer):
    def __init__(self, feed: Queue, stop: Event):
        super().__init__()
        self.feed, self.stop = feed, stop

    def put(self, samples: torch.Tensor, row: int = 0) -> None:
        if self.stop.is_set():
            raise _Stopped
        self.feed.put(samples.detach().float().cpu().numpy())

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Rows of the data contracts become padded batches; audio is decoded, augmented and turned into features here."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.letters import character_ids
from .augmentation import row_generator, spec_augment
from .data import DataError, RowReport, decode_row


Augment = Callable[[np.ndarray, np.random.Generator, list[np.ndarray]], np.ndarray]


def pad_rows(rows: list[list[int]], value: int) -> Tensor:
    """(B, longest) of lists of different length, padded at their end."""
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def generator_of(row: dict[str, Any], purpose: str, seed: int, epoch: int) -> np.random.Generator:
    """Random numbers of one row in an epoch, others for each purpose."""
    return row_generator(seed, epoch, zlib.crc32(f"{purpose}/{row.get('id')}".encode()))


class SoundCollator:
    """Reads and augments the sound of a batch of rows.

    A row that cannot be read is left out of its batch and noted in ``report``. What is drawn for a row depends on
    ``seed``, ``epoch`` and the row's id alone, so a resumed run draws what a straight one would have, whatever was
    fetched ahead; `StageTrainer` sets both.
    """

    augment: Augment | None
    max_seconds: float | None
    seed: int
    epoch: int
    report: RowReport

    @property
    def sampling_rate(self) -> int:
        """Samples per second of what the model takes."""
        raise NotImplementedError

    def read(self, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        """The rows that can be read, and their samples.

        Raises:
            DataError: none of the batch can be read.
        """
        decoded = [(row, decode_row(row, self.report, self.sampling_rate, self.max_seconds)) for row in rows]
        kept = [(row, wave) for row, wave in decoded if wave is not None]
        if not kept:
            raise DataError(f"No row of a whole batch can be read.\n{self.report}")
        rows, waves = [row for row, _ in kept], [wave for _, wave in kept]
        if self.augment is not None:
            waves = [
                self.augment(wave, self.generator(row, "sound"), waves[:place] + waves[place + 1 :])
                for place, (row, wave) in enumerate(zip(rows, waves, strict=True))
            ]
        return rows, waves

    def generator(self, row: dict[str, Any], purpose: str) -> np.random.Generator:
        """Random numbers of one row in this epoch."""
        return generator_of(row, purpose, self.seed, self.epoch)


@dataclass
class AudioCollator(SoundCollator):
    """Features of a batch of rows.

    Args:
        processor: The model's processor.
        augment: Changes samples in training (`Augmentation`); None leaves them alone.
        max_seconds: Longer audio is left out.
        seed, epoch, report: See `SoundCollator`.
    """

    processor: Any
    augment: Augment | None = None
    max_seconds: float | None = 30.0
    seed: int = 0
    epoch: int = 0
    report: RowReport = field(default_factory=RowReport)

    @property
    def sampling_rate(self) -> int:
        return self.processor.feature_extractor.sampling_rate

    def features(self, waves: list[np.ndarray]) -> dict[str, Tensor]:
        """Padded features of samples: the extractor's, up to rounding.

        A whole utterance at once, where the extractor goes chunk by chunk so that streaming gives the same bits.
        """
        extractor = self.processor.feature_extractor
        before, chunk = extractor.overlap_length, extractor.chunk_length
        rows = []
        for wave in waves:
            samples = torch.from_numpy(wave)
            after = extractor.trailing_samples
            after += -(len(samples) + after) % chunk
            rows.append(extractor.log_mels(F.pad(samples, (before, after))[None])[0])
        lengths = torch.tensor([len(row) for row in rows])
        features = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=extractor.padding_value)
        mask = torch.arange(features.shape[1]) < lengths[:, None]
        return {"input_features": features, "feature_attention_mask": mask.long()}


@dataclass
class TranscriptCollator(AudioCollator):
    """Audio and the LLM's token ids of its transcript, and its characters, for CTC (input 1).

    Args:
        spec_augment: Settings of `spec_augment`; None leaves features alone.
    """

    spec_augment: dict | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        rows, waves = self.read(rows)
        batch = self.features(waves)
        if self.spec_augment is not None:
            lengths = batch["feature_attention_mask"].sum(dim=1).tolist()
            for row, features, real in zip(rows, batch["input_features"], lengths, strict=True):
                draws = self.generator(row, "features")
                features[:real] = spec_augment(features[:real], draws, **self.spec_augment)
        texts = [row["text"] for row in rows]
        batch["labels"] = pad_rows(self.processor.tokenizer(texts, add_special_tokens=False)["input_ids"], -100)
        batch["character_labels"] = pad_rows([character_ids(text) for text in texts], -100)
        return batch


@dataclass
class ConversationCollator(AudioCollator):
    """Spoken user turn and the text to be said after it, through the LLM (input 2 and 3).

    Args:
        target: What to predict: ``"text"`` (the transcript) or ``"answer"`` (the last assistant turn).
        task: Task whose embedding stands before the audio (``"transcribe"``), or None for the learned prompt.
        teacher: Also give the same conversation as text, for distillation.
    """

    target: str = "text"
    task: str | None = None
    teacher: bool = False

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        rows, waves = self.read(rows)
        rate = self.processor.feature_extractor.sampling_rate
        spoken = [
            self._chat(row, [{"type": "audio", "array": wave, "sampling_rate": rate}])
            for row, wave in zip(rows, waves, strict=True)
        ]
        settings = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "padding": False}
        answers = [self._answer(row) for row in rows]
        batch = self.processor.apply_chat_template(spoken, task=self.task, return_tensors=None, **settings)
        inputs = self._join(batch["input_ids"], answers)
        for name in ("input_features", "feature_attention_mask", "task_ids"):
            if name in batch:
                inputs[name] = _stack(batch[name])
        if self.teacher:
            written = [self._chat(row, row["text"]) for row in rows]
            text = self.processor.apply_chat_template(written, return_tensors=None, **settings)
            inputs.update({f"teacher_{name}": value for name, value in self._join(text["input_ids"], answers).items()})
        return inputs

    def _chat(self, row: dict[str, Any], question: Any) -> list[dict[str, Any]]:
        """The turns before the target; a system turn of the row stays, else the processor's own is put there."""
        turns = [{"role": "user", "content": question}]
        for message in row.get("messages") or () if self.target == "answer" else ():
            if message["role"] == "system":
                turns.insert(0, {"role": "system", "content": _text_of(message)})
        return turns

    def _answer(self, row: dict[str, Any]) -> list[int]:
        """Ids of the target; one that was cut off does not end with the end of the turn."""
        tokenizer = self.processor.tokenizer
        text = row["text"]
        if self.target == "answer":
            text = next(_text_of(turn) for turn in reversed(row["messages"]) if turn["role"] == "assistant")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        cut = self.target == "answer" and row.get("finished") is False
        return ids if cut else [*ids, tokenizer.eos_token_id]

    def _join(self, prompts: list[list[int]], answers: list[list[int]]) -> dict[str, Tensor]:
        """Prompt and answer, padded at the end; only the answer is supervised."""
        rows = [list(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)]
        labels = [[-100] * len(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)]
        return {
            "input_ids": pad_rows(rows, self.processor.pad_token_id),
            "attention_mask": pad_rows([[1] * len(row) for row in rows], 0),
            "labels": pad_rows(labels, -100),
        }


@dataclass
class CodecCollator(SoundCollator):
    """Samples at the codec's rate, in whole tokens, and the letters of what is said (output 1).

    Args:
        codec: The codec's configuration.
        augment: Changes samples in training; None leaves them alone.
        max_seconds: Longer audio is left out.
        crop_seconds: A longer row gives a piece of this length from anywhere in it, without letters; None: all of it.
        seed, epoch, report: See `SoundCollator`.
    """

    codec: Any
    augment: Augment | None = None
    max_seconds: float | None = 30.0
    crop_seconds: float | None = None
    seed: int = 0
    epoch: int = 0
    report: RowReport = field(default_factory=RowReport)

    @property
    def sampling_rate(self) -> int:
        return self.codec.sampling_rate

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        rows, waves = self.read(rows)
        letters = [character_ids(row.get("text") or "") for row in rows]
        if self.crop_seconds is not None:
            size = int(self.crop_seconds * self.sampling_rate)
            for place, (row, wave) in enumerate(zip(rows, waves, strict=True)):
                if len(wave) > size:
                    start = int(self.generator(row, "crop").integers(len(wave) - size + 1))
                    waves[place], letters[place] = wave[start : start + size], []
        token = self.codec.samples_per_token
        lengths = [max(len(wave) // token, 1) * token for wave in waves]
        values, mask = torch.zeros(len(waves), max(lengths)), torch.zeros(len(waves), max(lengths), dtype=torch.long)
        for place, (wave, length) in enumerate(zip(waves, lengths, strict=True)):
            values[place, : min(len(wave), length)] = torch.from_numpy(wave[:length])
            mask[place, :length] = 1
        return {
            "input_values": values,
            "padding_mask": mask,
            "labels": pad_rows([row or [-100] for row in letters], -100),
        }


def _text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] or "" for part in content)


def _stack(values: Any) -> Tensor:
    return torch.as_tensor(np.stack([np.asarray(value) for value in values]))


__all__ = ["AudioCollator", "CodecCollator", "ConversationCollator", "SoundCollator", "TranscriptCollator", "pad_rows"]

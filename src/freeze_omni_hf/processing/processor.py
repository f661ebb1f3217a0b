# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Conversations of text and sound become padded batches for the model, its answers become text and sound files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import PaddingStrategy, logging

from ..configuration import FreezeOmniConfig
from .audio import AudioSource, is_waveform, load_audio, save_audio
from .feature_extraction import FreezeOmniFeatureExtractor


logger = logging.get_logger(__name__)

TASKS = ("sot", "transcribe", "translate", "zh", "en", "audio", "/audio", "hyps", "/hyps")
"""Names of the rows of the task embedding table, in order."""

AUDIO_KEYS = ("audio", "array", "raw", "bytes", "path", "url")
CALL_KEYS = ("sampling_rate", "task", "padding", "padding_side", "max_length", "pad_to_multiple_of")
Conversation = list[dict[str, Any]]


class FreezeOmniProcessor(ProcessorMixin):
    """Feature extractor and tokenizer as one.

    Each ``audio_token`` in a text stands for one audio and is expanded to as many placeholders as the model makes
    vectors of it: the learned prompt (or the task embedding) and 12.5 vectors a second. The audio token is added to
    the tokenizer as a special token where it is missing; its id may lie behind the LLM's vocabulary, the model never
    looks it up. Set ``config.audio_token_id = processor.audio_token_id``.

    Args:
        feature_extractor: `FreezeOmniFeatureExtractor`.
        tokenizer: The LLM's tokenizer. Chat template, end-of-turn token and special ids are its own.
        chat_template: Jinja template instead of the tokenizer's. Message contents reach it as strings.
        audio_token: Marker of an audio in a text.
        prompt_length: Learned prompt vectors before each audio.
        subsampling_factor: Frames per vector of the speech encoder.
        adapter_stride: Encoder vectors per vector of the adapter.
        output_sampling_rate: Rate of the model's sound in Hz.
        default_system_prompt: System text of conversations without a system turn; None leaves it to the template.
    """

    def __init__(
        self,
        feature_extractor: FreezeOmniFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | dict[str, str] | None = None,
        audio_token: str = "<|audio|>",
        prompt_length: int = 25,
        subsampling_factor: int = 4,
        adapter_stride: int = 2,
        output_sampling_rate: int = 24000,
        default_system_prompt: str | None = None,
    ):
        if chat_template is None:
            chat_template = getattr(tokenizer, "chat_template", None)
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)
        self.audio_token = audio_token
        self.prompt_length = prompt_length
        self.subsampling_factor = subsampling_factor
        self.adapter_stride = adapter_stride
        self.output_sampling_rate = output_sampling_rate
        self.default_system_prompt = default_system_prompt
        tokenizer.add_tokens([AddedToken(audio_token, normalized=False, special=True)], special_tokens=True)
        self.audio_token_id = tokenizer.convert_tokens_to_ids(audio_token)

    @classmethod
    def from_model_config(
        cls, config: FreezeOmniConfig, tokenizer: PreTrainedTokenizerBase, **kwargs
    ) -> "FreezeOmniProcessor":
        """A processor that fits a model.

        Args:
            config: The model's configuration.
            tokenizer: The LLM's tokenizer; the audio token is added to it.
            kwargs: ``max_seconds``, ``feature_type`` and ``trailing_silence`` for the feature extractor; others go to
                the processor. An encoder with Whisper's subsampling reads its features.
        """
        encoder = config.speech_encoder_config
        names = ("max_seconds", "feature_type", "trailing_silence")
        extractor_kwargs = {name: kwargs.pop(name) for name in names if name in kwargs}
        extractor_kwargs.setdefault("feature_type", "whisper" if encoder.subsampling == "conv1d" else "kaldi")
        feature_extractor = FreezeOmniFeatureExtractor(
            feature_size=encoder.num_mel_bins, chunk_frames=encoder.chunk_frames, **extractor_kwargs
        )
        settings = {
            "prompt_length": config.prompt_length,
            "subsampling_factor": encoder.subsampling_factor,
            "adapter_stride": config.adapter_config.stride,
            "output_sampling_rate": 24000 if config.codec_config is None else config.codec_config.sampling_rate,
        }
        return cls(feature_extractor, tokenizer, **{**settings, **kwargs})

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", *self.feature_extractor.model_input_names, "task_ids"]

    @property
    def pad_token_id(self) -> int:
        """The id on the padding's left: the tokenizer's, or its end-of-sequence id (the mask hides it either way)."""
        for token_id in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token_id is not None:
                return token_id
        return 0

    def num_audio_vectors(
        self, num_samples: int | None = None, num_frames: int | None = None, task: str | int | None = None
    ) -> int:
        """Placeholders of one audio: learned prompt (or one task embedding) and the adapter's vectors.

        Args:
            num_samples: Length of the audio at the feature extractor's rate; or
            num_frames: its frames.
            task: As in `__call__`.

        Raises:
            ValueError: both lengths or none given.
        """
        if (num_samples is None) == (num_frames is None):
            raise ValueError("Give either num_samples or num_frames.")
        if num_frames is None:
            num_frames = self.feature_extractor.num_frames(num_samples)
        lead = self.prompt_length if task is None else 1
        return lead + -(-(num_frames // self.subsampling_factor) // self.adapter_stride)

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        audio: AudioSource | Sequence[AudioSource] | None = None,
        images: None = None,
        videos: None = None,
        sampling_rate: int | None = None,
        task: str | int | Sequence[str | int] | None = None,
        padding: bool | str = True,
        padding_side: str = "left",
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = "pt",
        **kwargs,
    ) -> BatchFeature:
        """Turn texts with audio markers, and their audio, into model inputs.

        Args:
            text: One text or a batch. None gives features alone.
            audio: One source or a list (also nested, one list a text), in the order of the markers in the whole
                batch; whatever `load_audio` reads.
            images: Must be None; named because transformers' pipelines pass it.
            videos: Likewise.
            sampling_rate: Rate of bare arrays in Hz. None takes them at the feature extractor's rate.
            task: Task of all audio, or one a audio: a name of ``TASKS`` or a row of the task embedding table. The
                task embedding then stands in the place of the learned prompt.
            padding: True or ``"longest"``, ``"max_length"``, or False.
            padding_side: ``"left"`` for generation, ``"right"`` for training.
            max_length: Ids to pad to with ``padding="max_length"``, placeholders included.
            pad_to_multiple_of: Round the padded length up.
            return_tensors: ``"pt"``, ``"np"``, or None for ids as lists and features as arrays.
            kwargs: For the tokenizer.

        Returns:
            ``input_ids`` and ``attention_mask`` (B, S); with audio ``input_features`` (A, T, num_mel_bins) and
            ``feature_attention_mask`` (A, T); with ``task`` also ``task_ids`` (A,).

        Raises:
            AudioError: audio that cannot be used.
            ValueError: not as many audios as markers, an unknown task, images, or nothing at all.
        """
        if images is not None or videos is not None:
            raise ValueError("Freeze-Omni takes text and audio; images and videos must be None.")
        if text is None and audio is None:
            raise ValueError("Give text, audio or both.")
        sound = self._audio_inputs(audio, sampling_rate, task, return_tensors)
        if text is None:
            return sound
        texts = [text] if isinstance(text, str) else list(text)
        if not texts or not all(isinstance(item, str) for item in texts):
            raise ValueError("text must be a string or a list of strings, and not empty.")
        if kwargs.get("truncation"):
            if sound:
                raise ValueError("truncation would cut audio placeholders off; shorten the text or the audio instead.")
            kwargs["max_length"] = max_length
        encoded = self.tokenizer(texts, padding=False, **kwargs)
        padding_settings = (padding, padding_side, max_length, pad_to_multiple_of)
        return self._join(encoded, sound, task, padding_settings, return_tensors)

    def apply_chat_template(
        self,
        conversation: Conversation | list[Conversation],
        chat_template: str | None = None,
        tools: list | None = None,
        documents: list | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: str | None = "pt",
        return_dict: bool = False,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs,
    ) -> "str | list[str] | BatchFeature | Tensor":
        """Render conversations with the LLM's chat template and, with ``tokenize``, make model inputs of them.

        A message's content is a string or a list of ``{"type": "text", "text": ...}`` and ``{"type": "audio", ...}``;
        the latter holds one of ``audio``, ``array``, ``raw``, ``bytes``, ``path``, ``url`` and, for an array,
        ``sampling_rate``. Of the assistant's turns only the text is used: the model reads its own answers, it does
        not hear them.

        Args:
            conversation: One conversation or a batch.
            chat_template: A template, or the name of one of several, instead of the processor's.
            tools: For templates that know tools.
            documents: For templates that know documents.
            add_generation_prompt: Open the assistant's turn at the end.
            continue_final_message: Leave the last turn open, to be continued.
            return_assistant_tokens_mask: Also return ``assistant_masks`` (B, S), 1 on the assistant's tokens; the
                template must mark them with ``{% generation %}``.
            tokenize: Make model inputs; otherwise return the rendered text with one marker an audio.
            return_tensors: As in `__call__`.
            return_dict: Return all inputs; otherwise ``input_ids`` alone.
            processor_kwargs: Settings of `__call__`: ``task``, ``sampling_rate``, ``padding``, ``padding_side``, …
            kwargs: Those settings by name, or variables of the template.

        Returns:
            Text (a list for a batch), or what `__call__` returns.

        Raises:
            AudioError: audio that cannot be used.
            ValueError: no template, content of another type, or an audio without its source.
        """
        settings = {**(processor_kwargs or {}), **{key: kwargs.pop(key) for key in CALL_KEYS if key in kwargs}}
        batched = len(conversation) > 0 and not isinstance(conversation[0], dict)
        conversations = conversation if batched else [conversation]
        audio: list[AudioSource] = []
        rendered = [self._flatten(item, audio) for item in conversations]
        template_settings = {
            "chat_template": self._resolve_template(chat_template),
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            **kwargs,
        }
        if not tokenize:
            texts = self.tokenizer.apply_chat_template(rendered, tokenize=False, **template_settings)
            return texts if batched else texts[0]
        encoded = self.tokenizer.apply_chat_template(
            rendered,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=return_assistant_tokens_mask,
            **template_settings,
        )
        task = settings.get("task")
        sound = self._audio_inputs(audio or None, settings.get("sampling_rate"), task, return_tensors)
        padding_settings = (
            settings.get("padding", True),
            settings.get("padding_side", "left"),
            settings.get("max_length"),
            settings.get("pad_to_multiple_of"),
        )
        inputs = self._join(encoded, sound, task, padding_settings, return_tensors)
        return inputs if return_dict else inputs["input_ids"]

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = True, **kwargs) -> list[str]:
        """Texts of a batch of id sequences, without audio placeholders, ignored ids (-100) and special tokens."""
        drop = {self.audio_token_id, -100}
        rows = [[token for token in _to_list(row) if token not in drop] for row in sequences]
        return self.tokenizer.batch_decode(rows, skip_special_tokens=skip_special_tokens, **kwargs)

    def decode(self, token_ids: Any, skip_special_tokens: bool = True, **kwargs) -> str:
        """Text of one id sequence (or of a single id), as `batch_decode`."""
        token_ids = _to_list(token_ids)
        token_ids = [token_ids] if isinstance(token_ids, int) else token_ids
        return self.batch_decode([token_ids], skip_special_tokens, **kwargs)[0]

    def post_process_multimodal_output(
        self,
        generated_outputs: Any,
        skip_special_tokens: bool = True,
        generation_mode: str | None = None,
        **kwargs,
    ) -> list[str] | list[np.ndarray]:
        """Texts, or with ``generation_mode="audio"`` waveforms, of what ``generate`` returned.

        Args:
            generated_outputs: ``sequences``, ``(sequences, audio)``, or an output with both.
            skip_special_tokens: Leave special tokens out of the texts.
            generation_mode: None or ``"text"``, or ``"audio"``.
            kwargs: For `batch_decode`.

        Raises:
            ValueError: another mode, or no sound in the output.
        """
        sequences = getattr(generated_outputs, "sequences", generated_outputs)
        audio = getattr(generated_outputs, "audio", None)
        if isinstance(generated_outputs, tuple):
            sequences, audio = generated_outputs[:2]
        if generation_mode in (None, "text"):
            return self.batch_decode(sequences, skip_special_tokens, **kwargs)
        if generation_mode != "audio":
            raise ValueError(f"generation_mode={generation_mode!r} is unknown; choose 'text' or 'audio'.")
        if audio is None:
            raise ValueError("The output holds no sound. Generate it with generation_mode='audio'.")
        return [
            np.asarray(row.detach().float().cpu() if isinstance(row, Tensor) else row).reshape(-1) for row in audio
        ]

    def save_audio(self, audio: Any, path: Any, sampling_rate: int | None = None) -> "Path | list[Path]":
        """Write the model's sound; see `freeze_omni_hf.processing.save_audio`.

        Args:
            audio: One waveform or a batch.
            path: File name, or one a waveform; a single name for several waveforms is numbered.
            sampling_rate: In Hz; the model's output rate by default.
        """
        return save_audio(audio, path, sampling_rate or self.output_sampling_rate)

    # Preparation

    def _audio_inputs(
        self, audio: Any, sampling_rate: int | None, task: Any, return_tensors: str | None
    ) -> BatchFeature:
        if audio is None:
            return BatchFeature()
        extractor = self.feature_extractor
        if sampling_rate is None and any(map(is_waveform, _flat(audio))):
            logger.warning_once(
                f"An array comes without its sampling rate; it is taken as {extractor.sampling_rate} Hz. Give "
                "sampling_rate, so that another rate is resampled."
            )
        waveforms = [
            load_audio(item, extractor.sampling_rate, sampling_rate or extractor.sampling_rate, extractor.max_seconds)
            for item in _flat(audio)
        ]
        if not waveforms:
            return BatchFeature()
        sound = extractor(waveforms, sampling_rate=extractor.sampling_rate, return_tensors=return_tensors)
        if task is not None:
            task_ids = _task_ids(task, len(waveforms))
            sound["task_ids"] = {"pt": torch.tensor, "np": np.array}.get(return_tensors, list)(task_ids)
        return sound

    def _join(
        self, encoded: Any, sound: BatchFeature, task: Any, padding_settings: tuple, return_tensors: str | None
    ) -> BatchFeature:
        """Expand the markers to placeholders, pad, and put text and sound together."""
        masks = sound.get("feature_attention_mask", [])
        counts = [self.num_audio_vectors(num_frames=int(mask.sum()), task=task) for mask in masks]
        markers = sum(row.count(self.audio_token_id) for row in encoded["input_ids"])
        if markers != len(counts):
            raise ValueError(
                f"The text holds {markers} {self.audio_token} marker(s), but {len(counts)} audio(s) are given. Each "
                "marker stands for one audio, in order over the whole batch."
            )
        names = [name for name in ("input_ids", "attention_mask", "assistant_masks") if name in encoded]
        remaining = iter(counts)
        rows = []
        for index, ids in enumerate(encoded["input_ids"]):
            repeats = [next(remaining) if token == self.audio_token_id else 1 for token in ids]
            rows.append({name: _repeat(encoded[name][index], repeats) for name in names})
        padded = self._pad(rows, *padding_settings)
        text = BatchFeature({name: [row[name] for row in padded] for name in names}, tensor_type=return_tensors)
        return BatchFeature({**text, **sound})

    def _pad(
        self,
        rows: list[dict[str, list[int]]],
        padding: bool | str,
        padding_side: str,
        max_length: int | None,
        pad_to_multiple_of: int | None,
    ) -> list[dict[str, list[int]]]:
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side={padding_side!r} is unknown; choose 'left' or 'right'.")
        if padding in (False, None):
            strategy = PaddingStrategy.DO_NOT_PAD
        else:
            strategy = PaddingStrategy.LONGEST if padding is True else PaddingStrategy(padding)
        if strategy == PaddingStrategy.DO_NOT_PAD:
            return rows
        width = max(len(row["input_ids"]) for row in rows)
        if strategy == PaddingStrategy.MAX_LENGTH:
            if max_length is None or width > max_length:
                raise ValueError(
                    f"padding='max_length' with max_length={max_length}, but the longest row has {width} ids, audio "
                    "placeholders included. Give a max_length that holds it."
                )
            width = max_length
        if pad_to_multiple_of:
            width = -(-width // pad_to_multiple_of) * pad_to_multiple_of
        fill = {"input_ids": self.pad_token_id}
        padded = []
        for row in rows:
            missing = width - len(row["input_ids"])
            pads = {name: [fill.get(name, 0)] * missing for name in row}
            padded.append(
                {name: pads[name] + row[name] if padding_side == "left" else row[name] + pads[name] for name in row}
            )
        return padded

    # Chat

    def _resolve_template(self, chat_template: str | None) -> str:
        templates = self.chat_template
        if chat_template is not None:
            return templates.get(chat_template, chat_template) if isinstance(templates, dict) else chat_template
        if isinstance(templates, dict):
            if "default" not in templates:
                raise ValueError(
                    f"There are several chat templates, {sorted(templates)}, and none is 'default'. Name one with "
                    "chat_template=..."
                )
            return templates["default"]
        if templates is None:
            raise ValueError(
                f"There is no chat template: the tokenizer {self.tokenizer.name_or_path!r} brings none. Give one: "
                "FreezeOmniProcessor(..., chat_template=...) or processor.chat_template = ...; an instruction-tuned "
                "LLM has one in its tokenizer."
            )
        return templates

    def _flatten(self, conversation: Conversation, audio: list[AudioSource]) -> Conversation:
        """The conversation with contents as strings, markers where audio is; its sources are put into ``audio``."""
        if len(conversation) == 0:
            raise ValueError("The conversation is empty. Give at least one message with 'role' and 'content'.")
        messages = []
        for message in conversation:
            content = message.get("content")
            if isinstance(content, (list, tuple)):
                hears = message.get("role") != "assistant"
                content = "".join(self._flatten_part(part, hears, audio) for part in content)
            messages.append({**message, "content": content})
        if self.default_system_prompt is not None and all(item.get("role") != "system" for item in messages):
            messages.insert(0, {"role": "system", "content": self.default_system_prompt})
        return messages

    def _flatten_part(self, part: dict[str, Any] | str, hears: bool, audio: list[AudioSource]) -> str:
        if isinstance(part, str):
            return part
        kind = part.get("type")
        if kind == "text":
            return part["text"]
        if kind != "audio":
            raise ValueError(f"Content of type {kind!r} is not understood; Freeze-Omni takes 'text' and 'audio'.")
        if not hears:
            return ""
        given = [key for key in AUDIO_KEYS if part.get(key) is not None]
        if not given:
            raise ValueError(
                f"The audio content has the keys {sorted(part)}, but none of {list(AUDIO_KEYS)}. Add its source."
            )
        source = part[given[0]]
        if part.get("sampling_rate") is not None:
            source = {"audio": source, "sampling_rate": part["sampling_rate"]}
        audio.append(source)
        return self.audio_token


def _flat(audio: Any) -> list[AudioSource]:
    """One source, a list of them or nested lists as a flat list."""
    if isinstance(audio, (list, tuple)) and not (len(audio) > 0 and is_waveform(audio)):
        return [item for part in audio for item in _flat(part)]
    return [audio]


def _task_ids(task: str | int | Sequence[str | int], count: int) -> list[int]:
    tasks = [task] * count if isinstance(task, (str, int)) else list(task)
    if len(tasks) != count:
        raise ValueError(f"{len(tasks)} tasks are given for {count} audio(s). Give one task, or one an audio.")
    for item in tasks:
        if item not in TASKS and not (isinstance(item, int) and item >= 0):
            raise ValueError(f"task={item!r} is unknown; choose one of {list(TASKS)} or a row of the task table.")
    return [TASKS.index(item) if isinstance(item, str) else item for item in tasks]


def _repeat(values: list[int], repeats: list[int]) -> list[int]:
    return [value for value, times in zip(values, repeats, strict=True) for _ in range(times)]


def _to_list(ids: Any) -> Any:
    return ids.tolist() if isinstance(ids, (Tensor, np.ndarray)) else ids


__all__ = ["TASKS", "FreezeOmniProcessor"]

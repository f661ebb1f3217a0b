# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""``pipeline("speech-to-speech")``: a spoken question or a conversation in, text and sound out."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Pipeline


class SpeechToSpeechPipeline(Pipeline):
    """Answers speech with speech.

    Inputs, one or a list (or a generator, which gives an iterator):

    - a path, URL, bytes, file object, or a mono array at the feature extractor's rate;
    - ``{"array" or "raw": ..., "sampling_rate": ...}``;
    - a chat: a list of messages whose contents hold ``{"type": "audio", ...}`` and ``{"type": "text", ...}``.

    Each result is ``{"audio": float32 array, "sampling_rate": int, "text": str}``; with ``generation_mode="text"``
    ``audio`` is None. A model that listens by search (``hearing_beams``) adds ``"heard"``, what the last audio said.

    Example:

        >>> import freeze_omni_hf
        >>> from transformers import pipeline
        >>> pipe = pipeline("speech-to-speech")
        >>> answer = pipe("question.wav", system_prompt="Answer briefly.", generate_kwargs={"do_sample": False})
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False
    _pipeline_calls_generate = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError(
                "The checkpoint has no processor files: save them with processor.save_pretrained, or pass processor=."
            )

    def _sanitize_parameters(
        self,
        system_prompt: str | None = None,
        history: list[dict] | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        max_new_tokens: int | None = None,
        generation_mode: str | None = None,
        do_sample: bool | None = None,
        streamer: Any = None,
        audio_streamer: Any = None,
    ) -> tuple[dict, dict, dict]:
        preprocess = {"system_prompt": system_prompt, "history": history}
        forward = dict(generate_kwargs or {})
        direct = {
            "max_new_tokens": max_new_tokens,
            "generation_mode": generation_mode,
            "do_sample": do_sample,
            "streamer": streamer,
            "audio_streamer": audio_streamer,
        }
        for name, value in direct.items():
            if value is None:
                continue
            if name in forward:
                raise ValueError(f"{name} is given twice: directly and in generate_kwargs.")
            forward[name] = value
        return (
            {key: value for key, value in preprocess.items() if value is not None},
            {"generate_kwargs": forward} if forward else {},
            {},
        )

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **kwargs) -> dict | list[dict] | Iterator[dict]:
        """Answer ``inputs`` (see the class).

        Args:
            inputs: One input, a list or a generator of inputs.
            batch_size: Inputs that are answered at once.
            kwargs: ``system_prompt``; ``history``, messages before a plain audio input; ``generate_kwargs`` for
                ``generate``, of which ``max_new_tokens``, ``generation_mode``, ``do_sample``, ``streamer`` and
                ``audio_streamer`` can also be given directly.
        """
        preprocess, forward, postprocess = self._sanitize_parameters(**kwargs)
        preprocess = {**self._preprocess_params, **preprocess}
        merged = {**self._forward_params.get("generate_kwargs", {}), **forward.get("generate_kwargs", {})}
        size = batch_size or self._batch_size or 1

        def answer(batch: list[Any]) -> list[dict]:
            model_inputs = self.preprocess(batch, **preprocess)
            return self.postprocess(self.forward(model_inputs, generate_kwargs=merged), **postprocess)

        if _is_single(inputs):
            return answer([inputs])[0]
        batches = _batched(inputs, size)
        if isinstance(inputs, (list, tuple)):
            return [result for batch in batches for result in answer(batch)]
        return (result for batch in batches for result in answer(batch))

    def preprocess(
        self, inputs: list[Any], system_prompt: str | None = None, history: list[dict] | None = None
    ) -> Any:
        """Processor output of a list of inputs."""
        chats = [self._as_chat(item, system_prompt, history) for item in inputs]
        return self.processor.apply_chat_template(
            chats, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )

    def _as_chat(self, item: Any, system_prompt: str | None, history: list[dict] | None) -> list[dict]:
        if _is_chat(item):
            messages = list(getattr(item, "messages", item))
        else:
            if isinstance(item, np.ndarray) or hasattr(item, "detach"):
                item = {"array": item, "sampling_rate": self.processor.feature_extractor.sampling_rate}
            content = {"type": "audio", **item} if isinstance(item, dict) else {"type": "audio", "audio": item}
            messages = [*(history or []), {"role": "user", "content": [content]}]
        if system_prompt is not None:
            messages = [{"role": "system", "content": system_prompt}] + [m for m in messages if m["role"] != "system"]
        return messages

    def _forward(self, model_inputs: Any, generate_kwargs: dict[str, Any] | None = None) -> dict[str, Any]:
        kwargs = dict(generate_kwargs or {})
        kwargs.setdefault("tokenizer", self.processor.tokenizer)
        kwargs["return_dict_in_generate"] = True
        output = self.model.generate(**model_inputs, **kwargs)
        new = output.sequences[:, model_inputs["input_ids"].shape[1] :]
        return {"new": new, "audio": output.audio, "heard": output.heard}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict]:
        """One result a row."""
        texts = self.processor.batch_decode(model_outputs["new"], skip_special_tokens=True)
        audio = model_outputs["audio"] or [None] * len(texts)
        rate = self.processor.output_sampling_rate
        results = [
            {"audio": None if sound is None else sound.float().numpy(), "sampling_rate": rate, "text": text}
            for sound, text in zip(audio, texts, strict=True)
        ]
        for result, heard in zip(results, model_outputs["heard"] or (), strict=False):
            if heard:
                result["heard"] = self.processor.tokenizer.decode(heard[-1].token_ids).strip()
        return results

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Save model and processor, so that ``pipeline`` loads the folder again."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


def _is_chat(item: Any) -> bool:
    messages = getattr(item, "messages", item)
    return (
        isinstance(messages, (list, tuple))
        and bool(messages)
        and isinstance(messages[0], dict)
        and "role" in messages[0]
    )


def _is_single(inputs: Any) -> bool:
    if isinstance(inputs, (str, bytes, bytearray, os.PathLike, dict, np.ndarray)) or _is_chat(inputs):
        return True
    return hasattr(inputs, "read") or hasattr(inputs, "detach") or not isinstance(inputs, Iterable)


def _batched(inputs: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(inputs)
    while batch := list(islice(iterator, size)):
        yield batch


__all__ = ["SpeechToSpeechPipeline"]

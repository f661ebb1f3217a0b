# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What a model hears and how it answers, greedily and in batches.

Offline encoding under the chunk mask is the same computation as a stream of 160 ms chunks, so these are the figures of
live use too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..models import FreezeOmniForConditionalGeneration
from ..models.freeze_omni import FreezeOmniAudioOutput


Progress = Callable[[int], Any]


def _nothing(count: int) -> None:
    pass


def _batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def heard_tokens(model: FreezeOmniForConditionalGeneration, audio: FreezeOmniAudioOutput) -> list[list[int]]:
    """The LLM tokens in the vectors that the LLM reads; repetitions in neighbouring vectors removed.

    An adapter that mixes tokens says itself which is likeliest; of another it is the one whose embedding lies nearest
    (cosine).
    """
    table = None
    if audio.token_ids is None:
        table = F.normalize(model.get_input_embeddings().weight.float(), dim=-1)
    rows = []
    for row, (vectors, read) in enumerate(zip(audio.embeds.float(), audio.read_mask, strict=True)):
        places = read.nonzero().flatten().tolist()
        if table is None:
            tokens = audio.token_ids[row][read].tolist()
        else:
            tokens = (F.normalize(vectors[read], dim=-1) @ table.T).argmax(dim=-1).tolist()
        rows.append(
            [
                token
                for index, token in enumerate(tokens)
                if index == 0 or token != tokens[index - 1] or places[index] != places[index - 1] + 1
            ]
        )
    return rows


def _chats(waves: Sequence[np.ndarray], rate: int) -> list[list[dict]]:
    return [[{"role": "user", "content": [{"type": "audio", "array": wave, "sampling_rate": rate}]}] for wave in waves]


def _prompts(model: FreezeOmniForConditionalGeneration, processor: Any, chats: list, task: str | None = None) -> Any:
    """Padded inputs of ``generate`` for a batch of conversations."""
    inputs = processor.apply_chat_template(
        chats, tokenize=True, return_dict=True, add_generation_prompt=True, padding=True, task=task
    )
    return inputs.to(model.device)


@torch.inference_mode()
def _generate(
    model: FreezeOmniForConditionalGeneration,
    processor: Any,
    chats: list[list[dict]],
    task: str | None,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress,
) -> Iterator[tuple[str, list[int] | None]]:
    """Texts, and the tokens that a search heard."""
    for batch in _batched(chats, batch_size):
        inputs = _prompts(model, processor, batch, task)
        output = model.generate(
            **inputs,
            generation_mode="text",
            do_sample=False,
            max_new_tokens=max_new_tokens,
            return_dict_in_generate=True,
        )
        new = output.sequences[:, inputs["input_ids"].shape[1] :]
        texts = [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]
        heard = [row[0].token_ids for row in output.heard] if output.heard else [None] * len(texts)
        yield from zip(texts, heard, strict=True)
        progress(len(batch))


@torch.inference_mode()
def read_out(
    model: FreezeOmniForConditionalGeneration,
    processor: Any,
    waves: Sequence[np.ndarray],
    batch_size: int = 16,
    progress: Progress = _nothing,
) -> list[str]:
    """Transcripts read off the adapter's vectors, without the LLM.

    Args:
        waves: (samples,) arrays at the processor's rate.

    Raises:
        ValueError: the adapter has no gate, so it does not say which of its vectors are tokens.
    """
    if model.adapter.gate is None:
        raise ValueError("This adapter has no gate, so its vectors cannot be read out; transcribe through the LLM.")
    extractor = processor.feature_extractor
    texts = []
    for batch in _batched(waves, batch_size):
        inputs = extractor(batch, sampling_rate=extractor.sampling_rate, return_tensors="pt").to(model.device)
        audio = model.encode_audio(**inputs)
        tokens = heard_tokens(model, audio)
        texts += [text.strip() for text in processor.tokenizer.batch_decode(tokens)]
        progress(len(batch))
    return texts


@torch.inference_mode()
def search(
    model: FreezeOmniForConditionalGeneration,
    processor: Any,
    waves: Sequence[np.ndarray],
    batch_size: int = 16,
    progress: Progress = _nothing,
) -> list[str]:
    """Transcripts found by search among what the adapter hears and the LLM expects; see ``model.hear``."""
    texts = []
    for batch in _batched(_chats(waves, processor.feature_extractor.sampling_rate), batch_size):
        heard = model.hear(**_prompts(model, processor, batch))
        texts += [text.strip() for text in processor.tokenizer.batch_decode([row[0].token_ids for row in heard])]
        progress(len(batch))
    return texts


def transcribe(
    model: FreezeOmniForConditionalGeneration,
    processor: Any,
    waves: Sequence[np.ndarray],
    batch_size: int = 16,
    max_new_tokens: int = 60,
    progress: Progress = _nothing,
) -> list[str]:
    """Transcripts that the LLM writes behind the embedding of the transcription task (input stage 2)."""
    chats = _chats(waves, processor.feature_extractor.sampling_rate)
    pairs = _generate(model, processor, chats, "transcribe", max_new_tokens, batch_size, progress)
    return [text for text, _ in pairs]


def answer_speech(
    model: FreezeOmniForConditionalGeneration,
    processor: Any,
    waves: Sequence[np.ndarray],
    batch_size: int = 16,
    max_new_tokens: int = 40,
    progress: Progress = _nothing,
) -> tuple[list[str], list[str] | None]:
    """The LLM's answers to spoken questions, as text, and what a search heard (None where nothing is searched)."""
    chats = _chats(waves, processor.feature_extractor.sampling_rate)
    pairs = list(_generate(model, processor, chats, None, max_new_tokens, batch_size, progress))
    answers, heard = [text for text, _ in pairs], [tokens for _, tokens in pairs]
    if any(tokens is None for tokens in heard):
        return answers, None
    return answers, [text.strip() for text in processor.tokenizer.batch_decode(heard)]


def answer_text(
    model: FreezeOmniForConditionalGeneration,
    processor: Any,
    questions: Sequence[str],
    batch_size: int = 16,
    max_new_tokens: int = 40,
    progress: Progress = _nothing,
) -> list[str]:
    """The same LLM's answers to the same questions as text, under the same system prompt."""
    chats = [[{"role": "user", "content": question}] for question in questions]
    return [text for text, _ in _generate(model, processor, chats, None, max_new_tokens, batch_size, progress)]


__all__ = ["answer_speech", "answer_text", "heard_tokens", "read_out", "search", "transcribe"]

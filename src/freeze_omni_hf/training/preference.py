# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Preference tuning of the speech decoder: readings that a recogniser understands before readings that it does not.

Several sampled readings of what the LLM says are ranked by a speech recogniser; TRL's `DPOTrainer` (arXiv 2305.18290)
then raises the chance of the best over that of the worst.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from trl import DPOTrainer

from ..configuration import FreezeOmniSpeechDecoderConfig
from ..evaluation.metrics import error_rates
from ..generation.speech import SpeechTokenGenerator, SpokenSegment
from ..models import FreezeOmniForConditionalGeneration, FreezeOmniSpeechDecoder
from .collators import pad_rows


class _Backbone(nn.Module):
    """The decoder's states behind a sequence of speech tokens, in the shape of a causal LM's."""

    def __init__(self, decoder: FreezeOmniSpeechDecoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool = False, **inputs) -> BaseModelOutput:
        """
        Args:
            input_ids: (B, S) start, speech tokens, end; padded at the end.
            attention_mask: (B, S).
            inputs: ``text_embeds`` and others of `FreezeOmniSpeechDecoder.forward`.
        """
        end = self.decoder.config.eos_speech_token_id
        tokens = input_ids[:, 1:-1]
        said = attention_mask[:, 1:-1].bool() & (tokens != end)
        output = self.decoder(**inputs, labels=tokens.masked_fill(~said, -100), return_dict=True)
        # Behind the end nothing is predicted.
        return BaseModelOutput(F.pad(output.last_hidden_state, (0, 0, 0, 1)))


class FreezeOmniSpeechDecoderForCausalLM(PreTrainedModel):
    """A speech decoder as trainers of causal LMs know one: the next id of start, speech tokens and end.

    Args:
        decoder: It is shared, not copied.
    """

    config: FreezeOmniSpeechDecoderConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    def __init__(self, decoder: FreezeOmniSpeechDecoder):
        # Of its own: trainers write the ids of their tokenizer into it.
        super().__init__(copy.deepcopy(decoder.config))
        self.backbone = _Backbone(decoder)
        self.generation_config = GenerationConfig()

    def get_output_embeddings(self) -> nn.Module:
        return self.backbone.decoder.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs) -> Tensor:
        """(B, S, vocab) logits; arguments as of the backbone."""
        return self.backbone.decoder.head(self.backbone(input_ids, attention_mask, **inputs).last_hidden_state)


@torch.no_grad()
def sample_readings(
    model: FreezeOmniForConditionalGeneration, segments: Sequence[SpokenSegment], count: int, **settings: Any
) -> list[list[SpokenSegment]]:
    """Several sampled readings of each segment.

    Args:
        model: With a voice.
        segments: Pieces of answers with their hidden states, as ``generate`` returns them.
        count: Readings of each.
        settings: Of the generation, e.g. ``speech_top_k``, ``speech_temperature``.

    Returns:
        For each segment its readings, without those that were cut at their greatest length.
    """
    chosen = copy.deepcopy(model.generation_config)
    chosen.update(**settings)
    table = model.get_input_embeddings()
    generator = SpeechTokenGenerator(model.speech_decoder, lambda ids: table(ids), chosen, sample=True)
    readings = [
        [SpokenSegment(segment.row, segment.text, segment.text_ids, segment.hidden) for segment in segments]
        for _ in range(count)
    ]
    generator.speak([reading for again in readings for reading in again])
    return [
        [again[place] for again in readings if again[place].finish_reason == "end" and len(again[place].speech_tokens)]
        for place in range(len(segments))
    ]


def rank_readings(
    readings: Sequence[SpokenSegment], hear: Callable[[SpokenSegment], str], margin: float = 0.0
) -> dict[str, Any] | None:
    """The reading that is understood best and the one that is understood worst.

    Args:
        readings: Of one segment.
        hear: What a recogniser understands of a reading.
        margin: Least difference of their word error rates.

    Returns:
        A row for `PreferenceCollator`; None where all are understood alike.
    """
    if len(readings) < 2:
        return None
    rates = [error_rates([hear(reading)], [reading.text.strip()])["wer"] for reading in readings]
    best, worst = int(np.argmin(rates)), int(np.argmax(rates))
    if rates[worst] - rates[best] <= margin:
        return None
    row = {"text": readings[0].text, "text_ids": readings[0].text_ids.tolist()}
    row["hidden"] = readings[0].hidden.to(torch.float16).cpu().numpy().tobytes()
    for name, place in (("chosen", best), ("rejected", worst)):
        reading = readings[place]
        row[f"{name}_tokens"] = reading.speech_tokens.tolist()
        row[f"{name}_places"] = [] if reading.places is None else reading.places.tolist()
        row[f"{name}_wer"] = rates[place]
    return row


@dataclass
class PreferenceCollator:
    """Pairs of readings as `DPOTrainer` wants them: first the better of every pair, then the worse.

    Args:
        config: Of the speech decoder.
        table: The LLM's embeddings.
    """

    config: FreezeOmniSpeechDecoderConfig
    table: nn.Embedding = field(repr=False)

    @torch.no_grad()
    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        config = self.config
        names = [name for name in ("chosen", "rejected") for _ in rows]
        rows = [*rows, *rows]
        ids = [
            [config.bos_speech_token_id, *row[f"{name}_tokens"], config.eos_speech_token_id]
            for name, row in zip(names, rows, strict=True)
        ]
        text = pad_rows([list(row["text_ids"]) for row in rows], 0)
        hidden = [
            torch.from_numpy(np.frombuffer(row["hidden"], dtype=np.float16).copy())
            .float()
            .view(-1, config.llm_hidden_size)
            for row in rows
        ]
        batch = {
            "input_ids": pad_rows(ids, config.pad_speech_token_id),
            "attention_mask": pad_rows([[1] * len(row) for row in ids], 0),
            "completion_mask": pad_rows([[0] + [1] * (len(row) - 1) for row in ids], 0),
            "text_embeds": self.table(text.to(self.table.weight.device)).float().cpu(),
            "text_mask": pad_rows([[1] * len(row["text_ids"]) for row in rows], 0),
            "prefix_embeds": pad_sequence(hidden, batch_first=True),
            "prefix_mask": pad_rows([[1] * len(row) for row in hidden], 0),
        }
        if config.letters:
            places = [list(row[f"{name}_places"]) for name, row in zip(names, rows, strict=True)]
            batch |= {"text_ids": text, "places": pad_rows(places, 0)}
        return batch


class PreferenceTrainer(DPOTrainer):
    """`DPOTrainer` on pairs that are ids already."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


__all__ = [
    "FreezeOmniSpeechDecoderForCausalLM",
    "PreferenceCollator",
    "PreferenceTrainer",
    "rank_readings",
    "sample_readings",
]

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""A spoken turn that is heard while it is being spoken, so that the answer can begin as soon as it ends."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from ..language_model import cache_of
from .listening import Heard, Listener


class SpokenTurn:
    """Takes the sound of one user turn bit by bit; the LLM reads what is certain while the rest comes in.

    Args:
        model: With its LLM attached.
        processor: Its processor.
        messages: The conversation before this turn, as text (of earlier spoken turns, what was heard).
        generation_config: Settings; those that begin with ``hearing_`` matter here.
        kwargs: Settings by name.

    Example:

        >>> turn = SpokenTurn(model, processor)
        >>> for samples in microphone:
        ...     turn.push(samples)
        >>> output = model.generate(**turn.finish(), tokenizer=processor.tokenizer)

    Raises:
        ValueError: a message holds audio.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: Any,
        processor: Any,
        messages: Sequence[dict] = (),
        generation_config: GenerationConfig | None = None,
        **kwargs,
    ):
        self.model, self.processor = model, processor
        self.extractor = processor.feature_extractor
        settings, unused = model._prepare_generation_config(generation_config, **kwargs)
        if unused:
            raise ValueError(f"SpokenTurn does not know {sorted(unused)}.")
        hearing = model._hearing(settings)
        before, self.after = self._around(list(messages))
        embeds = torch.cat((self._embed(before), model._lead_rows(1, None).to(self._table.weight)), dim=1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        self.heard: Heard | None = None
        self.samples = self.audio = self.listener = None
        if hearing is not None:
            self.candidates, self.listener = hearing.candidates, Listener(model, hearing, embeds, mask)
        else:
            self.candidates, self.cache, self.mask = 0, None, mask[:, :0]
            self._read(embeds)

    def push(self, samples: np.ndarray | Tensor) -> None:
        """The next samples, any number: (samples,) at the processor's rate."""
        self._hear(samples, final=False)

    @torch.no_grad()
    def finish(self) -> dict[str, Any]:
        """The turn is over: what to give to ``generate``. Call it once.

        Returns:
            ``input_ids``, ``attention_mask`` and ``past_key_values``: the last of what was heard and the start of the
            answer, behind all that the LLM has read by now.
        """
        self._hear(None, final=True)
        ids = self.after
        if self.listener is not None:
            self.heard = self.listener.finish(ids[0] if ids else None)
            self.cache, self.mask, done = self.listener.read
            ids = [*self.heard.token_ids[done:], *ids]
        new = torch.tensor([ids], device=self.mask.device)
        return {
            "input_ids": new,
            "attention_mask": torch.cat((self.mask, torch.ones_like(new)), dim=1),
            "past_key_values": self.cache,
        }

    @property
    def text(self) -> str | None:
        """What was heard, once the turn is over; None where the LLM reads vectors that name no tokens."""
        return None if self.heard is None else self.processor.tokenizer.decode(self.heard.token_ids).strip()

    @property
    def _table(self) -> torch.nn.Module:
        return self.model.get_input_embeddings()

    def _embed(self, ids: list[int]) -> Tensor:
        return self._table(torch.tensor([ids], device=self._table.weight.device))

    def _around(self, messages: list[dict]) -> tuple[list[int], list[int]]:
        """Token ids before and after the sound of a user turn behind ``messages``."""
        for message in messages:
            if not isinstance(message["content"], str) and any(part["type"] == "audio" for part in message["content"]):
                raise ValueError("A message before a SpokenTurn holds audio: give what was heard, as text.")
        silence = np.zeros(self.extractor.chunk_length, dtype=np.float32)
        sound = {"type": "audio", "array": silence, "sampling_rate": self.extractor.sampling_rate}
        ids = self.processor.apply_chat_template(
            [[*messages, {"role": "user", "content": [sound]}]],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            return_tensors=None,
        )["input_ids"][0]
        places = [place for place, token in enumerate(ids) if token == self.model.config.audio_token_id]
        return ids[: places[0]], ids[places[-1] + 1 :]

    @torch.no_grad()
    def _hear(self, samples: np.ndarray | Tensor | None, final: bool) -> None:
        features, self.samples = self.extractor.stream(samples, self.samples, final=final)
        if not features.shape[1]:
            return
        step = self.extractor.chunk_frames
        for start in range(0, features.shape[1], step):
            heard = self.model.encode_audio(
                features[:, start : start + step], cache=self.audio, use_cache=True, candidates=self.candidates
            )
            self.audio = heard.cache
            if self.listener is not None:
                self.listener.push(heard)
            elif bool(heard.read_mask.any()):
                self._read(heard.embeds[:, heard.read_mask[0]].to(self._table.weight))

    def _read(self, embeds: Tensor) -> None:
        self.mask = torch.cat((self.mask, self.mask.new_ones(1, embeds.shape[1])), dim=1)
        output = self.model.run_language_model(
            embeds, self.mask, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        )
        self.cache = cache_of(output)


__all__ = ["SpokenTurn"]

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The text half of generation: stepping the frozen LLM and keeping the hidden state behind every token.

transformers' own loop gives no hold on the hidden states while it runs, so the loop is ours; processors, stopping
criteria and settings are transformers'.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..language_model import cache_of


@dataclass
class TextGeneration:
    """A batch whose answers are being generated.

    Attributes:
        model: The model (``run_language_model``).
        settings: Generation config, special tokens prepared.
        processors: Logits processors.
        criteria: Stopping criteria.
        inputs_embeds: (B, S, width) what the LLM reads next.
        attention_mask: (B, P + S) with the P positions of ``past_key_values``.
        history: (B, S) ids for processors and criteria.
        past_key_values: The LLM's cache.
    """

    model: Any
    settings: Any
    processors: Any
    criteria: Any
    inputs_embeds: Tensor
    attention_mask: Tensor
    history: Tensor
    past_key_values: Any = None
    tokens: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    prefill_hidden: Tensor | None = None

    def __post_init__(self):
        rows = self.inputs_embeds.shape[0]
        device = self.inputs_embeds.device
        self.going = torch.ones(rows, dtype=torch.bool, device=device)
        self.eos = self.settings._eos_token_tensor
        self.pad = self.settings._pad_token_tensor
        if self.pad is None:
            self.pad = self.eos[0] if self.eos is not None else torch.zeros((), dtype=torch.long, device=device)

    @property
    def finished(self) -> bool:
        return not bool(self.going.any())

    def is_end(self, tokens: Tensor) -> Tensor:
        """(B,) which of ``tokens`` end the turn."""
        if self.eos is None:
            return torch.zeros_like(tokens, dtype=torch.bool)
        return torch.isin(tokens, self.eos.to(tokens.device))

    @torch.no_grad()
    def step(self) -> tuple[Tensor, Tensor]:
        """One token for every row that is still going.

        Returns:
            (B,) tokens, padding for finished rows, and (B,) boolean: rows that were going before this step.
        """
        output = self.model.run_language_model(
            self.inputs_embeds,
            self.attention_mask,
            past_key_values=self.past_key_values,
            use_cache=True,
            logits_to_keep=1,
        )
        self.past_key_values = cache_of(output)
        hidden = output.hidden_states[-1]
        if self.prefill_hidden is None:
            self.prefill_hidden = hidden
        logits = output.logits[:, -1].float().to(self.history.device)
        scores = self.processors(self.history, logits)
        if self.settings.do_sample:
            tokens = torch.multinomial(scores.softmax(dim=-1), 1).squeeze(1)
        else:
            tokens = scores.argmax(dim=-1)
        if self.settings.output_scores:
            self.scores.append(scores)
        if self.settings.output_logits:
            self.logits.append(logits)
        was_going = self.going
        tokens = torch.where(was_going, tokens, self.pad.to(tokens))
        self.tokens.append(tokens)
        self.hidden.append(hidden[:, -1])
        self.history = torch.cat((self.history, tokens[:, None]), dim=1)
        stopped = self.criteria(self.history, scores)
        self.going = was_going & ~stopped.to(was_going.device)
        table = self.model.get_input_embeddings()
        self.inputs_embeds = table(tokens[:, None].to(table.weight.device))
        self.attention_mask = torch.cat((self.attention_mask, self.attention_mask.new_ones(len(tokens), 1)), dim=1)
        return tokens, was_going


def check_placeholders(expected: int, given: int) -> None:
    """Refuse audio whose vectors are not as many as the placeholders for them."""
    if given != expected:
        raise ValueError(
            f"input_ids holds {expected} audio placeholders, but the audio gives {given} vectors. Use "
            "the processor of this checkpoint (prompt_length, chunk and stride must match)."
        )


def close_unread(attention_mask: Tensor, read: Tensor) -> Tensor:
    """A mask (B, P + S) that is also 0 where the last S positions are not read (B, S)."""
    if bool(read.all()):
        return attention_mask
    attention_mask = attention_mask.clone()
    attention_mask[:, attention_mask.shape[1] - read.shape[1] :] *= read.to(attention_mask.device)
    return attention_mask


__all__ = ["TextGeneration", "check_placeholders", "close_unread"]

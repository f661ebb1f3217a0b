# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What the whole model gives back."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput

from .cache import AudioCache


@dataclass
class FreezeOmniOutput(ModelOutput):
    """Output of `FreezeOmniForConditionalGeneration.forward`.

    Attributes:
        loss: Weighted sum of the losses below.
        lm_loss: Cross-entropy of ``labels``.
        state_loss: Cross-entropy of ``state_labels``.
        distillation_loss: Divergence from the text-mode LLM.
        logits: (B, S, vocab_size) text logits; in training with ``labels`` only the supervised positions.
        state_logits: (B, S, num_states) logits of the state head.
        last_hidden_state: (B, S, hidden_size) final-norm hidden states of the LLM.
        cache: The LLM's cache, also called ``past_key_values``.
    """

    loss: Tensor | None = None
    lm_loss: Tensor | None = None
    state_loss: Tensor | None = None
    distillation_loss: Tensor | None = None
    logits: Tensor | None = None
    state_logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    cache: Any = None

    @property
    def past_key_values(self) -> Any:
        """The name of the cache before transformers 5.24."""
        return self.cache


@dataclass
class FreezeOmniAudioOutput(ModelOutput):
    """Audio as the LLM reads it.

    Attributes:
        embeds: (B, L, hidden_size) vectors, 12.5 a second.
        attention_mask: (B, L) boolean, True on real vectors.
        read_mask: (B, L) boolean, True on the real vectors that the LLM reads: all without a gate, else those in which
            a text token is heard. The LLM's attention mask is 0 where it does not read.
        gate_logits: (B, L) logits of the gate, where there is one.
        token_ids: (B, L) LLM token that is likeliest in each vector, where the adapter mixes tokens.
        likely_ids: (B, L, K) the K likeliest, with ``candidates=K``; there are no embeds then.
        likely_log_probs: (B, L, K) their log-probabilities if a token is heard.
        letter_logits: (B, T, 29) letter in each encoder frame, where the adapter says so.
        cache: The stream's cache.
    """

    embeds: Tensor | None = None
    attention_mask: Tensor | None = None
    read_mask: Tensor | None = None
    gate_logits: Tensor | None = None
    token_ids: Tensor | None = None
    likely_ids: Tensor | None = None
    likely_log_probs: Tensor | None = None
    letter_logits: Tensor | None = None
    cache: AudioCache | None = None


__all__ = ["FreezeOmniAudioOutput", "FreezeOmniOutput"]

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Training stage input 1 against the LLM's own embedding table: CTC that ends near the token embeddings.

Each adapter vector is compared (cosine, a learned scale) with the frozen embeddings of the tokens that the transcripts
use, and with a learned blank vector. No pass through the LLM is needed, and input 2 starts where the LLM already half
understands.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput

from ..models import FreezeOmniForConditionalGeneration
from ..models.freeze_omni import FreezeOmniPreTrainedModel


@dataclass
class AlignmentOutput(ModelOutput):
    """Loss, (B, L, tokens + 1) scores with the blank first, and (B, L) mask of real vectors."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    attention_mask: Tensor | None = None


class FreezeOmniForAlignment(FreezeOmniPreTrainedModel):
    """Speech encoder and adapter under a CTC loss against the LLM's embedding table.

    Args:
        model: The model with its LLM attached; only its speech encoder and adapter are used.
        token_ids: LLM tokens that transcripts may hold.
        scale: Start of the learned scale of the cosine.
    """

    def __init__(self, model: FreezeOmniForConditionalGeneration, token_ids: Iterable[int], scale: float = 20.0):
        super().__init__(model.config)
        table = model.get_input_embeddings().weight
        ids = sorted(set(token_ids))
        classes = torch.zeros(table.shape[0], dtype=torch.long)
        classes[ids] = torch.arange(1, len(ids) + 1)
        self.model = model
        self.register_buffer("token_ids", torch.tensor(ids), persistent=False)
        self.register_buffer("classes", classes, persistent=False)
        self.register_buffer("rows", F.normalize(table[ids].float(), dim=-1), persistent=False)
        self.blank = nn.Parameter(F.normalize(table.float().mean(dim=0), dim=-1))
        self.blank_bias = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        # The norm of ordinary token embeddings: what the adapter's vectors are drawn to.
        self.embedding_norm = float(table[ids].float().norm(dim=-1).mean())
        self._keys_to_ignore_on_save = {f"model.{name}" for name in model._keys_to_ignore_on_save}

    def forward(
        self,
        input_features: Tensor,
        feature_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> AlignmentOutput | tuple:
        """Scores and loss.

        Args:
            input_features: (B, T, num_mel_bins).
            feature_attention_mask: (B, T).
            labels: (B, N) LLM token ids of the transcripts, -100 where padded.

        Raises:
            ValueError: a transcript holds a token that is not among ``token_ids``.
        """
        audio = self.model.encode_audio(input_features, feature_attention_mask)
        vectors = audio.embeds.float()
        cosine = F.normalize(vectors, dim=-1) @ torch.cat((F.normalize(self.blank, dim=-1)[None], self.rows)).T
        logits = self.log_scale.exp() * cosine
        logits = torch.cat((logits[..., :1] + self.blank_bias, logits[..., 1:]), dim=-1)
        loss = None
        if labels is not None:
            known = labels >= 0
            targets = self.classes[labels.clamp(min=0)]
            if bool((known & (targets == 0)).any()):
                raise ValueError("A transcript holds a token that the alignment's token_ids lack.")
            loss = F.ctc_loss(
                logits.log_softmax(dim=-1).transpose(0, 1),
                targets,
                audio.attention_mask.sum(dim=1),
                known.sum(dim=1),
                zero_infinity=True,
            )
            norms = vectors.norm(dim=-1) / self.embedding_norm
            loss = loss + 0.01 * ((norms - 1).square() * audio.attention_mask).sum() / audio.attention_mask.sum()
        output = AlignmentOutput(loss, logits, audio.attention_mask)
        return output.to_tuple() if return_dict is False else output

    @torch.no_grad()
    def transcribe(self, logits: Tensor, mask: Tensor) -> list[list[int]]:
        """LLM token ids of the best path of each row."""
        best = logits.argmax(dim=-1)
        return [self.collapse(row[keep]) for row, keep in zip(best, mask.bool(), strict=True)]

    def collapse(self, path: Tensor) -> list[int]:
        """LLM token ids of a path of classes (n,): repetitions and blanks removed."""
        kept = [int(c) for index, c in enumerate(path) if int(c) > 0 and (index == 0 or c != path[index - 1])]
        return [int(self.token_ids[c - 1]) for c in kept]


def transcript_tokens(tokenizer: Any, texts: Iterable[str]) -> list[int]:
    """The distinct token ids of many texts."""
    found: set[int] = set()
    for text in texts:
        found.update(tokenizer(text, add_special_tokens=False)["input_ids"])
    return sorted(found)


__all__ = ["AlignmentOutput", "FreezeOmniForAlignment", "transcript_tokens"]

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Teaching an encoder that was trained with the whole utterance in view to work under chunk masks.

The encoder follows itself: under random chunk masks it is to give what it gave without them. Needs speech alone, no
transcripts; an encoder that started from Whisper's weights understands nothing in 160 ms chunks before this.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import ModelOutput

from ..models import FreezeOmniForConditionalGeneration
from ..models.freeze_omni import FreezeOmniPreTrainedModel
from ..models.speech_encoder import draw_dynamic_chunks


@dataclass
class ChunkOutput(ModelOutput):
    """Loss, and the mean cosine similarity to the encoder without chunks."""

    loss: Tensor | None = None
    similarity: Tensor | None = None


class FreezeOmniForChunks(FreezeOmniPreTrainedModel):
    """A speech encoder that follows a frozen copy of itself which sees the whole utterance.

    Args:
        model: The model; only its speech encoder is trained.
        fixed_share: Share of training batches under the configured chunk size; the others draw one.
    """

    def __init__(self, model: FreezeOmniForConditionalGeneration, fixed_share: float = 0.5):
        super().__init__(model.config)
        self.speech_encoder = model.speech_encoder
        # A teacher is no part of what is saved.
        self.teachers = [copy.deepcopy(model.speech_encoder).eval().requires_grad_(False)]
        self.fixed_share = fixed_share

    def forward(
        self,
        input_features: Tensor,
        feature_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        character_labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> ChunkOutput | tuple:
        """Loss on real frames; the labels are taken for the sake of the collator and not read.

        Args:
            input_features: (B, T, num_mel_bins).
            feature_attention_mask: (B, T).
        """
        config = self.speech_encoder.config
        teacher = self.teachers[0]
        with torch.no_grad():
            target = teacher(input_features, feature_attention_mask, chunk_size=-1).last_hidden_state.float()
        chunk_size, left_chunks = config.chunk_size, config.left_chunks
        if self.training and float(torch.rand(())) >= self.fixed_share:
            chunk_size, left_chunks = draw_dynamic_chunks(target.shape[1])
        dynamic, config.dynamic_chunks = config.dynamic_chunks, False
        try:
            output = self.speech_encoder(
                input_features, feature_attention_mask, chunk_size=chunk_size, left_chunks=left_chunks
            )
        finally:
            config.dynamic_chunks = dynamic
        real = output.attention_mask
        found, wanted = output.last_hidden_state.float()[real], target[real]
        similarity = F.cosine_similarity(found, wanted, dim=-1).mean()
        loss = (found - wanted).square().mean() / wanted.var().clamp(min=1e-6) + (1 - similarity)
        result = ChunkOutput(loss, similarity.detach())
        return result.to_tuple() if return_dict is False else result


__all__ = ["ChunkOutput", "FreezeOmniForChunks"]

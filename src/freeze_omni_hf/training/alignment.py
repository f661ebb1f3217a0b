# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Training stage input 1 against the LLM's own embedding table: CTC that ends near the token embeddings.

Each adapter vector is compared (cosine, a learned scale) with the frozen embeddings of the tokens that transcripts may
hold. No pass through the LLM is needed, and input 2 starts where the LLM already half understands. An adapter with a
gate says itself where no token is heard (blank); for one without, a blank vector is learned beside the table.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput

from ..models import FreezeOmniForConditionalGeneration
from ..models.freeze_omni import FreezeOmniPreTrainedModel
from ..models.letters import CHARACTERS


@dataclass
class AlignmentOutput(ModelOutput):
    """Output of `FreezeOmniForAlignment`.

    Attributes:
        loss: Weighted sum of the losses below.
        token_loss: CTC on LLM tokens.
        character_loss: CTC on characters, where there is a head for them.
        best_path: (B, L) LLM token of each vector, -1 for blank and padding.
    """

    loss: Tensor | None = None
    token_loss: Tensor | None = None
    character_loss: Tensor | None = None
    best_path: Tensor | None = None


class FreezeOmniForAlignment(FreezeOmniPreTrainedModel):
    """Speech encoder and adapter under a CTC loss against the LLM's embedding table.

    Args:
        model: The model with its LLM attached; only its speech encoder and adapter are used.
        token_ids: LLM tokens that transcripts may hold.
        texts: Text of each, with its leading space; needed by an adapter that tells tokens apart by spelling.
        scale: Start of the learned scale of the cosine, where the adapter has none of its own.
        negatives: Tokens that a training batch is compared with beside its own, drawn anew each time; None: all.
        character_weight: Weight of a CTC loss on the characters, from the encoder's frames. It teaches the encoder
            sounds long before the token loss finds words. The head is the adapter's own, where it says letters.
        whole_share: Share of training batches in which the encoder sees the whole utterance instead of chunks.
        snap_weight: Weight of a loss that draws vectors to the embedding of the token they are nearest to.
    """

    def __init__(
        self,
        model: FreezeOmniForConditionalGeneration,
        token_ids: Iterable[int],
        texts: Sequence[str] | None = None,
        scale: float = 20.0,
        negatives: int | None = None,
        character_weight: float = 0.0,
        whole_share: float = 0.0,
        snap_weight: float = 0.0,
    ):
        super().__init__(model.config)
        table = model.get_input_embeddings().weight
        ids = list(token_ids)
        classes = torch.full((table.shape[0],), -1)
        classes[ids] = torch.arange(len(ids))
        self.model = model
        self.negatives = negatives
        self.character_weight = character_weight
        self.whole_share = whole_share
        self.snap_weight = snap_weight
        self.register_buffer("token_ids", torch.tensor(ids), persistent=False)
        self.register_buffer("classes", classes, persistent=False)
        self.register_buffer("rows", F.normalize(table[ids].float(), dim=-1), persistent=False)
        self.own_scale = None
        if model.config.adapter_config.token_mixture:
            model.adapter.set_tokens(torch.tensor(ids), texts)
        else:
            self.own_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.blank = self.blank_bias = None
        if model.adapter.gate is None:
            self.blank = nn.Parameter(F.normalize(table.float().mean(dim=0), dim=-1))
            self.blank_bias = nn.Parameter(torch.zeros(()))
        width = model.config.speech_encoder_config.hidden_size
        self.character_head = None
        if character_weight and model.adapter.letter_head is None:
            self.character_head = nn.Linear(width, len(CHARACTERS) + 1)
        # The norm of ordinary token embeddings: what the adapter's vectors are drawn to.
        self.embedding_norm = float(table[ids].float().norm(dim=-1).mean())
        self._keys_to_ignore_on_save = {f"model.{name}" for name in model._keys_to_ignore_on_save}

    @property
    def log_scale(self) -> Tensor:
        """Logarithm of what cosines are multiplied with: the adapter's own, where it mixes tokens."""
        return self.model.adapter.log_scale if self.own_scale is None else self.own_scale

    def forward(
        self,
        input_features: Tensor,
        feature_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        character_labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> AlignmentOutput | tuple:
        """Losses and best paths.

        Args:
            input_features: (B, T, num_mel_bins).
            feature_attention_mask: (B, T).
            labels: (B, N) LLM token ids of the transcripts, -100 where padded.
            character_labels: (B, C) classes of `character_ids`, -100 where padded.

        Raises:
            ValueError: a transcript holds a token that is not among ``token_ids``.
        """
        whole = self.training and self.whole_share > 0 and float(torch.rand(())) < self.whole_share
        encoded = self.model.speech_encoder(
            input_features, feature_attention_mask, chunk_size=-1 if whole else None, return_dict=True
        )
        adapted = self.model.adapter(encoded.last_hidden_state, encoded.attention_mask, return_dict=True)
        vectors, mask = adapted.last_hidden_state.float(), adapted.attention_mask
        chosen, targets = None, None
        if labels is not None:
            targets = self.classes[labels.clamp(min=0)].masked_fill(labels < 0, 0)
            if bool((targets < 0).any()):
                raise ValueError("A transcript holds a token that the alignment's token_ids lack.")
            if self.training and self.negatives is not None:
                chosen, weights = self._draw(targets[labels >= 0])
                targets = torch.searchsorted(chosen, targets).clamp(max=len(chosen) - 1)
        rows = self.rows if chosen is None else self.rows[chosen]
        logits = self._token_logits(vectors, adapted.spelling, rows, chosen)
        if chosen is not None:
            logits = logits + weights
        log_probs = self._log_probs(logits, vectors, adapted.gate_logits)
        loss = token_loss = character_loss = None
        if labels is not None:
            token_loss = _ctc(log_probs, targets + 1, labels >= 0, mask)
            norms = vectors.norm(dim=-1) / self.embedding_norm
            loss = token_loss + 0.01 * ((norms - 1).square() * mask).sum() / mask.sum()
            if self.snap_weight:
                heard = mask & (log_probs[..., 0] < math.log(0.5))
                nearest = rows[logits.argmax(dim=-1)]
                distance = 1 - F.cosine_similarity(vectors, nearest, dim=-1)
                loss = loss + self.snap_weight * (distance * heard).sum() / heard.sum().clamp(min=1)
            if self.character_weight and character_labels is not None:
                scores = adapted.letter_logits
                if self.character_head is not None:
                    scores = self.character_head(encoded.last_hidden_state)
                scores = scores.float().log_softmax(dim=-1)
                known = character_labels >= 0
                character_loss = _ctc(scores, character_labels.clamp(min=0), known, encoded.attention_mask)
                loss = loss + self.character_weight * character_loss
        best_path = None
        if not self.training:
            best = log_probs.argmax(dim=-1).masked_fill(~mask, 0)
            best_path = torch.where(best > 0, self.token_ids[(best - 1).clamp(min=0)], -1)
        output = AlignmentOutput(loss, token_loss, character_loss, best_path)
        return output.to_tuple() if return_dict is False else output

    def _draw(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Classes of a batch in their order, its own and drawn ones, and the logarithm of how many each stands for.

        With the drawn ones counted for all that were not, the softmax is that over all tokens on average.
        """
        own = targets.unique()
        drawn = torch.randint(len(self.rows), (self.negatives,), device=targets.device)
        chosen = torch.cat((own, drawn)).unique()
        others = max(len(chosen) - len(own), 1)
        weights = torch.full((len(chosen),), math.log(max(len(self.rows) - len(own), 1) / others), device=own.device)
        weights[torch.searchsorted(chosen, own)] = 0.0
        return chosen, weights

    def _token_logits(self, vectors: Tensor, spelling: Tensor | None, rows: Tensor, chosen: Tensor | None) -> Tensor:
        if self.own_scale is not None:
            return self.own_scale.exp() * (F.normalize(vectors, dim=-1) @ rows.T)
        spelled = None
        if spelling is not None:
            spelled = self.model.adapter.token_rows(self.model.get_input_embeddings().weight)[2]
            spelled = spelled if chosen is None else spelled[chosen]
        return self.model.adapter.token_logits(vectors, spelling, rows, spelled)

    def _log_probs(self, logits: Tensor, vectors: Tensor, gate_logits: Tensor | None) -> Tensor:
        """(B, L, 1 + tokens), the blank first."""
        if gate_logits is not None:
            gate = gate_logits.float().unsqueeze(-1)
            return torch.cat((F.logsigmoid(-gate), F.logsigmoid(gate) + logits.log_softmax(dim=-1)), dim=-1)
        blank = F.normalize(vectors, dim=-1) @ F.normalize(self.blank, dim=-1)
        blank = self.log_scale.exp() * blank.unsqueeze(-1) + self.blank_bias
        return torch.cat((blank, logits), dim=-1).log_softmax(dim=-1)


def _ctc(log_probs: Tensor, targets: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """CTC of (B, L, classes) under (B, L) real positions; per target token, averaged over rows."""
    return F.ctc_loss(
        log_probs.transpose(0, 1), targets, mask.sum(dim=1), known.sum(dim=1), blank=0, zero_infinity=True
    )


def collapse(path: Iterable[int]) -> list[int]:
    """LLM token ids of a best path (-1 is blank): repetitions and blanks removed."""
    path = [int(token) for token in path]
    return [token for index, token in enumerate(path) if token >= 0 and (index == 0 or token != path[index - 1])]


def transcript_tokens(tokenizer: Any, texts: Iterable[str]) -> list[int]:
    """The distinct token ids of many texts."""
    found: set[int] = set()
    for text in texts:
        found.update(tokenizer(text, add_special_tokens=False)["input_ids"])
    return sorted(found)


__all__ = [
    "AlignmentOutput",
    "FreezeOmniForAlignment",
    "collapse",
    "transcript_tokens",
]

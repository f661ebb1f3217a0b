# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Adapter from encoder frames to the LLM's embedding space, and the state head (Freeze-Omni, sections 3.1 and 3.4)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from ..configuration import FreezeOmniAdapterConfig
from .cache import AdapterCache
from .letters import CHARACTERS, LETTERS_PER_TOKEN, letter_classes, spelling_vectors


@dataclass
class FreezeOmniAdapterOutput(ModelOutput):
    """Output of the adapter.

    Attributes:
        last_hidden_state: (B, T', output_size); with the subsampling kind T' = ceil(T / 2).
        attention_mask: (B, T') boolean, True on real vectors.
        gate_logits: (B, T') logit that a text token is heard in a vector, where the adapter has a gate.
        spelling: (B, T', spelling_size) which letters are heard, where the adapter tells tokens apart by them.
        letter_logits: (B, T, 29) letter that is heard in each encoder frame, where the adapter says so.
        cache: The cache for the next chunk, with ``use_cache=True``.
    """

    last_hidden_state: Tensor | None = None
    attention_mask: Tensor | None = None
    gate_logits: Tensor | None = None
    spelling: Tensor | None = None
    letter_logits: Tensor | None = None
    cache: AdapterCache | None = None


class CausalConv(nn.Module):
    """Causal convolution, norm and activation on (B, C, T); the first inputs of a stream are preceded by zeros."""

    def __init__(self, config: FreezeOmniAdapterConfig, inputs: int, outputs: int, stride: int, norm: str, act: str):
        super().__init__()
        self.context = config.kernel_size - 1
        self.conv = nn.Conv1d(inputs, outputs, config.kernel_size, stride=stride)
        if norm == "batch":
            self.norm = nn.BatchNorm1d(outputs, eps=config.norm_eps, momentum=config.batch_norm_momentum)
        else:
            self.norm = nn.LayerNorm(outputs, eps=config.norm_eps)
        self.act = F.gelu if act == "gelu" else F.relu

    def forward(self, hidden: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.cat((past, hidden), dim=2)
        past = hidden[:, :, hidden.shape[2] - self.context :]
        hidden = self.conv(hidden)
        if isinstance(self.norm, nn.BatchNorm1d):
            hidden = self.norm(hidden)
        else:
            hidden = self.norm(hidden.transpose(1, 2)).transpose(1, 2)
        return self.act(hidden), past


class ConvBlock(nn.Module):
    """Residual block on (B, C, T): causal depthwise convolution, norm, feed-forward network (after ConvNeXt)."""

    def __init__(self, config: FreezeOmniAdapterConfig, size: int):
        super().__init__()
        self.context = config.block_kernel_size - 1
        self.conv = nn.Conv1d(size, size, config.block_kernel_size, groups=size)
        self.norm = nn.LayerNorm(size, eps=config.norm_eps)
        self.up_proj = nn.Linear(size, config.block_expansion * size)
        self.down_proj = nn.Linear(config.block_expansion * size, size)

    def forward(self, hidden: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        residual, hidden = hidden, torch.cat((past, hidden), dim=2)
        past = hidden[:, :, hidden.shape[2] - self.context :]
        hidden = self.norm(self.conv(hidden).transpose(1, 2))
        return residual + self.down_proj(F.gelu(self.up_proj(hidden))).transpose(1, 2), past


class FreezeOmniAdapter(PreTrainedModel):
    """Carries (B, T, input_size) encoder frames to (B, T', output_size) vectors that the LLM reads as embeddings."""

    config: FreezeOmniAdapterConfig
    base_model_prefix = "adapter"
    main_input_name = "hidden_states"
    input_modalities = ("audio",)

    def __init__(self, config: FreezeOmniAdapterConfig):
        super().__init__(config)
        size = config.input_size * config.stack_frames
        if config.adapter_type == "linear":
            sizes = []
        elif config.adapter_type == "cnn":
            sizes = [(size, 2 * size, 1, "batch", "relu"), (2 * size, 4 * size, 1, "batch", "relu")]
        elif config.num_convs == 2:
            sizes = [(size, 2 * size, 1, "batch", "relu"), (2 * size, 4 * size, 2, "batch", "relu")]
        else:
            sizes = [(size, config.conv_size or 2 * size, 2, config.norm, config.hidden_act)]
        self.convs = nn.ModuleList(CausalConv(config, *arguments) for arguments in sizes)
        width = sizes[-1][1] if sizes else size
        self.blocks = nn.ModuleList(ConvBlock(config, width) for _ in range(config.num_blocks))
        self.block_norm = nn.LayerNorm(width, eps=config.norm_eps) if config.num_blocks else None
        self.proj = nn.Linear(width, config.output_size)
        self.gate = nn.Linear(width, 1) if config.gate else None
        self.log_scale = self._rows = self._spelled = None
        if config.token_mixture:
            self.register_buffer("token_ids", torch.zeros(config.num_tokens, dtype=torch.long))
            self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))
        self.spelling_proj = None
        if config.spelling_size:
            self.register_buffer("spellings", torch.zeros(config.num_tokens, config.spelling_size, dtype=torch.int8))
            self.spelling_proj = nn.Linear(width, config.spelling_size)
        self.letter_head = None
        if config.letters:
            self.register_buffer("token_letters", torch.zeros(config.num_tokens, LETTERS_PER_TOKEN, dtype=torch.int8))
            self.letter_head = nn.Linear(config.input_size, len(CHARACTERS) + 1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FreezeOmniAdapter) and module.spelling_proj is not None:
            # Without a say at first.
            init.zeros_(module.spelling_proj.weight)
            init.zeros_(module.spelling_proj.bias)

    def set_tokens(self, token_ids: Tensor, texts: Sequence[str] | None = None) -> None:
        """The LLM tokens that vectors are mixed of, for an adapter with ``token_mixture``.

        Args:
            token_ids: (N,).
            texts: Text of each, with its leading space; needed where the adapter spells.

        Raises:
            ValueError: texts are needed and missing, or of another number.
        """
        if (self.config.spelling_size or self.config.letters) and (texts is None or len(texts) != len(token_ids)):
            raise ValueError(f"{len(token_ids)} tokens need as many texts: this adapter reads their spelling.")
        if self.config.spelling_size:
            self.spellings = spelling_vectors(texts, self.config.spelling_size).to(self.proj.weight.device)
        if self.config.letters:
            self.token_letters = letter_classes(texts).to(self.proj.weight.device)
        self.token_ids = token_ids.to(self.proj.weight.device, torch.long)
        self.config.num_tokens = len(token_ids)
        self._rows = self._spelled = None

    def token_logits(
        self, vectors: Tensor, spelling: Tensor | None, directions: Tensor, spelled: Tensor | None
    ) -> Tensor:
        """(B, L, N) logits of tokens: scaled cosines to their embeddings, and how well the letters fit.

        Args:
            vectors: (B, L, output_size) of `forward`.
            spelling: (B, L, spelling_size) of `forward`.
            directions: (N, output_size) embeddings of unit length.
            spelled: (N, spelling_size) spellings of unit length.
        """
        logits = self.log_scale.float().exp() * (F.normalize(vectors.float(), dim=-1) @ directions.T)
        return logits if spelling is None else logits + spelling.float() @ spelled.T

    def mix_tokens(self, vectors: Tensor, table: Tensor, spelling: Tensor | None = None) -> Tensor:
        """What the LLM reads: mixtures of its embeddings of ``token_ids``, by the softmax of their logits.

        Args:
            vectors: (B, L, output_size) of `forward`.
            table: (vocabulary, output_size) the LLM's input embeddings.
            spelling: (B, L, spelling_size) of `forward`.

        Raises:
            ValueError: no tokens are set.
        """
        return self.hear_tokens(vectors, table, spelling)[0]

    def hear_tokens(
        self, vectors: Tensor, table: Tensor, spelling: Tensor | None = None, where: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`mix_tokens`, and (B, L) the LLM token that is likeliest in each vector.

        Args:
            where: (B, L) boolean, vectors that matter; the others give zeros. The tokens are many, so this saves time.
        """
        logits, rows, back = self._logits_where(vectors, table, spelling, where)
        mixed = logits.softmax(dim=-1).to(rows.dtype) @ rows
        return back(mixed), back(self.token_ids[logits.argmax(dim=-1)])

    def likely_tokens(
        self, vectors: Tensor, table: Tensor, spelling: Tensor | None, count: int, where: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, L, count) likeliest LLM tokens of each vector, and their log-probabilities if one is heard at all.

        Args:
            where: (B, L) boolean, vectors that matter; the others give zeros.
        """
        logits, _, back = self._logits_where(vectors, table, spelling, where)
        best = logits.log_softmax(dim=-1).topk(min(count, logits.shape[-1]), dim=-1)
        return back(self.token_ids[best.indices]), back(best.values)

    def _logits_where(
        self, vectors: Tensor, table: Tensor, spelling: Tensor | None, where: Tensor | None
    ) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """Logits of the vectors that matter, (1, n, tokens); rows of the table; and how to put results in place."""
        if not len(self.token_ids):
            raise ValueError("This adapter mixes token embeddings, but no tokens are set: call adapter.set_tokens.")
        rows, directions, spelled = self.token_rows(table)
        if where is None or bool(where.all()):
            return self.token_logits(vectors, spelling, directions, spelled), rows, lambda result: result

        def back(result: Tensor) -> Tensor:
            whole = result.new_zeros(*where.shape, *result.shape[2:])
            return whole.index_put((where,), result[0])

        spelling = None if spelling is None else spelling[where][None]
        return self.token_logits(vectors[where][None], spelling, directions, spelled), rows, back

    @torch.no_grad()
    def token_rows(self, table: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Embeddings of ``token_ids``, their directions, and the directions of their spellings.

        The LLM never changes, so they are made once.
        """
        device = self.proj.weight.device
        key = (table.data_ptr(), table.dtype, device, self.token_ids.data_ptr())
        if self._rows is None or self._rows[0] != key:
            rows = table[self.token_ids.to(table.device)].to(device)
            spelled = F.normalize(self.spellings.float(), dim=-1) if self.spelling_proj is not None else None
            self._rows = (key, rows, F.normalize(rows.float(), dim=-1), spelled)
        return self._rows[1:]

    def spell(self, token: int) -> list[int]:
        """Letter classes of one of ``token_ids``, for an adapter with ``letters``; they are sorted once."""
        key = self.token_ids.data_ptr()
        if self._spelled is None or self._spelled[0] != key:
            order = self.token_ids.argsort()
            self._spelled = (key, self.token_ids[order].cpu(), self.token_letters[order].cpu())
        row = self._spelled[2][int(torch.searchsorted(self._spelled[1], token))]
        return row[row > 0].tolist()

    def output_lengths(self, frames: Tensor) -> Tensor:
        """Vectors that a number of encoder frames gives: ceil(frames / stride)."""
        return (frames + self.config.stride - 1) // self.config.stride

    def init_cache(self, batch_size: int = 1) -> AdapterCache:
        """The cache at the start of a stream: zeros before the first frame."""
        weight = self.proj.weight
        return AdapterCache(
            batch=torch.zeros(batch_size, dtype=torch.long, device=weight.device),
            inputs=tuple(
                weight.new_zeros(batch_size, layer.conv.in_channels, layer.context)
                for layer in (*self.convs, *self.blocks)
            ),
        )

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        cache: AdapterCache | None = None,
        use_cache: bool = False,
        return_dict: bool | None = None,
        **kwargs,
    ) -> FreezeOmniAdapterOutput | tuple:
        """Adapt utterances (no cache) or the next frames of streams.

        Args:
            hidden_states: (B, T, input_size). In a stream T is a multiple of the stride in every call but the last,
                so that the stride keeps its phase.
            attention_mask: (B, T), 1 on real frames; rows are padded at their end.
            cache: Last inputs of each convolution.
            use_cache: Return the cache for the next call.

        Raises:
            ValueError: wrong width.
        """
        if hidden_states.shape[-1] != self.config.input_size:
            raise ValueError(f"The adapter takes width {self.config.input_size}, not {hidden_states.shape[-1]}.")
        if attention_mask is None:
            attention_mask = hidden_states.new_ones(hidden_states.shape[:2], dtype=torch.bool)
        attention_mask = attention_mask.bool()
        streaming = cache is not None or use_cache
        cache = cache if cache is not None else self.init_cache(hidden_states.shape[0])
        hidden = hidden_states * attention_mask.unsqueeze(-1)
        if self.config.stack_frames > 1:
            missing = -hidden.shape[1] % self.config.stack_frames
            hidden = F.pad(hidden, (0, 0, 0, missing)).unflatten(1, (-1, self.config.stack_frames)).flatten(2)
        hidden = hidden.transpose(1, 2)
        inputs = []
        for layer, past in zip((*self.convs, *self.blocks), cache.inputs, strict=True):
            hidden, past = layer(hidden, past)
            inputs.append(past)
        hidden = hidden.transpose(1, 2)
        if self.block_norm is not None:
            hidden = self.block_norm(hidden)
        output = FreezeOmniAdapterOutput(
            self.proj(hidden),
            attention_mask[:, :: self.config.stride],
            None if self.gate is None else self.gate(hidden).squeeze(-1),
            None if self.spelling_proj is None else self.spelling_proj(hidden),
            None if self.letter_head is None else self.letter_head(hidden_states),
            AdapterCache(cache.batch, tuple(inputs)) if streaming else None,
        )
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()


LISTEN, ANSWER, IGNORE = 0, 1, 2


class StateHead(nn.Linear):
    """Linear layer from the LLM's hidden state to the state of the turn: listen, answer, ignore and padding classes.

    The last class stands for padding and is dropped before the softmax.
    """

    def __init__(self, hidden_size: int, num_states: int):
        super().__init__(hidden_size, num_states)

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """(..., num_states) logits to (..., num_states - 1) probabilities."""
        return logits[..., :-1].float().softmax(dim=-1)

    @classmethod
    def predict(cls, logits: Tensor, threshold: float = 0.5) -> Tensor:
        """State of each position: `IGNORE`, else `ANSWER`, where its probability is above the threshold, or `LISTEN`.

        Args:
            logits: (..., num_states).
            threshold: Probability that ends the user's turn.
        """
        probabilities = cls.probabilities(logits)
        state = torch.full(logits.shape[:-1], LISTEN, device=logits.device)
        state = torch.where(probabilities[..., ANSWER] > threshold, ANSWER, state)
        return torch.where(probabilities[..., IGNORE] > threshold, IGNORE, state)


__all__ = ["ANSWER", "IGNORE", "LISTEN", "FreezeOmniAdapter", "FreezeOmniAdapterOutput", "StateHead"]

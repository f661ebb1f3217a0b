# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Chunk-streaming speech encoder (Freeze-Omni, section 3.1).

Offline and streaming are one computation: `FreezeOmniSpeechEncoder.forward` over a whole utterance under the chunk
mask equals calling it chunk by chunk with a cache.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput

from ..configuration import FreezeOmniSpeechEncoderConfig
from .cache import SpeechEncoderCache


@dataclass
class FreezeOmniSpeechEncoderOutput(ModelOutput):
    """Output of the speech encoder.

    Attributes:
        last_hidden_state: (B, T', hidden_size), one frame every 40 ms; zeros where a row is padded.
        attention_mask: (B, T') boolean, True on real frames.
        cache: The cache for the next chunk, with ``use_cache=True``.
        hidden_states: Input of each layer and the last output, with ``output_hidden_states=True``.
    """

    last_hidden_state: Tensor | None = None
    attention_mask: Tensor | None = None
    cache: SpeechEncoderCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class FreezeOmniCTCOutput(ModelOutput):
    """Output of `FreezeOmniSpeechEncoderForCTC`: loss, (B, T', ctc_vocab_size) logits, (B, T') mask."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    attention_mask: Tensor | None = None


def sinusoids(positions: Tensor, size: int) -> Tensor:
    """Sinusoidal table rows: (..., size) for any integer positions, sine on even and cosine on odd channels."""
    rates = torch.exp(torch.arange(0, size, 2, device=positions.device).float() * (-math.log(10000.0) / size))
    angles = positions.float().unsqueeze(-1) * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., :size]


def whisper_sinusoids(positions: Tensor, size: int) -> Tensor:
    """Whisper's table rows: (..., size) for any positions, sines in the first half, cosines in the second."""
    half = size // 2
    rates = torch.exp(torch.arange(half, device=positions.device).float() * (-math.log(10000.0) / (half - 1)))
    angles = positions.float().unsqueeze(-1) * rates
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def chunk_mask(length: int, chunk_size: int, left_chunks: int, device: torch.device | str | None = None) -> Tensor:
    """(length, length) boolean: query row i sees its own chunk and ``left_chunks`` chunks before it.

    ``chunk_size`` below 1 makes one chunk of everything, ``left_chunks`` below 0 means all earlier chunks.
    """
    if chunk_size < 1:
        return torch.ones(length, length, dtype=torch.bool, device=device)
    chunk = torch.arange(length, device=device) // chunk_size
    distance = chunk[:, None] - chunk[None, :]
    mask = distance >= 0
    return mask if left_chunks < 0 else mask & (distance <= left_chunks)


def draw_dynamic_chunks(length: int) -> tuple[int, int]:
    """A random (chunk_size, left_chunks) for one training batch: half the time the whole utterance."""
    size = int(torch.randint(1, max(length, 2), ()))
    if size > length // 2:
        return -1, -1
    size = size % 25 + 1
    return size, int(torch.randint(0, max((length - 1) // size, 1), ()))


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Attention written out. All heads as (B, heads, length, head_dim); a boolean mask, an additive bias."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if position_bias is not None:
        scores = scores + position_bias
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class ConvSubsampling(nn.Module):
    """Two 3×3 convolutions of stride 2: (B, 3 + T, bins) to (B, T // 4, hidden_size), without padding."""

    def __init__(self, config: FreezeOmniSpeechEncoderConfig):
        super().__init__()
        size = config.hidden_size
        self.conv1 = nn.Conv2d(1, size, 3, stride=2)
        self.conv2 = nn.Conv2d(size, size, 3, stride=2)
        self.out = nn.Linear(size * (((config.num_mel_bins - 1) // 2 - 1) // 2), size)

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.relu(self.conv2(F.relu(self.conv1(features.unsqueeze(1)))))
        return self.out(hidden.transpose(1, 2).flatten(2))


class ConvSubsampling1d(nn.Module):
    """Whisper's convolutions along time, made causal: (B, 3 + T, bins) to (B, T // 2, hidden_size)."""

    def __init__(self, config: FreezeOmniSpeechEncoderConfig):
        super().__init__()
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.hidden_size, 3)
        self.conv2 = nn.Conv1d(config.hidden_size, config.hidden_size, 3, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        return F.gelu(self.conv2(F.gelu(self.conv1(features.transpose(1, 2))))).transpose(1, 2)


class SpeechEncoderAttention(nn.Module):
    """Self-attention whose scores have a content and a position term, with a learned bias for each.

    Under the additive position rule only the content term is there, without a bias.
    """

    def __init__(self, config: FreezeOmniSpeechEncoderConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.has_position_term = config.position_rule != "additive"
        if self.has_position_term:
            self.position_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
            self.content_bias = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))
            self.position_bias = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))

    def _heads(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(-1, (self.num_heads, self.head_dim)).transpose(-3, -2)

    def forward(
        self,
        hidden_states: Tensor,
        positions: Tensor | None,
        position_index: Tensor | None,
        attention_mask: Tensor | None,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attend from Q new frames to K = past + new ones.

        Args:
            hidden_states: (B, Q, D).
            positions: (B or 1, P, D) rows of the position table, where there is a position term.
            position_index: (Q, K) row of ``positions`` for each pair, or None where P = K and a row belongs to a key.
            attention_mask: (B or 1, 1, Q, K) boolean, or None.
            past: Keys and values of earlier frames.

        Returns:
            (B, Q, D), and all keys and values.
        """
        query = self._heads(self.q_proj(hidden_states))
        key = self._heads(self.k_proj(hidden_states))
        value = self._heads(self.v_proj(hidden_states))
        if past is not None:
            key, value = torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2)

        bias = None
        if self.has_position_term:
            position_key = self._heads(self.position_proj(positions))
            bias = torch.matmul(query + self.position_bias[:, None], position_key.transpose(2, 3)) * self.scaling
            if position_index is not None:
                bias = bias.gather(3, position_index.expand(*bias.shape[:2], -1, -1))
            query = query + self.content_bias[:, None]

        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, _ = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            is_causal=False,
            position_bias=bias,
        )
        return self.o_proj(output.flatten(2)), (key, value)


class SpeechEncoderLayer(GradientCheckpointingLayer):
    """Self-attention and feed-forward network with residual connections."""

    def __init__(self, config: FreezeOmniSpeechEncoderConfig, layer_idx: int):
        super().__init__()
        self.normalize_before = config.normalize_before
        self.attention = SpeechEncoderAttention(config, layer_idx)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.concat_proj = nn.Linear(2 * config.hidden_size, config.hidden_size) if config.concat_after else None
        self.act = F.gelu if config.hidden_act == "gelu" else F.relu
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(
        self,
        hidden_states: Tensor,
        positions: Tensor | None,
        position_index: Tensor | None,
        attention_mask: Tensor | None,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        residual = hidden_states
        inner = self.attention_norm(hidden_states) if self.normalize_before else hidden_states
        attended, (key, value) = self.attention(inner, positions, position_index, attention_mask, past)
        if self.concat_proj is not None:
            hidden_states = residual + self.concat_proj(torch.cat((inner, attended), dim=-1))
        else:
            hidden_states = residual + self.dropout(attended)
        if not self.normalize_before:
            hidden_states = self.attention_norm(hidden_states)

        residual = hidden_states
        inner = self.feed_forward_norm(hidden_states) if self.normalize_before else hidden_states
        inner = self.down_proj(self.activation_dropout(self.act(self.up_proj(inner))))
        hidden_states = residual + self.dropout(inner)
        if not self.normalize_before:
            hidden_states = self.feed_forward_norm(hidden_states)
        return hidden_states, key, value


class FreezeOmniSpeechEncoderPreTrainedModel(PreTrainedModel):
    config: FreezeOmniSpeechEncoderConfig
    base_model_prefix = "speech_encoder"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["SpeechEncoderLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True
    # The position term is a per-head additive bias, which flash kernels cannot take.
    _supports_flash_attn = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SpeechEncoderAttention) and module.has_position_term:
            init.zeros_(module.content_bias)
            init.zeros_(module.position_bias)
        elif isinstance(module, FreezeOmniSpeechEncoder):
            init.zeros_(module.feature_mean)
            init.ones_(module.feature_scale)


class FreezeOmniSpeechEncoder(FreezeOmniSpeechEncoderPreTrainedModel):
    """Speech encoder: feature normalisation, convolutional subsampling, Transformer layers under a chunk mask."""

    def __init__(self, config: FreezeOmniSpeechEncoderConfig):
        super().__init__(config)
        self.register_buffer("feature_mean", torch.zeros(config.num_mel_bins))
        self.register_buffer("feature_scale", torch.ones(config.num_mel_bins))
        self.subsampling = (ConvSubsampling if config.subsampling == "conv2d" else ConvSubsampling1d)(config)
        if config.input_layer == "linear":
            self.input_proj = nn.Linear(config.hidden_size, config.hidden_size)
            self.input_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(SpeechEncoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.normalize_before else None
        self.dropout = nn.Dropout(config.hidden_dropout)
        self._steady_step = None
        self.post_init()

    def output_lengths(self, frames: Tensor) -> Tensor:
        """Encoder frames that a number of input frames gives."""
        return frames // self.config.subsampling_factor

    def init_cache(self, batch_size: int = 1) -> SpeechEncoderCache:
        """The cache at the start of a stream: no left context, zero frames before the first (as released)."""
        config, weight = self.config, self.subsampling.conv1.weight
        heads = config.num_attention_heads
        empty = weight.new_zeros(batch_size, heads, 0, config.hidden_size // heads)
        return SpeechEncoderCache(
            frames=torch.zeros(batch_size, config.overlap_frames, config.num_mel_bins, device=weight.device),
            keys=(empty,) * config.num_hidden_layers,
            values=(empty,) * config.num_hidden_layers,
            lengths=torch.zeros(batch_size, dtype=torch.long, device=weight.device),
        )

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        cache: SpeechEncoderCache | None = None,
        use_cache: bool = False,
        chunk_size: int | None = None,
        left_chunks: int | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> FreezeOmniSpeechEncoderOutput | tuple:
        """Encode utterances (no cache) or the next chunks of streams (with a cache).

        Args:
            input_features: (B, T, num_mel_bins) log-mel frames. With a cache, T is one or more whole chunks.
            attention_mask: (B, T), 1 on real frames; rows are padded at their end. Not with a cache: rows of a
                batch of streams advance together.
            cache: Left context of each row; `init_cache` starts a stream.
            use_cache: Return the cache for the next chunk; starts a stream where ``cache`` is None.
            chunk_size: Overrides the configured chunk size of the offline mask.
            left_chunks: Overrides the configured left context of the offline mask.

        Raises:
            ValueError: wrong number of bins, less than one encoder frame, a broken chunk, or a mask in a stream.
        """
        return_dict = self.config.return_dict if return_dict is None else return_dict
        if input_features.ndim != 3 or input_features.shape[2] != self.config.num_mel_bins:
            raise ValueError(
                f"input_features has shape {tuple(input_features.shape)}; (batch, frames, "
                f"{self.config.num_mel_bins}) is needed."
            )
        record = bool(self.config.output_hidden_states if output_hidden_states is None else output_hidden_states)
        if cache is not None or use_cache:
            if attention_mask is not None and not bool(attention_mask.all()):
                raise ValueError("A stream takes whole chunks: pad the last one with silence, not with a mask.")
            output = self._stream(input_features, cache or self.init_cache(input_features.shape[0]), record)
        else:
            output = self._offline(input_features, attention_mask, chunk_size, left_chunks, record)
        return output if return_dict else output.to_tuple()

    def _embed(self, frames: Tensor) -> Tensor:
        """(B, 3 + T, bins) to (B, T', D): normalisation, subsampling and input layer."""
        mean, scale = self.feature_mean.float(), self.feature_scale.float()
        hidden = self.subsampling(((frames.float() - mean) * scale).to(self.subsampling.conv1.weight.dtype))
        if self.config.input_layer == "linear":
            hidden = F.relu(self.dropout(self.input_norm(self.input_proj(hidden))))
        if self.config.position_rule == "additive":
            return self.dropout(hidden)
        return self.dropout(hidden * math.sqrt(self.config.hidden_size))

    def _add_positions(self, hidden: Tensor, first: Tensor) -> Tensor:
        """Whisper's sinusoids on (B, N, D) frames whose first ones have the positions (B,)."""
        positions = first[:, None] + torch.arange(hidden.shape[1], device=hidden.device)
        return hidden + whisper_sinusoids(positions, hidden.shape[2]).to(hidden.dtype)

    def _offline(
        self, features: Tensor, mask: Tensor | None, chunk_size: int | None, left_chunks: int | None, record: bool
    ) -> FreezeOmniSpeechEncoderOutput:
        config = self.config
        if features.shape[1] < config.subsampling_factor:
            raise ValueError(
                f"{features.shape[1]} input frames are too few: one encoder frame needs {config.subsampling_factor}."
            )
        hidden = self._embed(F.pad(features, (0, 0, config.overlap_frames, 0)))
        batch, length = hidden.shape[:2]
        lengths = torch.full((batch,), length, device=hidden.device)
        if mask is not None:
            lengths = self.output_lengths(mask.sum(dim=1).to(hidden.device))
        valid = torch.arange(length, device=hidden.device) < lengths[:, None]

        chunk_size = config.chunk_size if chunk_size is None else chunk_size
        left_chunks = config.left_chunks if left_chunks is None else left_chunks
        if config.dynamic_chunks and self.training:
            chunk_size, left_chunks = draw_dynamic_chunks(length)
        visible = chunk_mask(length, chunk_size, left_chunks, hidden.device) & valid[:, None, None, :]

        positions = index = None
        if config.position_rule == "additive":
            hidden = self._add_positions(hidden, torch.zeros(1, dtype=torch.long, device=hidden.device))
        elif config.position_rule == "relative":
            window = length if chunk_size < 1 or left_chunks < 0 else (left_chunks + 1) * chunk_size
            positions, index = self._relative_positions(length, length, window, hidden)
        else:
            positions = self._table(torch.arange(length, device=hidden.device)[None], hidden)
            if config.position_rule == "released" and chunk_size > 0 and left_chunks > 0:
                index = self._released_index(length, chunk_size, left_chunks, hidden.device)
        states = [hidden] if record else None
        for layer in self.layers:
            hidden, _, _ = layer(hidden, positions, index, visible)
            if record:
                states.append(hidden)
        hidden = (hidden if self.norm is None else self.norm(hidden)) * valid.unsqueeze(-1)
        return FreezeOmniSpeechEncoderOutput(hidden, valid, None, tuple(states) if record else None)

    def _stream(self, features: Tensor, cache: SpeechEncoderCache, record: bool) -> FreezeOmniSpeechEncoderOutput:
        config = self.config
        if config.chunk_size < 1:
            raise ValueError(f"chunk_size={config.chunk_size} does not stream: set a positive chunk_size.")
        if features.shape[0] != cache.batch_size:
            raise ValueError(f"{features.shape[0]} rows of features do not match a cache of {cache.batch_size} rows.")
        count, rest = divmod(features.shape[1], config.chunk_frames)
        if rest or not count:
            raise ValueError(
                f"{features.shape[1]} frames are no whole chunks of {config.chunk_frames}: the feature extractor's "
                "chunk_frames must match the encoder's."
            )
        hiddens, states = [], []
        for chunk in features.split(config.chunk_frames, dim=1):
            steady = self._steady_step is not None and cache.keys[0].shape[2] == config.left_context
            hidden, layers, cache = (self._steady_step if steady else self._step)(chunk, cache)
            hiddens.append(hidden)
            states.append(layers)
        hidden = torch.cat(hiddens, dim=1)
        record_states = tuple(torch.cat(items, dim=1) for items in zip(*states, strict=True)) if record else None
        valid = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        return FreezeOmniSpeechEncoderOutput(hidden, valid, cache, record_states)

    def compile_steps(self, **kwargs) -> None:
        """Compile the step with ``torch.compile(**kwargs)`` for streams whose left context is full."""
        self._steady_step = torch.compile(self._step, **{"fullgraph": True, "dynamic": False, **kwargs})

    def _step(
        self, features: Tensor, cache: SpeechEncoderCache
    ) -> tuple[Tensor, tuple[Tensor, ...], SpeechEncoderCache]:
        """One chunk for every row of the batch."""
        config = self.config
        frames = torch.cat((cache.frames, features.to(cache.frames.dtype)), dim=1)
        hidden = self._embed(frames)
        new, past = hidden.shape[1], cache.keys[0].shape[2]
        total = past + new
        left = config.left_context if config.left_context >= 0 else past
        # Keys are right-aligned: a row that has seen less than the longest one has unused slots on the left.
        age = torch.arange(total, 0, -1, device=hidden.device) - new
        seen = cache.lengths.clamp(max=left)
        visible = (age[None] <= seen[:, None])[:, None, None, :].expand(-1, 1, new, -1)

        positions = index = None
        if config.position_rule == "additive":
            hidden = self._add_positions(hidden, cache.lengths)
        elif config.position_rule == "relative":
            positions, index = self._relative_positions(new, total, left + new, hidden)
        else:
            positions = self._table(self._key_positions(cache, total, seen), hidden)
        keys, values, states = [], [], [hidden]
        for layer, key, value in zip(self.layers, cache.keys, cache.values, strict=True):
            hidden, key, value = layer(hidden, positions, index, visible, (key, value))
            keep = total if config.left_context < 0 else min(total, left)
            keys.append(key[:, :, total - keep :])
            values.append(value[:, :, total - keep :])
            states.append(hidden)
        cache = SpeechEncoderCache(
            frames=frames[:, -config.overlap_frames :],
            keys=tuple(keys),
            values=tuple(values),
            lengths=cache.lengths + new,
        )
        return hidden if self.norm is None else self.norm(hidden), tuple(states), cache

    def _key_positions(self, cache: SpeechEncoderCache, total: int, seen: Tensor) -> Tensor:
        """(B, total) position of each right-aligned key under the absolute and the released rule."""
        config = self.config
        slots = torch.arange(total, device=seen.device)
        if config.position_rule == "absolute":
            first = cache.lengths - (total - config.chunk_size)
            return (first[:, None] + slots).clamp(min=0)
        start = self._released_start(cache.lengths, config.chunk_size, config.left_chunks)
        used = seen + config.chunk_size
        return (start[:, None] + slots - (total - used)[:, None]).clamp(min=0)

    def _released_start(self, seen: Tensor, chunk_size: int, left_chunks: int) -> Tensor:
        """Position of the first key of a chunk's window after ``seen`` frames.

        The released rule counts from a window that is one chunk wider than the left context, so it lags one chunk
        once the context is full, and it starts again before the end of its table.
        """
        window = (left_chunks + 1) * chunk_size
        limit = chunk_size * (self.config.max_positions // chunk_size) - window
        return (seen % limit - window).clamp(min=0)

    def _released_index(self, length: int, chunk_size: int, left_chunks: int, device: torch.device) -> Tensor:
        """(1, 1, length, length) position of each key as the released rule counts it from each query's chunk."""
        keys = torch.arange(length, device=device)
        chunk = keys // chunk_size
        start = self._released_start(chunk * chunk_size, chunk_size, left_chunks)
        first_key = ((chunk - left_chunks) * chunk_size).clamp(min=0)
        return (keys - first_key[:, None] + start[:, None]).clamp(0, length - 1)[None, None]

    def _table(self, positions: Tensor, like: Tensor) -> Tensor:
        return sinusoids(positions, self.config.hidden_size).to(like.dtype)

    def _relative_positions(self, queries: int, keys: int, window: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Table rows of all distances inside a window, and the (queries, keys) row number of each pair.

        Queries are the last of the keys. Distances outside the window are masked anyway and share its border's row.
        """
        low, high = -(min(queries, window) - 1), min(keys, window) - 1
        distance = torch.arange(keys - queries, keys, device=like.device)[:, None] - torch.arange(
            keys, device=like.device
        )
        index = (distance.clamp(low, high) - low)[None, None]
        return self._table(torch.arange(low, high + 1, device=like.device)[None], like), index


class FreezeOmniSpeechEncoderForCTC(FreezeOmniSpeechEncoderPreTrainedModel):
    """Speech encoder with a CTC head: training stage input 1 (Freeze-Omni, section 3.3). Class 0 is the blank."""

    def __init__(self, config: FreezeOmniSpeechEncoderConfig):
        super().__init__(config)
        if config.ctc_vocab_size is None:
            raise ValueError("ctc_vocab_size is None: set the number of CTC classes (blank included) in the config.")
        self.speech_encoder = FreezeOmniSpeechEncoder(config)
        self.ctc_head = nn.Linear(config.hidden_size, config.ctc_vocab_size)
        self.post_init()

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> FreezeOmniCTCOutput | tuple:
        """CTC logits and, with ``labels`` (B, L) padded with -100, their loss: the mean over rows of -log p / L."""
        output = self.speech_encoder(input_features, attention_mask, **kwargs)
        logits = self.ctc_head(output.last_hidden_state)
        loss = None
        if labels is not None:
            lengths = (labels >= 0).sum(dim=1)
            log_probs = F.log_softmax(logits.float(), dim=-1).transpose(0, 1)
            loss = F.ctc_loss(
                log_probs, labels.clamp(min=0), output.attention_mask.sum(dim=1), lengths, zero_infinity=True
            )
        result = FreezeOmniCTCOutput(loss, logits, output.attention_mask)
        return result if (return_dict or (return_dict is None and self.config.return_dict)) else result.to_tuple()


__all__ = [
    "FreezeOmniCTCOutput",
    "FreezeOmniSpeechEncoder",
    "FreezeOmniSpeechEncoderForCTC",
    "FreezeOmniSpeechEncoderOutput",
    "chunk_mask",
]

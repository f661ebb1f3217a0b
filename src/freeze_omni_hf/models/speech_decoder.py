# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Speech decoder: from text embeddings and LLM hidden states to speech tokens (Freeze-Omni, section 3.2).

Three stacks of Llama layers: the pre-network reads the text embeddings of a segment in both directions, the prefix
layers read the LLM's hidden states in both directions and leave their keys and values in the cache, and the
autoregressive layers read prefix and text and write one speech token after the other.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm
from transformers.utils import ModelOutput

from ..configuration import FreezeOmniSpeechDecoderConfig
from .cache import StreamCache
from .reading import MOST_LETTERS, LetterReader, ReadingPlace, waits


# Room added to a decoding cache at a time; it saves copying all keys at every step.
CACHE_STEP = 128


@dataclass
class FreezeOmniSpeechDecoderOutput(ModelOutput):
    """Output of the speech decoder.

    Attributes:
        loss: Mean cross-entropy of the speech tokens and the end token, with ``labels``; a decoder with letters adds
            ``move_loss``.
        move_loss: Mean cross-entropy of how the place in the text moves, of a decoder with letters.
        logits: (B, N, codebook_size + 4).
        last_hidden_state: (B, N, hidden_size) behind the logits.
        cache: Cache for the next step (`FreezeOmniSpeechDecoder.step`).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    move_loss: Tensor | None = None
    cache: "SpeechDecoderCache | None" = None


@dataclass(frozen=True)
class SpeechDecoderCache(StreamCache):
    """Keys and values of prefix, text and speech of one segment a row.

    Attributes:
        keys: One (B, heads, C, head_dim) a layer, C the reserved room.
        values: Likewise.
        mask: (B, C) True on used places; rows of different length leave gaps.
        positions: (B,) rotary position of the next speech token.
        used: (B,) places in use up to now, the same for every row of a batch.
        reading: The place in the text, of a decoder with letters.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    positions: Tensor
    used: Tensor
    reading: ReadingPlace | None = None

    @property
    def batch_size(self) -> int:
        return self.positions.shape[0]

    @classmethod
    def cat(cls, caches: list["SpeechDecoderCache"]) -> "SpeechDecoderCache":
        """One batch from the rows of several caches; shorter ones are moved to the right."""
        used = [int(cache.used[0]) for cache in caches]
        most = max(used)

        def align(tensor: Tensor, length: int, axis: int) -> Tensor:
            tensor = tensor.narrow(axis, 0, length)
            shape = list(tensor.shape)
            shape[axis] = most - length
            return torch.cat((tensor.new_zeros(shape), tensor), dim=axis)

        def join(layers: tuple[Tensor, ...]) -> Tensor:
            return torch.cat([align(layer, length, 2) for layer, length in zip(layers, used, strict=True)])

        return cls(
            keys=tuple(join(layers) for layers in zip(*(cache.keys for cache in caches), strict=True)),
            values=tuple(join(layers) for layers in zip(*(cache.values for cache in caches), strict=True)),
            mask=torch.cat([align(cache.mask, length, 1) for cache, length in zip(caches, used, strict=True)]),
            positions=torch.cat([cache.positions for cache in caches]),
            used=torch.cat([torch.full_like(cache.used, most) for cache in caches]),
            reading=None if caches[0].reading is None else ReadingPlace.cat([cache.reading for cache in caches]),
        )


class _Writer:
    """What a Llama attention layer sees as ``past_key_values``: writes into buffers and returns what is in use."""

    def __init__(self, keys: list[Tensor], values: list[Tensor], start: int):
        self.keys, self.values, self.start = keys, values, start

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args, **kwargs) -> tuple[Tensor, Tensor]:
        end = self.start + key.shape[2]
        self.keys[layer_idx][:, :, self.start : end] = key
        self.values[layer_idx][:, :, self.start : end] = value
        return self.keys[layer_idx][:, :, :end], self.values[layer_idx][:, :, :end]


class _StaticWriter:
    """Writes one place of all reserved room, named by a tensor, and returns the room."""

    def __init__(self, keys: tuple[Tensor, ...], values: tuple[Tensor, ...], place: Tensor):
        self.keys, self.values, self.place = keys, values, place

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args, **kwargs) -> tuple[Tensor, Tensor]:
        self.keys[layer_idx].index_copy_(2, self.place, key)
        self.values[layer_idx].index_copy_(2, self.place, value)
        return self.keys[layer_idx], self.values[layer_idx]


class _Collector:
    """The differentiable counterpart for the prefix: keeps the keys and values of each layer."""

    def __init__(self):
        self.layers: list[tuple[Tensor, Tensor]] = []

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args, **kwargs) -> tuple[Tensor, Tensor]:
        self.layers.append((key, value))
        return key, value


class _Joiner:
    """Puts the collected prefix before each layer's own keys and values; it may be asked again when a checkpointed
    layer is recomputed."""

    def __init__(self, prefix: list[tuple[Tensor, Tensor]]):
        self.prefix = prefix

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args, **kwargs) -> tuple[Tensor, Tensor]:
        past_key, past_value = self.prefix[layer_idx]
        return torch.cat((past_key, key), dim=2), torch.cat((past_value, value), dim=2)


class FreezeOmniSpeechDecoder(PreTrainedModel):
    """Speech decoder with pre-network, prefix layers and autoregressive layers."""

    config: FreezeOmniSpeechDecoderConfig
    base_model_prefix = "speech_decoder"
    main_input_name = "text_embeds"
    input_modalities = ("text",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["LlamaDecoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: FreezeOmniSpeechDecoderConfig):
        super().__init__(config)
        size = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_speech_token_id)
        if config.uses_projection:
            self.text_proj = nn.Linear(config.llm_hidden_size, size)
            if config.use_prefix:
                self.prefix_proj = nn.Linear(config.llm_hidden_size, size)
        self.reader = LetterReader(size, config.num_tokens) if config.letters else None
        self.pre_layers = self._stack(config.num_pre_layers)
        self.prefix_layers = self._stack(config.num_hidden_layers if config.use_prefix else 0)
        self.layers = self._stack(config.num_hidden_layers)
        self.norm = LlamaRMSNorm(size, eps=config.rms_norm_eps)
        self.head = nn.Linear(size, config.vocab_size)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.post_init()

    def _stack(self, count: int) -> nn.ModuleList:
        layers = nn.ModuleList(LlamaDecoderLayer(self.config, index) for index in range(count))
        for layer in layers:
            # Every mask is given explicitly; without one a layer sees everything.
            layer.self_attn.is_causal = False
        return layers

    # Inputs

    def text_rows(self, vectors: Tensor) -> Tensor:
        """LLM text embeddings (B, T, llm_hidden_size) as decoder positions (B, T · rows_per_token, hidden_size)."""
        return self._rows(vectors, "text_proj")

    def prefix_rows(self, vectors: Tensor) -> Tensor:
        """LLM hidden states (B, T, llm_hidden_size) as decoder positions (B, T · rows_per_token, hidden_size)."""
        return self._rows(vectors, "prefix_proj")

    def _rows(self, vectors: Tensor, projection: str) -> Tensor:
        if vectors.shape[-1] != self.config.llm_hidden_size:
            raise ValueError(
                f"The speech decoder reads LLM vectors of width {self.config.llm_hidden_size}, not "
                f"{vectors.shape[-1]}."
            )
        vectors = vectors.to(self.embedding.weight.dtype)
        if self.config.uses_projection:
            return getattr(self, projection)(vectors)
        return vectors.reshape(vectors.shape[0], -1, self.config.hidden_size)

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (B, N, head_dim) of positions (B, N)."""
        size = self.config.head_dim
        rates = self.config.rope_theta ** (
            -torch.arange(0, size, 2, dtype=torch.float32, device=positions.device) / size
        )
        angles = positions.float().unsqueeze(-1) * rates
        angles = torch.cat((angles, angles), dim=-1)
        dtype = self.embedding.weight.dtype
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def _attention_mask(self, keys: Tensor, queries: int) -> Tensor | None:
        """Mask in the form the attention implementation takes: all ``queries`` see the True ``keys`` (B, K)."""
        if bool(keys.all()):
            return None
        if "flash" in self.config._attn_implementation:
            return keys
        return self._additive(keys[:, None, None, :].expand(-1, 1, queries, -1))

    def _additive(self, visible: Tensor) -> Tensor:
        dtype = self.embedding.weight.dtype
        return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
            ~visible, torch.finfo(dtype).min
        )

    def _run(self, layers: nn.ModuleList, hidden: Tensor, positions: Tensor, mask: Tensor | None, past=None) -> Tensor:
        rotary = self._rotary(positions)
        for layer in layers:
            # Gradient checkpointing would lose a keyword called past_key_values, and what a collector keeps.
            call = nn.Module.__call__ if isinstance(past, _Collector) else type(layer).__call__
            hidden = call(layer, hidden, mask, None, past, position_embeddings=rotary)
        return hidden

    def pre_network(self, text: Tensor, text_mask: Tensor | None = None) -> Tensor:
        """Bidirectional layers over text rows (B, T, hidden_size) with mask (B, T)."""
        mask = None if text_mask is None else self._attention_mask(text_mask.bool(), text.shape[1])
        return self._run(self.pre_layers, text, _arange(text), mask)

    # Teacher forcing

    def forward(
        self,
        text_embeds: Tensor,
        text_mask: Tensor | None = None,
        prefix_embeds: Tensor | None = None,
        prefix_mask: Tensor | None = None,
        labels: Tensor | None = None,
        speech_positions: Tensor | None = None,
        read_tokens: Tensor | None = None,
        text_ids: Tensor | None = None,
        places: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> FreezeOmniSpeechDecoderOutput | tuple:
        """Teacher-forced logits and loss of a padded batch; a row's result does not depend on its neighbours.

        Args:
            text_embeds: (B, T, llm_hidden_size) LLM input embeddings of the segments' text.
            text_mask: (B, T), 1 on real vectors; rows are padded at their end.
            prefix_embeds: (B, P, llm_hidden_size) LLM hidden states of the segments.
            prefix_mask: (B, P).
            labels: (B, N) speech tokens, -100 where padded.
            speech_positions: (B,) rotary position of the start-of-speech token; by default the number of text rows
                of each row plus one.
            read_tokens: (B, N) speech tokens that are read in the place of ``labels``, which stay what is predicted.
            text_ids: (B, T) the tokens of ``text_embeds``, of a decoder with letters.
            places: (B, N + 1) the letter (`LetterReader.spell`) at which each speech token and the end are said, of
                a decoder with letters.

        Returns:
            Logits (B, N + 1, vocab): row n predicts token n, the one after the last token predicts the end.
        """
        if labels is None:
            raise ValueError("labels are needed for teacher forcing; `prefill` and `step` generate.")
        if "flash" in self.config._attn_implementation:
            raise ValueError("Teacher forcing needs a mixed mask that flash kernels do not take; use sdpa or eager.")
        config = self.config
        text, text_mask = self._read(text_embeds, text_mask, text_ids)
        batch, count = labels.shape
        lengths = (labels >= 0).sum(dim=1)
        steps = torch.arange(count + 1, device=labels.device)
        targets = F.pad(labels, (0, 1), value=-100).masked_fill(steps == lengths[:, None], config.eos_speech_token_id)
        tokens = labels if read_tokens is None else read_tokens
        tokens = tokens.masked_fill(labels < 0, config.pad_speech_token_id)
        speech = self.embedding(F.pad(tokens, (1, 0), value=config.bos_speech_token_id))

        start = self.embedding.weight[config.text_start_token_id].expand(batch, 1, -1)
        text = self.pre_network(text, text_mask)
        if self.reader is not None:
            if places is None:
                raise ValueError(
                    "A speech decoder with letters is trained on places: the letter of each speech token."
                )
            places = places.clamp(max=text.shape[1] - 1)
            speech = speech + self.reader.told(text, places, waits(places))
        text = torch.cat((start, text), dim=1)
        text_mask = F.pad(text_mask, (1, 0), value=True)
        past, prefix_valid = None, text_mask[:, :0]
        if prefix_embeds is not None and config.use_prefix:
            prefix, prefix_valid = self._masked_rows(prefix_embeds, prefix_mask, self.prefix_rows)
            mask = self._attention_mask(prefix_valid, prefix.shape[1])
            collector = _Collector()
            self._run(self.prefix_layers, prefix, _arange(prefix), mask, collector)
            past = _Joiner(collector.layers)

        rows = torch.cat((prefix_valid, text_mask), dim=1)
        speech_valid = steps <= lengths[:, None]
        visible_text = torch.cat((rows, torch.zeros_like(speech_valid)), dim=1)[:, None]
        causal = (steps[:, None] >= steps)[None] & speech_valid[:, None]
        visible_speech = torch.cat((rows[:, None].expand(-1, count + 1, -1), causal), dim=2)
        visible = torch.cat((visible_text.expand(-1, text.shape[1], -1), visible_speech), dim=1)
        if speech_positions is None:
            speech_positions = text_mask.sum(dim=1)
        positions = torch.cat((_arange(text), speech_positions[:, None] + steps), dim=1)
        hidden = self.dropout(torch.cat((text, speech), dim=1))
        hidden = self._run(self.layers, hidden, positions, self._additive(visible[:, None]), past)
        hidden = self.norm(hidden[:, text.shape[1] :])
        logits = self.head(hidden)
        loss, move_loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100), None
        if self.reader is not None:
            moves = self.reader.move_head(hidden[:, :-1]).float()
            wanted = (places[:, 1:] - places[:, :-1]).clamp(0, MOST_LETTERS).masked_fill(labels < 0, -100)
            move_loss = F.cross_entropy(moves.flatten(0, 1), wanted.flatten(), ignore_index=-100)
            loss = loss + move_loss
        output = FreezeOmniSpeechDecoderOutput(loss, logits, hidden, move_loss)
        return output if (return_dict or (return_dict is None and config.return_dict)) else output.to_tuple()

    def _read(self, vectors: Tensor, mask: Tensor | None, ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """Text positions and their mask: of tokens, or of their letters."""
        text, valid = self._masked_rows(vectors, mask, self.text_rows)
        if self.reader is None:
            return text, valid
        if ids is None:
            raise ValueError("A speech decoder with letters needs the tokens of its text (text_ids).")
        return self.reader.rows(text, ids.to(text.device), valid)

    def _masked_rows(self, vectors: Tensor, mask: Tensor | None, to_rows) -> tuple[Tensor, Tensor]:
        if mask is None:
            mask = torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
        return to_rows(vectors), mask.bool().repeat_interleave(self.config.rows_per_token, dim=1)

    # Generation

    @torch.no_grad()
    def prefill(
        self,
        text_embeds: Tensor,
        text_mask: Tensor | None = None,
        prefix_embeds: Tensor | None = None,
        prefix_mask: Tensor | None = None,
        text_ids: Tensor | None = None,
    ) -> SpeechDecoderCache:
        """Read prefix and text of one segment a row; arguments as in `forward`. Speech follows with `step`."""
        text, text_valid = self._read(text_embeds, text_mask, text_ids)
        start = self.embedding.weight[self.config.text_start_token_id].expand(text.shape[0], 1, -1)
        text, reading = self.pre_network(text, text_valid), None
        if self.reader is not None:
            first = text_valid.new_zeros(len(text), dtype=torch.long)
            reading = ReadingPlace(
                text, text_valid.sum(dim=1), first, first, torch.ones_like(first, dtype=torch.float)
            )
        hidden = torch.cat((start, text), dim=1)
        text_valid = F.pad(text_valid, (1, 0), value=True)
        prefix, prefix_valid = None, text_valid[:, :0]
        if prefix_embeds is not None and self.config.use_prefix:
            prefix, prefix_valid = self._masked_rows(prefix_embeds, prefix_mask, self.prefix_rows)

        offset = prefix_valid.shape[1]
        used = offset + hidden.shape[1]
        shape = (hidden.shape[0], self.config.num_attention_heads, used + CACHE_STEP, self.config.head_dim)
        keys = [hidden.new_zeros(shape) for _ in self.layers]
        values = [hidden.new_zeros(shape) for _ in self.layers]
        if prefix is not None:
            mask = self._attention_mask(prefix_valid, offset)
            self._run(self.prefix_layers, prefix, _arange(prefix), mask, _Writer(keys, values, 0))
        valid = torch.cat((prefix_valid, text_valid), dim=1)
        mask = self._attention_mask(valid, hidden.shape[1])
        self._run(self.layers, hidden, _arange(hidden), mask, _Writer(keys, values, offset))
        return SpeechDecoderCache(
            keys=tuple(keys),
            values=tuple(values),
            mask=F.pad(valid, (0, CACHE_STEP)),
            positions=text_valid.sum(dim=1),
            used=torch.full((hidden.shape[0],), used, device=hidden.device),
            reading=reading,
        )

    @torch.no_grad()
    def step(self, tokens: Tensor, cache: SpeechDecoderCache) -> FreezeOmniSpeechDecoderOutput:
        """Read one speech token a row and predict the next.

        The new cache continues in the room of the old one, so an older cache can be kept but must not be stepped
        again without a copy.

        Args:
            tokens: (B,) last speech tokens; the start-of-speech token first.
            cache: From `prefill` or the last step.
        """
        keys, values, mask = cache.keys, cache.values, cache.mask
        if int(cache.used[0]) == mask.shape[1]:
            keys = tuple(F.pad(layer, (0, 0, 0, CACHE_STEP)) for layer in keys)
            values = tuple(F.pad(layer, (0, 0, 0, CACHE_STEP)) for layer in values)
            mask = F.pad(mask, (0, CACHE_STEP))
        speech, reading = self.embedding(tokens).unsqueeze(1), cache.reading
        if reading is not None:
            speech = speech + self.reader.told(reading.text, reading.place[:, None], reading.waited[:, None])
        logits, hidden, mask = self._step(speech, keys, values, mask, cache.positions, cache.used)
        if reading is not None:
            logits = self.reader.hold(logits, reading, self.config.eos_speech_token_id)
            reading = self.reader.move(hidden[:, 0], reading)
        cache = SpeechDecoderCache(keys, values, mask, cache.positions + 1, cache.used + 1, reading)
        return FreezeOmniSpeechDecoderOutput(logits=logits, last_hidden_state=hidden, cache=cache)

    def _step(
        self,
        speech: Tensor,
        keys: tuple[Tensor, ...],
        values: tuple[Tensor, ...],
        mask: Tensor,
        positions: Tensor,
        used: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step over all reserved room: its shapes do not change, so it can be compiled (`compile_steps`)."""
        mask = mask | (torch.arange(mask.shape[1], device=mask.device) == used[0])
        visible = mask if "flash" in self.config._attn_implementation else self._additive(mask[:, None, None, :])
        writer = _StaticWriter(keys, values, used[:1])
        hidden = self.norm(self._run(self.layers, speech, positions[:, None], visible, writer))
        return self.head(hidden), hidden, mask

    def compile_steps(self, **kwargs) -> None:
        """Compile the step with ``torch.compile(**kwargs)``; a new batch size or more room compiles once more."""
        self._step = torch.compile(self._step, **{"fullgraph": True, "dynamic": False, **kwargs})


def _arange(rows: Tensor) -> Tensor:
    return torch.arange(rows.shape[1], device=rows.device).expand(rows.shape[0], -1)


__all__ = ["FreezeOmniSpeechDecoder", "FreezeOmniSpeechDecoderOutput", "SpeechDecoderCache"]

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Explicit, batch-first streaming caches.

Nothing of a stream is kept inside a module: a cache goes into every streaming call and a new one comes out, so any
worker can continue any conversation, rows of several conversations can be stepped as one batch, and an older cache
stays valid after a newer one was made from it.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class StreamCache:
    """A set of tensors (or tuples of tensors, one a layer) whose first axis is the batch."""

    def _map(self, function) -> Self:
        changed = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = function(value)
            elif isinstance(value, tuple):
                changed[field.name] = tuple(function(item) for item in value)
            elif isinstance(value, StreamCache):
                changed[field.name] = value._map(function)
        return replace(self, **changed)

    @property
    def batch_size(self) -> int:
        value = getattr(self, fields(self)[0].name)
        return value.batch_size if isinstance(value, StreamCache) else value.shape[0]

    def __len__(self) -> int:
        return self.batch_size

    def select(self, rows: Tensor | list[int]) -> Self:
        """The cache of some rows (indices or a boolean mask), in the given order."""
        rows = torch.as_tensor(rows)
        return self._map(lambda tensor: tensor[rows.to(tensor.device)])

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The same cache on another device or in another floating-point type."""
        return self._map(
            lambda tensor: (
                tensor.to(*args, **kwargs)
                if tensor.is_floating_point()
                else tensor.to(*[a for a in args if not isinstance(a, torch.dtype)], **_without_dtype(kwargs))
            )
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Flat names and tensors, for ``safetensors`` or any other store."""
        flat = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                flat[field.name] = value
            elif isinstance(value, tuple):
                flat.update({f"{field.name}.{index}": item for index, item in enumerate(value)})
            elif isinstance(value, StreamCache):
                flat.update({f"{field.name}.{name}": item for name, item in value.state_dict().items()})
        return flat

    def load_state_dict(self, state: dict[str, Tensor]) -> Self:
        """A cache like this one with the tensors of ``state`` (see `state_dict`)."""
        changed = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = state[field.name]
            elif isinstance(value, tuple):
                changed[field.name] = tuple(state[f"{field.name}.{index}"] for index in range(len(value)))
            elif isinstance(value, StreamCache):
                prefix = f"{field.name}."
                inner = {name[len(prefix) :]: item for name, item in state.items() if name.startswith(prefix)}
                changed[field.name] = value.load_state_dict(inner)
        return replace(self, **changed)


def _without_dtype(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key != "dtype"}


@dataclass(frozen=True)
class SpeechEncoderCache(StreamCache):
    """Left context of the speech encoder.

    Attributes:
        frames: (B, 3, num_mel_bins) last input frames, for the subsampling.
        keys: One (B, heads, W, head_dim) a layer, the newest frame last; W is the longest left context of the batch.
        values: Likewise.
        lengths: (B,) encoder frames that each row has seen.
    """

    frames: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    lengths: Tensor

    @classmethod
    def cat(cls, caches: list["SpeechEncoderCache"]) -> "SpeechEncoderCache":
        """One batch from the rows of several caches, also of streams of different age."""
        width = max(cache.keys[0].shape[2] for cache in caches)

        def join(layers: list[Tensor]) -> Tensor:
            return torch.cat([F.pad(layer, (0, 0, width - layer.shape[2], 0)) for layer in layers])

        return cls(
            frames=torch.cat([cache.frames for cache in caches]),
            keys=tuple(join(list(layers)) for layers in zip(*(cache.keys for cache in caches), strict=True)),
            values=tuple(join(list(layers)) for layers in zip(*(cache.values for cache in caches), strict=True)),
            lengths=torch.cat([cache.lengths for cache in caches]),
        )


@dataclass(frozen=True)
class AdapterCache(StreamCache):
    """Last inputs of the adapter's causal convolutions: one (B, channels, kernel_size - 1) a convolution.

    ``batch`` carries the batch size also where an adapter has no convolution.
    """

    batch: Tensor
    inputs: tuple[Tensor, ...] = ()

    @classmethod
    def cat(cls, caches: list["AdapterCache"]) -> "AdapterCache":
        """One batch from the rows of several caches."""
        return cls(
            batch=torch.cat([cache.batch for cache in caches]),
            inputs=tuple(torch.cat(items) for items in zip(*(cache.inputs for cache in caches), strict=True)),
        )


@dataclass(frozen=True)
class AudioCache(StreamCache):
    """What a listening stream remembers between chunks: speech encoder and adapter."""

    encoder: SpeechEncoderCache
    adapter: AdapterCache

    @classmethod
    def cat(cls, caches: list["AudioCache"]) -> "AudioCache":
        """One batch from the rows of several caches."""
        return cls(
            encoder=SpeechEncoderCache.cat([cache.encoder for cache in caches]),
            adapter=AdapterCache.cat([cache.adapter for cache in caches]),
        )


__all__ = ["AdapterCache", "AudioCache", "SpeechEncoderCache", "StreamCache"]

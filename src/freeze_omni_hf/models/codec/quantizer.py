# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Vector quantiser: latents to codes and back."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ...configuration.codec import FreezeOmniCodecConfig


@dataclass
class QuantizerOutput:
    """What quantising a batch gives.

    Args:
        quantized: (B, T, D) codebook vectors; gradients pass straight through to the latents.
        codes: (B, T, num_codebooks) ids, residual layer by residual layer, the groups of a layer side by side.
        codebook_loss: Scalar, draws codebook entries to the latents (not weighted).
        commitment_loss: Scalar, draws latents to codebook entries (not weighted).
    """

    quantized: torch.Tensor
    codes: torch.Tensor
    codebook_loss: torch.Tensor
    commitment_loss: torch.Tensor


class FreezeOmniCodebook(nn.Embedding):
    """One codebook: nearest entry by Euclidean distance."""

    def nearest(self, vectors: torch.Tensor) -> torch.Tensor:
        """Ids (...) of the entries nearest to ``vectors`` (..., D); distances are taken in float32."""
        flat = vectors.detach().reshape(-1, self.embedding_dim).float()
        entries = self.weight.detach().float()
        with torch.autocast(flat.device.type, enabled=False):
            distances = flat.square().sum(1, keepdim=True) + entries.square().sum(1) - 2 * flat @ entries.t()
        return distances.argmin(dim=1).view(vectors.shape[:-1])


class FreezeOmniQuantizer(nn.Module):
    """Codebooks of the speech tokens and of the global (speaker) tokens (TiCodec, arXiv 2310.00014)."""

    def __init__(self, config: FreezeOmniCodecConfig):
        super().__init__()
        self.groups = config.num_code_groups
        self.layers = config.num_residual_layers
        group_size = config.latent_size // self.groups
        self.codebooks = nn.ModuleList(
            FreezeOmniCodebook(config.codebook_size, group_size) for _ in range(config.num_codebooks)
        )
        self.global_codebooks = nn.ModuleList(
            FreezeOmniCodebook(config.num_speaker_codes, config.speaker_size // config.num_global_tokens)
            for _ in range(config.num_global_tokens)
        )

    def forward(self, latents: torch.Tensor, mask: torch.Tensor | None = None) -> QuantizerOutput:
        """Quantises ``latents`` (B, T, D); ``mask`` (B, T) says which ones count in the losses."""
        residual, quantized, codes = latents, 0, []
        codebook_loss = commitment_loss = latents.new_zeros((), dtype=torch.float32)
        for layer in range(self.layers):
            books = self.codebooks[layer * self.groups : (layer + 1) * self.groups]
            vectors, ids = _look_up(books, residual)
            codebook_loss = codebook_loss + _mean_square(vectors, residual.detach(), mask) / self.layers
            commitment_loss = commitment_loss + _mean_square(vectors.detach(), residual, mask) / self.layers
            quantized = quantized + vectors
            residual = residual - vectors.detach()
            codes.append(ids)
        quantized = latents + (quantized - latents).detach()
        return QuantizerOutput(quantized, torch.cat(codes, dim=-1), codebook_loss, commitment_loss)

    def quantize_global(self, vectors: torch.Tensor) -> QuantizerOutput:
        """Quantises speaker vectors (B, S); ``codes`` is (B, num_global_tokens)."""
        found, ids = _look_up(self.global_codebooks, vectors)
        return QuantizerOutput(
            vectors + (found - vectors).detach(),
            ids,
            _mean_square(found, vectors.detach(), None),
            _mean_square(found.detach(), vectors, None),
        )

    def embed(self, codes: torch.Tensor) -> torch.Tensor:
        """Latents (B, T, D) of ``codes`` (B, T, num_codebooks): groups side by side, residual layers summed."""
        vectors = [book(codes[..., index]) for index, book in enumerate(self.codebooks)]
        layers = [
            torch.cat(vectors[start : start + self.groups], dim=-1) for start in range(0, len(vectors), self.groups)
        ]
        return sum(layers[1:], layers[0])

    def embed_global(self, global_tokens: torch.Tensor) -> torch.Tensor:
        """Speaker vectors (B, S) of ``global_tokens`` (B, num_global_tokens)."""
        return torch.cat([book(global_tokens[:, index]) for index, book in enumerate(self.global_codebooks)], dim=-1)

    @torch.no_grad()
    def reset_codes(
        self, latents: torch.Tensor, unused: torch.Tensor | None = None, generator: torch.Generator | None = None
    ) -> int:
        """Puts latents drawn at random in place of codebook entries, so that training starts with a used codebook.

        Works on the first residual layer, the only one of the released codec.

        Args:
            latents: (M, D) latents of real speech (padding left out).
            unused: (codebook_size,) boolean, the entries to replace; None replaces all.
            generator: Random generator on the CPU.

        Returns:
            Number of entries replaced in each codebook.
        """
        size = self.codebooks[0].num_embeddings
        chosen = torch.arange(size) if unused is None else unused.cpu().nonzero()[:, 0]
        # Every latent once before any is taken twice.
        order = torch.randperm(len(latents), generator=generator)
        picks = order.repeat(-(-len(chosen) // max(len(order), 1)))[: len(chosen)].to(latents.device)
        for book, part in zip(self.codebooks[: self.groups], latents.chunk(self.groups, dim=-1), strict=True):
            book.weight[chosen.to(book.weight.device)] = part[picks].to(book.weight)
        return len(chosen)


def _look_up(books: nn.ModuleList, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest entries (..., D) of ``vectors`` (..., D), split over the codebooks, and their ids (..., len(books))."""
    parts = vectors.chunk(len(books), dim=-1)
    ids = [book.nearest(part) for book, part in zip(books, parts, strict=True)]
    found = torch.cat([book(index) for book, index in zip(books, ids, strict=True)], dim=-1)
    return found, torch.stack(ids, dim=-1)


def _mean_square(first: torch.Tensor, second: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return F.mse_loss(first.float(), second.float())
    squares = (first.float() - second.float()).square().mean(dim=-1)
    return (squares * mask).sum() / mask.sum()

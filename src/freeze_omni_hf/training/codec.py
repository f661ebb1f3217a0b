# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Training stage output 1: the codec, from speech alone (Freeze-Omni, section 3.2).

Generator and critics are trained in one backward pass: the generator listens to critics whose weights are held
fixed, and the critics look at sound that is cut off from the generator. So one optimizer, and `Trainer` as it is, do
for both.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ..configuration import FreezeOmniCodecConfig
from ..models import FreezeOmniCodec
from ..models.letters import CHARACTERS
from .spectral import MelDistance, SpectrumCritics, critic_loss, generator_losses


PHONETIC_FILE = "phonetic_head.safetensors"


@dataclass
class CodecLosses:
    """Weights of the codec's losses, and how its codebook is kept in use.

    Attributes:
        mel: Of the distance of log-mel spectra.
        quantizer: Of codebook and commitment loss (themselves weighted by the codec's configuration).
        phonetic: Of a CTC loss on the text, read off the quantised latents by a small network that is thrown away: a
            code that says which sound it is can be predicted from text. 0 needs no texts.
        adversarial, matching: Of the critics' opinion and of the distance of their features.
        critic_channels: Width of the critics.
        critic_samples: Samples of each row that the critics look at.
        piece_tokens: Speech tokens of each row that become sound in training, from anywhere in it; most of a step's
            time goes into sound, and whole rows teach little more. 0 makes the sound of whole rows.
        critic_start: Steps before they do.
        quantize_from: Step from which on latents are quantised; before it the codec is a plain autoencoder, so that
            the codebook is filled with latents that mean something.
        codebook_decay: A code is the running mean of its latents, with this decay a step (arXiv 1711.00937, A.1).
        revive_every: Steps after which codes that are not used are replaced by latents of the batch.
        revive_below: Uses of a code, as a share of an even use of all, below which it counts as not used.
    """

    mel: float = 1.0
    quantizer: float = 1.0
    phonetic: float = 0.3
    adversarial: float = 0.05
    matching: float = 0.1
    critic_channels: int = 16
    critic_samples: int = 12000
    piece_tokens: int = 0
    critic_start: int = 400
    quantize_from: int = 150
    codebook_decay: float = 0.97
    revive_every: int = 50
    revive_below: float = 0.05


@dataclass
class CodecTrainingOutput(ModelOutput):
    """Output of `FreezeOmniForCodec`.

    Attributes:
        loss: Weighted sum.
        mel_loss, quantizer_loss, phonetic_loss, adversarial_loss, matching_loss, critic_loss: Its parts, where they
            have a weight by now.
        audio_codes: (B, N) speech tokens, -1 behind the end of a row.
    """

    loss: Tensor | None = None
    mel_loss: Tensor | None = None
    quantizer_loss: Tensor | None = None
    phonetic_loss: Tensor | None = None
    adversarial_loss: Tensor | None = None
    matching_loss: Tensor | None = None
    critic_loss: Tensor | None = None
    audio_codes: Tensor | None = None


class PhoneticHead(nn.Module):
    """Quantised latents (B, N, D) to logits of letters (B, N, 29)."""

    def __init__(self, latent_size: int, hidden_size: int = 256):
        super().__init__()
        self.conv1 = nn.Conv1d(latent_size, hidden_size, 5, padding=2)
        self.conv2 = nn.Conv1d(hidden_size, hidden_size, 5, padding=2)
        self.out = nn.Linear(hidden_size, len(CHARACTERS) + 1)

    def forward(self, latents: Tensor) -> Tensor:
        hidden = F.gelu(self.conv1(latents.transpose(1, 2)))
        return self.out(F.gelu(self.conv2(hidden)).transpose(1, 2))


def save_phonetic_head(head: PhoneticHead | None, folder: str | Path) -> None:
    """Keeps the network that read letters off a codec's latents beside the codec: it can place letters in time."""
    if head is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(
            {name: value.contiguous() for name, value in head.state_dict().items()}, Path(folder) / PHONETIC_FILE
        )


def load_phonetic_head(folder: str | Path) -> PhoneticHead | None:
    """The network that `save_phonetic_head` kept; None where there is none."""
    file = Path(folder) / PHONETIC_FILE
    if not file.is_file():
        return None
    weights = load_file(file)
    hidden, latent = weights["conv1.weight"].shape[:2]
    head = PhoneticHead(latent, hidden)
    head.load_state_dict(weights)
    return head.eval()


class FreezeOmniForCodec(PreTrainedModel):
    """A codec with the losses that train it.

    Args:
        codec: What is trained.
        losses: Weights.
        generator_only: Tokens stay what they are, and only what makes sound of them is trained: a speech decoder that
            says these tokens then sounds better without any training of its own.
    """

    config: FreezeOmniCodecConfig
    base_model_prefix = "codec"
    main_input_name = "input_values"
    accepts_loss_kwargs = False

    def __init__(self, codec: FreezeOmniCodec, losses: CodecLosses | None = None, generator_only: bool = False):
        super().__init__(codec.config)
        if codec.config.num_codebooks != 1:
            raise ValueError("Stage output 1 trains a codec with one codebook; this one has more.")
        self.codec, self.losses = codec, losses or CodecLosses()
        self.mel_distance = MelDistance(codec.config.sampling_rate)
        self.generator_only = generator_only
        codec.encoder.requires_grad_(not generator_only)
        self.phonetic_head = None
        if self.losses.phonetic and not generator_only:
            self.phonetic_head = PhoneticHead(codec.config.latent_size)
        self.critics = None
        if self.losses.adversarial or self.losses.matching:
            self.critics = SpectrumCritics(self.losses.critic_channels)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        # The codebook is no matter of gradients: see `_follow`.
        codec.quantizer.codebooks.requires_grad_(False)
        self.register_buffer("uses", torch.zeros(codec.config.codebook_size))
        self.register_buffer("code_sums", torch.zeros(codec.config.codebook_size, codec.config.latent_size))
        self.register_buffer("code_counts", torch.zeros(codec.config.codebook_size))
        self.parts: dict[str, float] = {}

    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> CodecTrainingOutput | tuple:
        """Losses of a padded batch.

        Args:
            input_values: (B, T) samples at the codec's rate.
            padding_mask: (B, T).
            labels: (B, C) classes of the letters (`character_ids`), -100 where padded; for the phonetic loss.
        """
        weights, codec = self.losses, self.codec
        if self.training and not self.generator_only:
            self._tend_codebook(input_values, padding_mask)
        starts, size = self._piece_starts(input_values, padding_mask) if self.training else (None, None)
        quantize = not self.training or self.generator_only or int(self.steps) >= weights.quantize_from
        made = codec(input_values, padding_mask, starts, size, quantize, return_dict=True)
        lengths, wanted = made.audio_lengths, input_values
        if starts is not None:
            wanted = _cut(input_values, (starts * codec.config.samples_per_token).tolist(), made.audio_values.shape[1])
        wanted = wanted[:, : made.audio_values.shape[1]]
        output = CodecTrainingOutput(
            mel_loss=self.mel_distance(made.audio_values, wanted, lengths),
            quantizer_loss=codec.config.commitment_loss_weight * made.commitment_loss,
        )
        loss = weights.mel * output.mel_loss
        if quantize:
            loss = loss + weights.quantizer * output.quantizer_loss
        if self.phonetic_head is not None and labels is not None:
            scores = self.phonetic_head(made.quantized).float().log_softmax(dim=-1).transpose(0, 1)
            output.phonetic_loss = mean_ctc_loss(scores, labels, made.code_lengths)
            loss = loss + weights.phonetic * output.phonetic_loss
        if self.critics is not None and self.training:
            loss = loss + self._criticise(output, made.audio_values, wanted, lengths)
        steps = torch.arange(made.audio_codes.shape[1], device=input_values.device)
        output.audio_codes = made.audio_codes.masked_fill(steps >= made.code_lengths[:, None], -1)
        if self.training:
            if quantize and not self.generator_only:
                self._follow(made.latents, output.audio_codes)
            self.steps += 1
        output.loss = loss
        self.parts = {
            name.removesuffix("_loss"): float(value.detach())
            for name, value in output.items()
            if name.endswith("_loss") and value is not None
        }
        return output.to_tuple() if return_dict is False else output

    def _criticise(self, output: CodecTrainingOutput, made: Tensor, wanted: Tensor, lengths: Tensor) -> Tensor:
        weights = self.losses
        if int(self.steps) < weights.critic_start:
            # Every parameter has a gradient in every step, as DistributedDataParallel wants it.
            return 0.0 * sum(parameter.sum() for parameter in self.critics.parameters())
        made, wanted = self._pieces(made, wanted, lengths)
        real, opinions = self.critics(wanted), self.critics.opinions(made)
        output.adversarial_loss, output.matching_loss = generator_losses(real, opinions)
        output.critic_loss = critic_loss(real, self.critics(made.detach()))
        return (
            weights.adversarial * output.adversarial_loss
            + weights.matching * output.matching_loss
            + output.critic_loss
        )

    def _pieces(self, made: Tensor, wanted: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """A piece of each row, from anywhere in it."""
        size = min(self.losses.critic_samples, made.shape[1])
        starts = self._anywhere(lengths, size)
        return _cut(made, starts, size), _cut(wanted, starts, size)

    def _piece_starts(
        self, input_values: Tensor, padding_mask: Tensor | None
    ) -> tuple[Tensor, int] | tuple[None, None]:
        """Token at which the sound that is made of each row begins, and its tokens."""
        if not self.losses.piece_tokens:
            return None, None
        per_token = self.config.samples_per_token
        size = min(self.losses.piece_tokens, input_values.shape[1] // per_token)
        lengths = torch.full((len(input_values),), input_values.shape[1], device=input_values.device)
        if padding_mask is not None:
            lengths = padding_mask.sum(dim=1)
        return torch.tensor(self._anywhere(lengths // per_token, size), device=input_values.device), size

    def _anywhere(self, lengths: Tensor, size: int) -> list[int]:
        """A random start of a piece of ``size`` in each row; the same in a run that is resumed."""
        generator = torch.Generator().manual_seed(int(self.steps))
        room = (lengths - size).clamp(min=0).tolist()
        return [int(torch.randint(most + 1, (), generator=generator)) for most in room]

    @torch.no_grad()
    def _tend_codebook(self, input_values: Tensor, padding_mask: Tensor | None) -> None:
        """At first the codebook is filled with latents; later, codes that fell out of use get a new place."""
        weights = self.losses
        step = int(self.steps) - weights.quantize_from
        if step < 0 or step % weights.revive_every:
            return
        unused = None
        if step:
            unused = self.uses < weights.revive_below * self.uses.mean()
            if not bool(unused.any()):
                return
        was_training = self.codec.training
        self.codec.eval()
        samples, lengths = self.codec._check_audio(input_values, padding_mask)
        latents = self.codec.encoder(samples, lengths)[0].transpose(1, 2)
        if lengths is not None:
            real = torch.arange(latents.shape[1], device=latents.device)
            latents = latents[real < (lengths // self.config.samples_per_token)[:, None]]
        self.codec.train(was_training)
        quantizer = self.codec.quantizer
        quantizer.reset_codes(latents.flatten(0, -2), unused, torch.Generator().manual_seed(step))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast(quantizer.codebooks[0].weight.data, 0)
        new = slice(None) if unused is None else unused
        self.uses[new] = self.uses.mean() if step else 1.0
        self.code_counts[new] = 1.0
        self.code_sums[new] = quantizer.codebooks[0].weight[new].float()

    @torch.no_grad()
    def _follow(self, latents: Tensor, codes: Tensor) -> None:
        """Draws each code to the running mean of its latents."""
        real = codes >= 0
        chosen = F.one_hot(codes[real], len(self.uses)).to(self.code_sums)
        counts, sums = chosen.sum(dim=0), chosen.t() @ latents[real].to(self.code_sums)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
            torch.distributed.all_reduce(sums)
        decay = self.losses.codebook_decay
        self.uses.mul_(0.98).add_(counts, alpha=0.02)
        self.code_counts.mul_(decay).add_(counts, alpha=1 - decay)
        self.code_sums.mul_(decay).add_(sums, alpha=1 - decay)
        # A code that is not used stays where it is.
        means = self.code_sums / self.code_counts.clamp(min=1e-6)[:, None]
        (book,) = self.codec.quantizer.codebooks
        book.weight.copy_(torch.where((counts > 0)[:, None], means, book.weight.float()))

    def figures(self) -> dict[str, float]:
        """Parts of the last loss, and the share of codes that are in use."""
        if self.generator_only:
            return self.parts
        used = self.uses > self.losses.revive_below * self.uses.mean()
        return {**self.parts, "codes_used": float(used.float().mean())}


def mean_ctc_loss(scores: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
    """Mean CTC loss a letter of (N, B, classes) log-probabilities; rows without letters say nothing.

    Args:
        scores: (N, B, classes), 0 the blank.
        labels: (B, C) letters, -100 where padded.
        lengths: (B,) steps of each row.
    """
    counts = (labels >= 0).sum(dim=1)
    losses = F.ctc_loss(scores, labels.clamp(min=0), lengths, counts, reduction="none", zero_infinity=True)
    # Without letters CTC would ask for silence.
    return torch.where(counts > 0, losses / counts.clamp(min=1), 0.0).sum() / (counts > 0).sum().clamp(min=1)


def _cut(wave: Tensor, starts: list[int], size: int) -> Tensor:
    return torch.stack([row[start : start + size] for row, start in zip(wave, starts, strict=True)])


def codebook_figures(codes: Tensor, size: int) -> dict[str, float]:
    """Share of codes that occur, and perplexity of their use, of (...) codes; -1 is padding."""
    counts = torch.bincount(codes[codes >= 0].flatten(), minlength=size).float()
    shares = counts / counts.sum().clamp(min=1)
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum()
    return {"codes_used": float((counts > 0).float().mean()), "perplexity": float(entropy.exp())}


__all__ = ["CodecLosses", "CodecTrainingOutput", "FreezeOmniForCodec", "PhoneticHead", "codebook_figures"]

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Training stages output 2 and 3: the speech decoder, from the LLM's embeddings of text, then from its hidden states.

What the decoder reads in training is what it reads in ``generate``: the embeddings of a text's tokens, and for each
token the hidden state that produced it.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput

from ..generation.segmentation import CLEANERS
from ..models import FreezeOmniCodec, FreezeOmniForConditionalGeneration, FreezeOmniOtherCodec
from ..models.freeze_omni import FreezeOmniPreTrainedModel
from ..models.letters import CHARACTERS, character_ids
from .collators import pad_rows
from .data import RowReport


@dataclass
class SpeakingOutput(ModelOutput):
    """Output of `FreezeOmniForSpeaking`.

    Attributes:
        loss: Weighted sum of the losses below.
        token_loss: Cross-entropy of the speech tokens and the end.
        letter_loss: CTC of the letters, read off the decoder's states, where it has a weight.
        hits: (B, N + 1) 1 where the likeliest token is right, 0 where it is not, -100 where nothing is asked.
    """

    loss: Tensor | None = None
    token_loss: Tensor | None = None
    letter_loss: Tensor | None = None
    hits: Tensor | None = None


class FreezeOmniForSpeaking(FreezeOmniPreTrainedModel):
    """The speech decoder under teacher forcing, around the frozen LLM.

    Args:
        model: With its LLM attached.
        use_hidden_states: Also read the LLM's hidden states (output 3); without, only its embedding table is used.
        letter_weight: Weight of a CTC loss on the letters of the text, read off the decoder's states behind each
            speech token: to know which letter is being said, a state must have found its place in the text.
        token_noise: Share of the speech tokens read that are replaced by others, so that a slip in generation is not
            the end of the sentence.
    """

    accepts_loss_kwargs = False

    def __init__(
        self,
        model: FreezeOmniForConditionalGeneration,
        use_hidden_states: bool = False,
        letter_weight: float = 0.0,
        token_noise: float = 0.0,
    ):
        super().__init__(model.config)
        self.model, self.use_hidden_states = model, use_hidden_states
        self.letter_weight, self.token_noise = letter_weight, token_noise
        width = model.speech_decoder.config.hidden_size
        self.letter_head = nn.Linear(width, len(CHARACTERS) + 1) if letter_weight else None
        self._keys_to_ignore_on_save = {f"model.{name}" for name in model._keys_to_ignore_on_save}
        self.parts: dict[str, float] = {}

    def forward(
        self,
        text_ids: Tensor,
        text_mask: Tensor,
        labels: Tensor,
        letters: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        answer_start: Tensor | None = None,
        answer_length: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SpeakingOutput | tuple:
        """Losses of a padded batch.

        Args:
            text_ids: (B, T) tokens of what is said, as it is read out.
            text_mask: (B, T).
            labels: (B, N) speech tokens, -100 where padded.
            letters: (B, C) classes of the text's letters, -100 where padded.
            input_ids: (B, S) the conversation up to the end of the answer, padded at its end; with
                ``use_hidden_states``.
            attention_mask: (B, S).
            answer_start: (B,) position of the answer's first token.
            answer_length: (B,) number of its tokens.
        """
        decoder, table = self.model.speech_decoder, self.model.get_input_embeddings()
        hidden = hidden_mask = None
        with torch.no_grad():
            text = table(text_ids)
            if self.use_hidden_states:
                states = self.model.run_language_model(table(input_ids), attention_mask, logits_to_keep=1)
                steps = torch.arange(int(answer_length.max()), device=input_ids.device)
                hidden_mask = steps < answer_length[:, None]
                # The state that produced a token stands one position before it.
                places = (answer_start[:, None] - 1 + steps).clamp(max=input_ids.shape[1] - 1)
                hidden = states.hidden_states[-1]
                hidden = hidden.gather(1, places.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        output = decoder(
            text,
            text_mask,
            hidden,
            hidden_mask,
            labels=labels,
            read_tokens=self._with_slips(labels) if self.training and self.token_noise else None,
            return_dict=True,
        )
        loss, letter_loss = output.loss, None
        if self.letter_head is not None and letters is not None:
            lengths, known = (labels >= 0).sum(dim=1), letters >= 0
            scores = self.letter_head(output.last_hidden_state[:, :-1]).float().log_softmax(dim=-1)
            letter_loss = F.ctc_loss(
                scores.transpose(0, 1), letters.clamp(min=0), lengths, known.sum(dim=1), zero_infinity=True
            )
            loss = loss + self.letter_weight * letter_loss
        hits = None
        if not self.training:
            end = (labels >= 0).sum(dim=1, keepdim=True)
            wanted = F.pad(labels, (0, 1), value=-100).scatter(1, end, decoder.config.eos_speech_token_id)
            hits = (output.logits.argmax(dim=-1) == wanted).long().masked_fill(wanted < 0, -100)
        self.parts = {"token": float(output.loss.detach())}
        if letter_loss is not None:
            self.parts["letter"] = float(letter_loss.detach())
        result = SpeakingOutput(loss, output.loss, letter_loss, hits)
        return result.to_tuple() if return_dict is False else result

    def _with_slips(self, labels: Tensor) -> Tensor:
        slips = torch.rand(labels.shape, device=labels.device) < self.token_noise
        others = torch.randint_like(labels, self.model.speech_decoder.config.codebook_size)
        return torch.where(slips & (labels >= 0), others, labels)

    def figures(self) -> dict[str, float]:
        """Parts of the last loss."""
        return self.parts


@dataclass
class SpeakingCollator:
    """Texts, conversations and speech tokens as a padded batch.

    Args:
        processor: The model's processor.
        conversation: Also give the conversation of an answer, for its hidden states (output 3).
        cleaner: How texts are made ready to be read out, as ``segment_text_cleaner`` of the generation settings.
        max_tokens: Rows with more speech tokens are left out.
        seed, epoch, report: As in `SoundCollator`; nothing is drawn here.
    """

    processor: Any
    conversation: bool = False
    cleaner: str | None = None
    max_tokens: int = 800
    seed: int = 0
    epoch: int = 0
    report: RowReport = field(default_factory=RowReport)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        kept = [row for row in rows if self._fits(row)]
        clean = CLEANERS[self.cleaner] if self.cleaner else str
        spoken = [clean(row["text"]) for row in kept]
        texts = [self._ids(text) for text in spoken]
        batch = {
            "text_ids": pad_rows(texts, self.processor.pad_token_id),
            "text_mask": pad_rows([[1] * len(row) for row in texts], 0),
            "labels": pad_rows([list(row["speech_tokens"]) for row in kept], -100),
            "letters": pad_rows([character_ids(text) or [-100] for text in spoken], -100),
        }
        if self.conversation:
            befores, answers = [self._before(row) for row in kept], [self._ids(row["text"]) for row in kept]
            ids = [before + answer for before, answer in zip(befores, answers, strict=True)]
            batch["input_ids"] = pad_rows(ids, self.processor.pad_token_id)
            batch["attention_mask"] = pad_rows([[1] * len(row) for row in ids], 0)
            batch["answer_start"] = torch.tensor([len(before) for before in befores])
            batch["answer_length"] = torch.tensor([len(answer) for answer in answers])
        return batch

    def _ids(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _fits(self, row: dict[str, Any]) -> bool:
        count = len(row["speech_tokens"])
        if 0 < count <= self.max_tokens and row["text"].strip():
            self.report.use()
            return True
        self.report.skip(str(row.get("id")), f"{count} speech tokens (1 to {self.max_tokens} are used)")
        return False

    def _before(self, row: dict[str, Any]) -> list[int]:
        """Ids of the conversation before the answer, its questions as text."""
        turns = [
            {"role": turn["role"], "content": "".join(part["text"] or "" for part in turn["content"])}
            for turn in row["messages"]
        ]
        (ids,) = self.processor.apply_chat_template(
            [turns[:-1]], tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors=None
        )["input_ids"]
        return list(ids)


def token_accuracy(prediction: Any) -> dict[str, float]:
    """Share of speech tokens that are the likeliest one."""
    hits = np.asarray(prediction.predictions)
    return {"token_accuracy": float(hits[hits >= 0].mean())}


@torch.no_grad()
def encode_rows(codec: Any, pairs: list[tuple[dict[str, Any], np.ndarray]]) -> list[dict[str, Any]]:
    """Rows with the codec's ``speech_tokens`` in the place of their ``audio``.

    Args:
        codec: A codec with one codebook, of this package or another that transformers loads.
        pairs: Rows and their (samples,) at the codec's rate.

    Raises:
        ValueError: the codec has several codebooks.
    """
    if not pairs:
        return []
    longest = max(len(wave) for _, wave in pairs)
    values, mask = torch.zeros(len(pairs), longest), torch.zeros(len(pairs), longest, dtype=torch.long)
    for place, (_, wave) in enumerate(pairs):
        values[place, : len(wave)], mask[place, : len(wave)] = torch.from_numpy(wave), 1
    if not isinstance(codec, (FreezeOmniCodec, FreezeOmniOtherCodec)):
        codec = FreezeOmniOtherCodec.around(codec)
    output = codec.encode(values.to(codec.device, codec.dtype), mask.to(codec.device))
    codes, lengths = output.audio_codes, output.code_lengths
    if codes.dim() == 3:
        raise ValueError(f"The codec gives {tuple(codes.shape)} codes: the speech decoder says one codebook.")
    return [
        {**{name: value for name, value in row.items() if name != "audio"}, "speech_tokens": tokens[:length].tolist()}
        for (row, _), tokens, length in zip(pairs, codes.cpu(), lengths.tolist(), strict=True)
    ]


__all__ = ["FreezeOmniForSpeaking", "SpeakingCollator", "SpeakingOutput", "encode_rows", "token_accuracy"]

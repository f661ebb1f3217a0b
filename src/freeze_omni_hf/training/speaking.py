# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Training stages output 2 and 3: the speech decoder, from the LLM's embeddings of text, then from its hidden states.

What the decoder reads in training is what it reads in ``generate``: the embeddings of a text's tokens, and for each
token the hidden state that produced it.
"""

from collections.abc import Callable
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
from ..models.reading import LetterReader
from .codec import PhoneticHead, mean_ctc_loss
from .collators import generator_of, pad_rows
from .data import DataError, RowReport
from .places import align_letters, cut_text, letter_times, places_of


@dataclass
class SpeakingOutput(ModelOutput):
    """Output of `FreezeOmniForSpeaking`.

    Attributes:
        loss: Weighted sum of the losses below.
        token_loss: Cross-entropy of the speech tokens and the end.
        move_loss: Cross-entropy of how the place in the text moves, of a decoder with letters.
        letter_loss: CTC of the letters, read off the decoder's states, where it has a weight.
        hits: (B, N + 1) 1 where the likeliest token is right, 0 where it is not, -100 where nothing is asked.
    """

    loss: Tensor | None = None
    token_loss: Tensor | None = None
    move_loss: Tensor | None = None
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
        places: Tensor | None = None,
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
            places: (B, N + 1) the letter at which each speech token and the end are said, of a decoder with letters.
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
                producers = (answer_start[:, None] - 1 + steps).clamp(max=input_ids.shape[1] - 1)
                hidden = states.hidden_states[-1]
                hidden = hidden.gather(1, producers.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        output = decoder(
            text,
            text_mask,
            hidden,
            hidden_mask,
            labels=labels,
            read_tokens=self._with_slips(labels) if self.training and self.token_noise else None,
            text_ids=text_ids,
            places=places,
            return_dict=True,
        )
        loss, letter_loss = output.loss, None
        if self.letter_head is not None and letters is not None:
            scores = self.letter_head(output.last_hidden_state[:, :-1]).float().log_softmax(dim=-1)
            letter_loss = mean_ctc_loss(scores.transpose(0, 1), letters, (labels >= 0).sum(dim=1))
            loss = loss + self.letter_weight * letter_loss
        hits = None
        if not self.training:
            end = (labels >= 0).sum(dim=1, keepdim=True)
            wanted = F.pad(labels, (0, 1), value=-100).scatter(1, end, decoder.config.eos_speech_token_id)
            hits = (output.logits.argmax(dim=-1) == wanted).long().masked_fill(wanted < 0, -100)
        token_loss = output.loss if output.move_loss is None else output.loss - output.move_loss
        result = SpeakingOutput(loss, token_loss, output.move_loss, letter_loss, hits)
        named = {"token": token_loss, "move": output.move_loss, "letter": letter_loss}
        self.parts = {name: float(value.detach()) for name, value in named.items() if value is not None}
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
        max_tokens: Rows (or pieces) with more speech tokens are left out.
        reader: Of a decoder with letters: rows then also say at which letter each speech token is said, from their
            ``spoken`` and ``letter_times``.
        cut: Take one piece of each row, as an answer is spoken piece by piece; another one in every epoch. Needs the
            times of letters.
        seed, epoch, report: As in `SoundCollator`.
    """

    processor: Any
    conversation: bool = False
    cleaner: str | None = None
    max_tokens: int = 800
    reader: LetterReader | None = None
    cut: bool = False
    seed: int = 0
    epoch: int = 0
    report: RowReport = field(default_factory=RowReport)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        kept = [piece for piece in map(self._piece, rows) if piece is not None]
        if not kept:
            raise DataError(f"No row of a whole batch can be used.\n{self.report}")
        batch = {
            "text_ids": pad_rows([piece.ids for piece in kept], self.processor.pad_token_id),
            "text_mask": pad_rows([[1] * len(piece.ids) for piece in kept], 0),
            "labels": pad_rows([piece.speech_tokens for piece in kept], -100),
            "letters": pad_rows([character_ids(piece.text) or [-100] for piece in kept], -100),
        }
        if self.reader is not None:
            batch["places"] = pad_rows([piece.places for piece in kept], 0)
        if self.conversation:
            befores = [self._before(piece.row) for piece in kept]
            answers = [self._ids(piece.row["text"]) for piece in kept]
            ids = [before + answer for before, answer in zip(befores, answers, strict=True)]
            spans = [piece.span or (0, len(answer)) for piece, answer in zip(kept, answers, strict=True)]
            batch["input_ids"] = pad_rows(ids, self.processor.pad_token_id)
            batch["attention_mask"] = pad_rows([[1] * len(row) for row in ids], 0)
            batch["answer_start"] = torch.tensor(
                [len(before) + start for before, (start, _) in zip(befores, spans, strict=True)]
            )
            batch["answer_length"] = torch.tensor([end - start for start, end in spans])
        return batch

    def _ids(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _piece(self, row: dict[str, Any]) -> "_Piece | None":
        """What is taken of a row; None, and a note, where nothing can be."""
        tokens, text = list(row["speech_tokens"]), row["text"]
        if not tokens or not text.strip():
            return self._skip(row, "no speech tokens or no text")
        if self.reader is None:
            spoken = CLEANERS[self.cleaner](text) if self.cleaner else text
            piece = _Piece(row, spoken, self._ids(spoken), tokens)
        else:
            if row.get("letter_times") is None:
                return self._skip(row, "no letter_times: its letters were not placed (encode_speech.py)")
            piece = self._placed(row, tokens)
            if piece is None:
                return self._skip(row, "its letter_times do not fit its text")
        if len(piece.speech_tokens) > self.max_tokens:
            return self._skip(row, f"{len(piece.speech_tokens)} speech tokens (at most {self.max_tokens} are used)")
        self.report.use()
        return piece

    def _placed(self, row: dict[str, Any], tokens: list[int]) -> "_Piece | None":
        text, times = row["spoken"], list(row["letter_times"])
        start, end = 0, len(text)
        if self.cut:
            generator = generator_of(row, "cut", self.seed, self.epoch)
            pieces = cut_text(text, generator)
            start, end = pieces[int(generator.integers(len(pieces)))]
        span = self._span(row["text"], text, start, end) if self.conversation else None
        if self.conversation and span is None:
            start, end = 0, len(text)
        # Letters before and behind the piece; the space in front of it belongs to it.
        first = len(character_ids(text[:start]))
        last = first + len(character_ids(text[start:end])) + int(start > 0)
        if last > len(times) or last == first:
            return None
        begin = 0 if first == 0 else round((times[first - 1] + times[first]) / 2)
        stop = len(tokens) if last == len(times) else round((times[last - 1] + times[last]) / 2)
        text, letters = text[start:end], character_ids(text)[first:last]
        ids = self._ids(text)
        classes = self.reader.spell(torch.tensor([ids]), torch.ones(1, len(ids)))[0][0].tolist()
        placed = letter_times(classes, letters, [time - begin for time in times[first:last]], stop - begin)
        if placed is None or stop <= begin:
            return None
        return _Piece(row, text, ids, tokens[begin:stop], places_of(placed, stop - begin), span)

    def _span(self, written: str, spoken: str, start: int, end: int) -> tuple[int, int] | None:
        """The LLM's tokens of a piece; None where the text is not read out as it was written."""
        if written != spoken:
            return None
        tokens = self._ids(written)
        sizes = np.cumsum([0, *(len(self.processor.tokenizer.decode([token])) for token in tokens)])
        if sizes[-1] != len(written):  # characters of several tokens
            return None
        return int(np.searchsorted(sizes, start)), int(np.searchsorted(sizes, end))

    def _skip(self, row: dict[str, Any], reason: str) -> None:
        self.report.skip(str(row.get("id")), reason)

    def _before(self, row: dict[str, Any]) -> list[int]:
        """Ids of the conversation before the answer, its questions as text."""
        (ids,) = self.processor.apply_chat_template(
            [questions_as_text(row)], tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors=None
        )["input_ids"]
        return list(ids)


def questions_as_text(row: dict[str, Any]) -> list[dict[str, str]]:
    """The conversation of a row up to its last answer, its spoken turns as text."""
    return [
        {"role": turn["role"], "content": "".join(part["text"] or "" for part in turn["content"])}
        for turn in row["messages"][:-1]
    ]


@dataclass
class _Piece:
    """What is taken of a row: its text and tokens, and where in the row's answer it stands."""

    row: dict[str, Any]
    text: str
    ids: list[int]
    speech_tokens: list[int]
    places: list[int] = field(default_factory=list)
    span: tuple[int, int] | None = None


def token_accuracy(prediction: Any) -> dict[str, float]:
    """Share of speech tokens that are the likeliest one."""
    hits = np.asarray(prediction.predictions)
    return {"token_accuracy": float(hits[hits >= 0].mean())}


class LetterPlacer:
    """Says when each letter of a row's text is said, by the network that read letters off the codec in its training.

    Args:
        codec: One of this package.
        head: `PhoneticHead`.
        clean: How texts are made ready to be read out.
    """

    def __init__(self, codec: FreezeOmniCodec, head: PhoneticHead, clean: Callable[[str], str]):
        self.codec, self.head, self.clean = codec, head, clean

    @torch.no_grad()
    def __call__(self, text: str, codes: Tensor) -> dict[str, Any]:
        """Columns ``spoken`` and ``letter_times`` (one of `character_ids`; None where they do not fit) of a row.

        Args:
            text: As it is written.
            codes: (N,) its speech tokens.
        """
        spoken = self.clean(text)
        vectors = self.codec.quantizer.embed(codes[None, :, None].to(self.codec.device))
        scores = self.head(vectors.to(self.head.out.weight.dtype))[0].float().log_softmax(dim=-1)
        return {"spoken": spoken, "letter_times": align_letters(scores, character_ids(spoken))}


@torch.no_grad()
def encode_rows(
    codec: Any, pairs: list[tuple[dict[str, Any], np.ndarray]], place: LetterPlacer | None = None
) -> list[dict[str, Any]]:
    """Rows with the codec's ``speech_tokens`` in the place of their ``audio``.

    Args:
        codec: A codec with one codebook, of this package or another that transformers loads.
        pairs: Rows and their (samples,) at the codec's rate.
        place: Also says when which letter of the text is said.

    Raises:
        ValueError: the codec has several codebooks.
    """
    if not pairs:
        return []
    longest = max(len(wave) for _, wave in pairs)
    values, mask = torch.zeros(len(pairs), longest), torch.zeros(len(pairs), longest, dtype=torch.long)
    for index, (_, wave) in enumerate(pairs):
        values[index, : len(wave)], mask[index, : len(wave)] = torch.from_numpy(wave), 1
    if not isinstance(codec, (FreezeOmniCodec, FreezeOmniOtherCodec)):
        codec = FreezeOmniOtherCodec.around(codec)
    output = codec.encode(values.to(codec.device, codec.dtype), mask.to(codec.device))
    codes, lengths = output.audio_codes, output.code_lengths
    if codes.dim() == 3:
        raise ValueError(f"The codec gives {tuple(codes.shape)} codes: the speech decoder says one codebook.")
    rows = []
    for (row, _), padded, length in zip(pairs, codes.cpu(), lengths.tolist(), strict=True):
        tokens = padded[:length]
        kept = {name: value for name, value in row.items() if name != "audio"}
        placed = {} if place is None else place(row["text"], tokens)
        rows.append({**kept, "speech_tokens": tokens.tolist(), **placed})
    return rows


__all__ = [
    "FreezeOmniForSpeaking",
    "LetterPlacer",
    "SpeakingCollator",
    "SpeakingOutput",
    "encode_rows",
    "questions_as_text",
    "token_accuracy",
]

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Reading a text aloud letter by letter, with a finger on the letter that is being said (ours).

From little speech a decoder learns neither how thousands of LLM tokens sound nor where in its text it is. Here the
text's positions are letters, each with its token's embedding, and the decoder is told at every speech token which
letter it has come to. A small head says how many letters the next speech token is further on, so the place only ever
moves forward: no word is left out or said twice, and a text ends where it ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .cache import StreamCache
from .letters import CHARACTERS, LETTERS_PER_TOKEN, letter_classes


MOST_LETTERS = 3
"""Letters that the place moves on at most from one speech token to the next."""

LONGEST_STAY = 40
"""Speech tokens on one letter after which the place moves on in any case: one second, longer than any pause."""


@dataclass(frozen=True)
class ReadingPlace(StreamCache):
    """Where each row of a batch is in its text.

    Attributes:
        text: (B, R, hidden_size) letters behind the pre-network.
        count: (B,) letters of each row.
        place: (B,) the letter that is being said.
        waited: (B,) speech tokens since the place moved.
        stay: (B,) chance that it would still be there.
    """

    text: Tensor
    count: Tensor
    place: Tensor
    waited: Tensor
    stay: Tensor

    @classmethod
    def cat(cls, places: list["ReadingPlace"]) -> "ReadingPlace":
        """One batch from the rows of several."""
        most = max(place.text.shape[1] for place in places)
        pad = torch.nn.functional.pad
        joined = {
            name: torch.cat([getattr(place, name) for place in places])
            for name in ("count", "place", "waited", "stay")
        }
        texts = [pad(place.text, (0, 0, 0, most - place.text.shape[1])) for place in places]
        return cls(text=torch.cat(texts), **joined)


class LetterReader(nn.Module):
    """Letters of LLM tokens as decoder positions, and the place in them.

    Args:
        hidden_size: Width of the speech decoder.
        num_tokens: Ids of the LLM's tokenizer.
    """

    def __init__(self, hidden_size: int, num_tokens: int):
        super().__init__()
        self.register_buffer("token_letters", torch.zeros(num_tokens, LETTERS_PER_TOKEN, dtype=torch.int8))
        self.letters = nn.Embedding(len(CHARACTERS) + 1, hidden_size)
        self.place_proj = nn.Linear(hidden_size, hidden_size)
        self.waited = nn.Embedding(LONGEST_STAY + 1, hidden_size)
        self.move_head = nn.Linear(hidden_size, MOST_LETTERS + 1)

    def set_tokens(self, texts: Sequence[str]) -> None:
        """Learn the letters of all tokens of the LLM.

        Args:
            texts: Text of each id, with its leading space.

        Raises:
            ValueError: more or fewer texts than the configuration says.
        """
        if len(texts) != len(self.token_letters):
            raise ValueError(
                f"The speech decoder was made for {len(self.token_letters)} LLM tokens, not {len(texts)}: set "
                "num_tokens of its configuration."
            )
        self.token_letters = letter_classes(texts).to(self.token_letters.device)

    def spell(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Letters of padded rows of tokens.

        Args:
            ids: (B, T) LLM tokens.
            mask: (B, T).

        Returns:
            Letter classes (B, R), the token (B, R) that each is of, and a mask (B, R). A token without letters has
            one place, of class 0: it may be a pause.

        Raises:
            ValueError: an id that is not of the LLM this decoder was made for.
        """
        if ids.numel() and int(ids.max()) >= len(self.token_letters):
            raise ValueError(
                f"The speech decoder knows the letters of {len(self.token_letters)} LLM tokens, and not of token "
                f"{int(ids.max())}: the tokenizer is not that of its LLM."
            )
        letters = self.token_letters[ids.to(self.token_letters.device)].long()
        used = letters > 0
        used[..., 0] = True
        used &= mask.bool().unsqueeze(-1)
        used, letters = used.flatten(1), letters.flatten(1)
        counts = used.sum(dim=1)
        rows, cells = used.nonzero(as_tuple=True)
        places = (used.long().cumsum(dim=1) - 1)[rows, cells]
        classes = letters.new_zeros(len(ids), int(counts.max()))
        tokens = torch.zeros_like(classes)
        classes[rows, places] = letters[rows, cells]
        tokens[rows, places] = cells // LETTERS_PER_TOKEN
        return classes, tokens, torch.arange(classes.shape[1], device=counts.device) < counts[:, None]

    def rows(self, vectors: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Decoder positions (B, R, hidden_size) of tokens with projected embeddings (B, T, hidden_size), and their
        mask (B, R)."""
        classes, tokens, mask = self.spell(ids, mask)
        return vectors.gather(1, tokens[..., None].expand(-1, -1, vectors.shape[-1])) + self.letters(classes), mask

    def told(self, text: Tensor, place: Tensor, waited: Tensor) -> Tensor:
        """What the decoder is told at its speech tokens (B, N, hidden_size).

        Args:
            text: (B, R, hidden_size) letters behind the pre-network.
            place: (B, N) the letter of each speech token.
            waited: (B, N) speech tokens since the place moved.
        """
        letters = text.gather(1, place[..., None].expand(-1, -1, text.shape[-1]))
        return self.place_proj(letters) + self.waited(waited.clamp(max=LONGEST_STAY))

    def move(self, hidden: Tensor, state: ReadingPlace) -> ReadingPlace:
        """The place of the next speech token, from the state (B, hidden_size) behind this one.

        The place moves when it is as likely as not to have moved by now (the median of its stay), which does not need
        luck and stays right where single moves are unlikely.
        """
        chances = self.move_head(hidden).float().softmax(dim=-1)
        stay = state.stay * chances[:, 0]
        go = (stay < 0.5) | (state.waited + 1 >= LONGEST_STAY)
        far = torch.where(go, chances[:, 1:].argmax(dim=-1) + 1, 0)
        place = torch.minimum(state.place + far, state.count - 1)
        moved = place > state.place
        return ReadingPlace(
            text=state.text,
            count=state.count,
            place=place,
            waited=torch.where(moved, 0, state.waited + 1),
            stay=torch.where(moved, 1.0, stay),
        )

    def hold(self, logits: Tensor, state: ReadingPlace, end: int) -> Tensor:
        """Logits (B, N, V) with which a text is neither left before its last letter nor stayed in for ever.

        Args:
            logits: Of the next speech token.
            state: The place it is said at.
            end: Id of the end.
        """
        last = state.place >= state.count - 1
        never = torch.full_like(logits, -torch.inf)
        never[..., end] = 0.0
        logits = logits.clone()
        logits[~last, :, end] = -torch.inf
        return torch.where((last & (state.waited >= LONGEST_STAY))[:, None, None], never, logits)


def waits(places: Tensor) -> Tensor:
    """(B, N) speech tokens since the place (B, N) moved."""
    steps = torch.arange(places.shape[1], device=places.device).expand_as(places)
    moved = torch.nn.functional.pad(places[:, 1:] != places[:, :-1], (1, 0), value=True)
    return steps - torch.where(moved, steps, 0).cummax(dim=1).values


__all__ = ["LONGEST_STAY", "MOST_LETTERS", "LetterReader", "ReadingPlace", "waits"]

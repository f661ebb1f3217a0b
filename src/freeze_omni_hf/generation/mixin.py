# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""``generate``: a padded batch of conversations in, text and sound out."""

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.utils import ModelOutput

from .configuration import SPEECH_DEFAULTS, check_speech_settings, complete_speech_settings
from .listening import Heard, HearingSettings, embed_heard
from .sampling import ExclusiveTopPLogitsWarper
from .segmentation import CLEANERS, Segment, Segmenter
from .speech import SpeechTokenGenerator, SpokenSegment
from .text import TextGeneration, close_unread


DEFAULT_MAX_NEW_TOKENS = 256


@dataclass
class FreezeOmniGenerateOutput(ModelOutput):
    """Output of ``generate`` with ``return_dict_in_generate=True``.

    Attributes:
        sequences: (B, S + N) prompt and generated ids, padded on the right.
        audio: One (samples,) waveform a row, at the codec's rate; empty where nothing was said.
        speech_tokens: One (n,) tensor a row: the speech tokens of all its pieces.
        heard: One list a row of `Heard`, an item an audio: the tokens that a search found (``hearing_beams``).
        segments: One list a row of `SpokenSegment`: text, ids, speech tokens and how each piece ended.
        hidden_states: (B, N, width) hidden state that produced each generated token.
        state_logits: (B, num_states) state at the end of each row's last audio chunk (zeros without audio).
        scores: (B, vocab) a step, with ``output_scores``.
        logits: (B, vocab) a step, with ``output_logits``.
        cache: The LLM's cache, also called ``past_key_values``. It holds all but the last generated token.
        timings: Seconds spent in each part, and until the first text token and the first sound.
    """

    sequences: Tensor | None = None
    audio: list[Tensor] | None = None
    speech_tokens: list[Tensor] | None = None
    heard: list[list[Heard]] | None = None
    segments: list[list[SpokenSegment]] | None = None
    hidden_states: Tensor | None = None
    state_logits: Tensor | None = None
    scores: tuple[Tensor, ...] | None = None
    logits: tuple[Tensor, ...] | None = None
    cache: Any = None
    timings: dict[str, float] | None = None

    @property
    def past_key_values(self) -> Any:
        """The name of the cache before transformers 5.24."""
        return self.cache


class FreezeOmniGenerationMixin:
    """Generation for `FreezeOmniForConditionalGeneration`; stands before transformers' ``GenerationMixin``."""

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        feature_attention_mask: Tensor | None = None,
        task_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Any = None,
        generation_config: GenerationConfig | None = None,
        generation_mode: str | None = None,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        streamer: Any = None,
        audio_streamer: Any = None,
        tokenizer: Any = None,
        global_tokens: Tensor | list[int] | None = None,
        **kwargs,
    ) -> "FreezeOmniGenerateOutput | Tensor | tuple[Tensor, list[Tensor]]":
        """Answer a padded batch of conversations with text, or with text and sound.

        Args:
            input_ids: (B, S) from the processor, padded on the left.
            attention_mask: (B, S); with ``past_key_values`` (B, past + S).
            input_features: (A, T, num_mel_bins) of all audio in the batch.
            feature_attention_mask: (A, T).
            task_ids: (A,) task of each audio, for transcription and the like.
            inputs_embeds: (B, S, width) instead of ids and audio.
            past_key_values: The LLM's cache of what came before; the inputs are then the new positions only.
            generation_config: Settings; `FreezeOmniGenerationConfig` names those of the voice.
            generation_mode: ``"text"`` or ``"audio"`` (text and sound; the default of a model with a voice).
            logits_processor: Further processors of text logits.
            stopping_criteria: Further criteria; each row stops by itself.
            streamer: A transformers text streamer (one row).
            audio_streamer: An `AudioStreamer`; pieces are spoken while the text goes on.
            tokenizer: Needed for ``stop_strings``, for borders read off the text and for the text cleaner.
            global_tokens: (G,) or (B, G) voice for the codec; the configured one by default.
            kwargs: Settings by name.

        Returns:
            ``sequences`` (text) or ``(sequences, audio)``; `FreezeOmniGenerateOutput` with
            ``return_dict_in_generate=True``.

        Raises:
            ValueError: a setting, a mode or a shape that does not fit.
        """
        clock = _Clock()
        settings, unused = self._prepare_generation_config(generation_config, **kwargs)
        unused = {key: value for key, value in unused.items() if key not in ("output_attentions", "use_cache")}
        unused.pop("output_hidden_states", None)
        if unused:
            raise ValueError(f"generate does not know {sorted(unused)}.")
        check_speech_settings(settings)
        speaks = self._wants_sound(generation_mode, audio_streamer)

        hearing = self._hearing(settings) if input_features is not None else None
        inputs_embeds, attention_mask, history, chunk_ends, heard = self._prepare_text_inputs(
            input_ids,
            attention_mask,
            input_features,
            feature_attention_mask,
            task_ids,
            inputs_embeds,
            hearing,
            past_key_values,
        )
        clock.lap("audio_encoder")
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        if attention_mask.shape[1] != past + inputs_embeds.shape[1]:
            raise ValueError(
                f"attention_mask covers {attention_mask.shape[1]} positions; {past} past and "
                f"{inputs_embeds.shape[1]} new ones need {past + inputs_embeds.shape[1]}."
            )
        copies = settings.num_return_sequences or 1
        if copies > 1:
            inputs_embeds, attention_mask, history = (
                item.repeat_interleave(copies, dim=0) for item in (inputs_embeds, attention_mask, history)
            )
            if past_key_values is not None:
                past_key_values.batch_repeat_interleave(copies)
        text = self._start_text(
            settings,
            inputs_embeds,
            attention_mask,
            history,
            past_key_values,
            logits_processor,
            stopping_criteria,
            tokenizer,
        )
        voice = _Voice(self, settings, tokenizer, global_tokens, audio_streamer, clock) if speaks else None

        rows = inputs_embeds.shape[0]
        segmenters = [Segmenter(settings, row, tokenizer) for row in range(rows)]
        if streamer is not None and input_ids is not None:
            streamer.put(input_ids.cpu())
        while not text.finished:
            tokens, was_going = text.step()
            clock.lap("text" if len(text.tokens) > 1 else "text_prefill")
            clock.first("first_text")
            if streamer is not None:
                streamer.put(tokens.cpu())
            if voice is not None:
                speakable = was_going & ~text.is_end(tokens)
                closed = []
                for row in speakable.nonzero().flatten().tolist():
                    closed += segmenters[row].push(int(tokens[row]))
                ended = (was_going & ~text.going).nonzero().flatten().tolist()
                for row in ended:
                    closed += segmenters[row].finish()
                voice.take(closed, text)
        if streamer is not None:
            streamer.end()
        if voice is not None:
            voice.finish()
        return self._generate_output(settings, speaks, input_ids, chunk_ends, heard, text, voice, copies, clock)

    @torch.no_grad()
    def hear(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        feature_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        generation_config: GenerationConfig | None = None,
        **kwargs,
    ) -> list[list[Heard]]:
        """The tokens of what is said in a padded batch of conversations, found by search.

        Args:
            input_ids, attention_mask, input_features, feature_attention_mask, past_key_values: As in `generate`.
            generation_config: Settings that begin with ``hearing_``; ``hearing_beams`` is taken as at least 2.
            kwargs: Settings by name.

        Returns:
            A list a row, an item an audio.

        Raises:
            ValueError: the adapter does not say which tokens it hears, or a setting does not fit.
        """
        settings, unused = self._prepare_generation_config(generation_config, **kwargs)
        if unused:
            raise ValueError(f"hear does not know {sorted(unused)}.")
        settings.hearing_beams = max(settings.hearing_beams, 2)
        check_speech_settings(settings)
        if input_features is None:
            return [[] for _ in input_ids]
        return self._prepare_text_inputs(
            input_ids,
            attention_mask,
            input_features,
            feature_attention_mask,
            hearing=self._hearing(settings),
            cache=past_key_values,
        )[-1]

    # Preparation

    def _hearing(self, settings: GenerationConfig) -> HearingSettings | None:
        if settings.hearing_beams < 2:
            return None
        return HearingSettings(
            beams=settings.hearing_beams,
            candidates=settings.hearing_candidates,
            llm_weight=settings.hearing_llm_weight,
            letter_weight=settings.hearing_letter_weight,
            token_bonus=settings.hearing_token_bonus,
        )

    def _prepare_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs: Any
    ) -> tuple[GenerationConfig, dict]:
        for name, default in SPEECH_DEFAULTS.items():
            if not hasattr(self.generation_config, name):
                setattr(self.generation_config, name, default)
        if generation_config is not None:
            generation_config = complete_speech_settings(generation_config, self.generation_config)
        given_length = kwargs.get("max_length") or getattr(
            generation_config or self.generation_config, "max_length", None
        )
        if isinstance(generation_config, GenerationConfig) and kwargs:
            raise ValueError(f"Give generation_config or settings by name, not both: {sorted(kwargs)}.")
        settings, unused = super()._prepare_generation_config(generation_config, **kwargs)
        if settings.max_new_tokens is None:
            settings.max_length = given_length
            settings.max_new_tokens = None if given_length else DEFAULT_MAX_NEW_TOKENS
        if (settings.num_beams or 1) > 1:
            raise ValueError(
                f"num_beams={settings.num_beams}: beam search is not supported; use 1, greedy or sampled."
            )
        return settings, unused

    def _wants_sound(self, mode: str | None, audio_streamer: Any) -> bool:
        if mode not in (None, "text", "audio"):
            raise ValueError(f"generation_mode={mode!r} is unknown; choose 'text' or 'audio'.")
        if mode == "audio" and not self.config.has_voice:
            raise ValueError("generation_mode='audio', but this checkpoint has no speech decoder and codec.")
        if mode == "text" and audio_streamer is not None:
            raise ValueError("audio_streamer is given, but generation_mode='text' makes no sound.")
        return self.config.has_voice and mode != "text"

    def _prepare_text_inputs(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        input_features: Tensor | None,
        feature_attention_mask: Tensor | None,
        task_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        hearing: HearingSettings | None = None,
        cache: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, list[list[Heard]] | None]:
        """Embeddings, mask, ids for the processors, where chunks end, and what a search heard."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids (from the processor) or inputs_embeds.")
        if inputs_embeds is not None:
            if attention_mask is None:
                attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.long, device=inputs_embeds.device)
            history = torch.zeros(len(inputs_embeds), 0, dtype=torch.long, device=inputs_embeds.device)
            return inputs_embeds, attention_mask, history, None, None
        device = self._require_llm().get_input_embeddings().weight.device
        input_ids = input_ids.to(device)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        attention_mask = attention_mask.to(device)
        if len(input_ids) > 1 and not bool(attention_mask[:, -1].all()):
            raise ValueError("The batch is padded on the right; generate needs padding on the left (padding_side).")
        heard = None
        if hearing is not None:
            embeds, attention_mask, chunk_ends, heard = embed_heard(
                self, hearing, input_ids, attention_mask, input_features, feature_attention_mask, task_ids, cache
            )
        else:
            embeds, chunk_ends, read = self._embed(input_ids, input_features, feature_attention_mask, task_ids)
            attention_mask = close_unread(attention_mask, read)
        # Processors look ids up in the scores; a placeholder has no score, so its row's first id stands for it.
        first = input_ids.gather(1, attention_mask.long().argmax(dim=1, keepdim=True))
        places = input_ids == self.config.audio_token_id
        return embeds, attention_mask, torch.where(places, first, input_ids), chunk_ends, heard

    def _start_text(
        self,
        settings: GenerationConfig,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        history: Tensor,
        past_key_values: Any,
        logits_processor: LogitsProcessorList | None,
        stopping_criteria: StoppingCriteriaList | None,
        tokenizer: Any,
    ) -> TextGeneration:
        device, length = inputs_embeds.device, history.shape[1]
        own = getattr(self._require_llm(), "generation_config", None)
        for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
            if getattr(settings, name) is None and own is not None:
                setattr(settings, name, getattr(own, name))
        self._prepare_special_tokens(settings, True, device=device)
        if settings.max_new_tokens is not None:
            settings.max_length = length + settings.max_new_tokens
        if settings.max_length <= length:
            raise ValueError(f"max_length={settings.max_length} leaves no room behind {length} prompt positions.")
        exclusive = None
        if settings.top_p_rule == "exclusive" and settings.do_sample:
            if settings.top_p is not None and 0 < settings.top_p < 1:
                exclusive = ExclusiveTopPLogitsWarper(settings.top_p)
            settings.top_p = None
        processors = self._get_logits_processor(
            settings,
            input_ids_seq_length=length,
            logits_processor=logits_processor or LogitsProcessorList(),
            device=device,
        )
        if exclusive is not None:
            processors.append(exclusive)
        criteria = self._get_stopping_criteria(
            settings, stopping_criteria=stopping_criteria or StoppingCriteriaList(), tokenizer=tokenizer
        )
        return TextGeneration(
            self, settings, processors, criteria, inputs_embeds, attention_mask, history, past_key_values
        )

    # Result

    def _generate_output(
        self,
        settings: GenerationConfig,
        speaks: bool,
        input_ids: Tensor | None,
        chunk_ends: Tensor | None,
        heard: list[list[Heard]] | None,
        text: TextGeneration,
        voice: "_Voice | None",
        copies: int,
        clock: "_Clock",
    ) -> "FreezeOmniGenerateOutput | Tensor | tuple[Tensor, list[Tensor]]":
        sequences = torch.stack(text.tokens, dim=1)
        if input_ids is not None:
            prompt = input_ids.to(sequences.device).repeat_interleave(copies, dim=0)
            sequences = torch.cat((prompt, sequences), dim=1)
        segments = voice.segments(len(sequences)) if speaks else None
        audio = voice.audio(len(sequences)) if speaks else None
        if not settings.return_dict_in_generate:
            return (sequences, audio) if speaks else sequences
        tokens = None
        if speaks:
            nothing = torch.zeros(0, dtype=torch.long, device=sequences.device)
            tokens = [torch.cat([nothing, *(item.speech_tokens for item in row)]) for row in segments]
        clock.lap("other")
        return FreezeOmniGenerateOutput(
            sequences=sequences,
            audio=audio,
            speech_tokens=tokens,
            heard=heard,
            segments=segments,
            hidden_states=torch.stack(text.hidden, dim=1),
            state_logits=self._last_state(text.prefill_hidden, chunk_ends, copies),
            scores=tuple(text.scores) or None,
            logits=tuple(text.logits) or None,
            cache=text.past_key_values,
            timings=clock.seconds,
        )

    def _last_state(self, hidden: Tensor, chunk_ends: Tensor | None, copies: int) -> Tensor | None:
        """State logits at each row's last chunk end."""
        if self.state_head is None or chunk_ends is None:
            return None
        chunk_ends = chunk_ends.repeat_interleave(copies, dim=0)
        places = torch.arange(chunk_ends.shape[1], device=chunk_ends.device)
        last = torch.where(chunk_ends, places, -1).max(dim=1).values
        rows = torch.arange(len(last), device=hidden.device)
        logits = self.state_head(hidden[rows, last.clamp(min=0).to(hidden.device)].to(self.state_head.weight))
        return logits * (last >= 0).unsqueeze(-1).to(logits.device)


class _Clock:
    """Seconds of each part."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self.start = self.last = perf_counter()

    def lap(self, part: str) -> None:
        now = perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last
        self.last = now

    def first(self, event: str) -> None:
        self.seconds.setdefault(event, perf_counter() - self.start)


class _Voice:
    """Turns closed pieces of text into sound, at once where somebody listens, else all together at the end."""

    def __init__(self, model: Any, settings: Any, tokenizer: Any, global_tokens: Any, streamer: Any, clock: _Clock):
        self.model, self.settings, self.tokenizer = model, settings, tokenizer
        self.global_tokens, self.streamer, self.clock = global_tokens, streamer, clock
        sample = settings.do_sample if settings.speech_do_sample is None else settings.speech_do_sample
        table = model.get_input_embeddings()
        self.decoder = SpeechTokenGenerator(
            model.speech_decoder, lambda ids: table(ids.to(table.weight.device)), settings, bool(sample)
        )
        self.silent = set(settings.segment_silent_token_ids)
        self.pieces: list[SpokenSegment] = []
        # Of each row, what is ready to be heard, and its codec while it speaks.
        self.sounds: dict[int, list[Tensor]] = {}
        self.streams: dict[int, Any] = {}

    def take(self, closed: list[Segment], text: TextGeneration) -> None:
        """Pieces that just ended."""
        for segment in closed:
            piece = self._piece(segment, text)
            if piece is None:
                continue
            self.pieces.append(piece)
            if self.streamer is not None:
                self._stream(piece)

    def finish(self) -> None:
        """Speak what was not streamed."""
        if self.streamer is not None:
            for row, stream in self.streams.items():
                self._emit(row, stream.finish())
            self.streamer.end()
            return
        self.decoder.speak(self.pieces)
        self.clock.lap("speech_decoder")
        spoken = self._joined() if self.settings.codec_across_segments else self.pieces
        sounds = self.model.codec.decode_windows(
            [piece.speech_tokens for piece in spoken],
            self.settings.codec_chunk_size,
            self.settings.codec_overlap,
            global_tokens=self._voices(spoken),
        )
        for piece, sound in zip(spoken, sounds, strict=True):
            self.sounds.setdefault(piece.row, []).append(sound)
        self.clock.lap("codec")
        self.clock.first("first_sound")

    def _joined(self) -> list[SpokenSegment]:
        """One piece a row, of all its speech tokens."""
        rows = list(dict.fromkeys(piece.row for piece in self.pieces))
        nothing = torch.zeros(0, dtype=torch.long, device=self.model.codec.device)
        tokens = {
            row: torch.cat([nothing, *(piece.speech_tokens.to(nothing) for piece in self.pieces if piece.row == row)])
            for row in rows
        }
        return [SpokenSegment(row, None, nothing, nothing, tokens[row]) for row in rows]

    def segments(self, rows: int) -> list[list[SpokenSegment]]:
        return [[piece for piece in self.pieces if piece.row == row] for row in range(rows)]

    def audio(self, rows: int) -> list[Tensor]:
        nothing = torch.zeros(0, device=self.model.codec.device)
        return [torch.cat([nothing, *self.sounds.get(row, [])]) for row in range(rows)]

    def _piece(self, segment: Segment, text: TextGeneration) -> SpokenSegment | None:
        ids = torch.stack([text.tokens[index][segment.row] for index in range(segment.start, segment.end)])
        hidden = torch.stack([text.hidden[index][segment.row] for index in range(segment.start, segment.end)])
        if segment.text is None:
            if all(token in self.silent for token in ids.tolist()):
                return None
        elif self.settings.segment_text_cleaner is not None:
            # As released: white space alone becomes a full stop and is spoken; nothing at all is not.
            cleaned = CLEANERS[self.settings.segment_text_cleaner](segment.text)
            tokens = self.tokenizer(cleaned, add_special_tokens=False)["input_ids"]
            if not tokens:
                return None
            ids = torch.tensor(tokens, device=ids.device)
        elif not segment.text.strip():
            return None
        return SpokenSegment(segment.row, segment.text, ids, hidden)

    def _voices(self, pieces: list[SpokenSegment]) -> Any:
        """The voice of each piece."""
        if self.global_tokens is None:
            return None
        voices = torch.as_tensor(self.global_tokens)
        return voices if voices.ndim == 1 else voices[[piece.row for piece in pieces]]

    def _stream(self, piece: SpokenSegment) -> None:
        settings, row = self.settings, piece.row
        if row not in self.streams:
            # Only the beginning of an answer is waited for.
            first = settings.codec_first_chunk_size if row not in self.sounds else None
            voices = self._voices([piece])
            self.streams[row] = self.model.codec.open_stream(
                settings.codec_chunk_size,
                settings.codec_overlap,
                first,
                voices if voices is None or voices.ndim == 1 else voices[0],
            )
            self.sounds.setdefault(row, [])
        stream = self.streams[row]
        for token in self.decoder.stream(piece):
            self.clock.lap("speech_decoder")
            self._emit(row, stream.push(token.to(self.model.codec.device)))
        self.clock.lap("speech_decoder")
        if not settings.codec_across_segments:
            self._emit(row, self.streams.pop(row).finish())

    def _emit(self, row: int, samples: Tensor) -> None:
        self.clock.lap("codec")
        if len(samples):
            self.clock.first("first_sound")
            self.sounds[row].append(samples)
            self.streamer.put(samples, row)
            self.clock.lap("listener")


__all__ = ["FreezeOmniGenerateOutput", "FreezeOmniGenerationMixin"]

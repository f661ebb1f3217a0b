# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The whole model: speech encoder, adapter, state head, speech decoder and codec around a frozen LLM."""

import inspect
import os
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForAudioTokenization, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from ..configuration import FreezeOmniConfig
from ..generation.configuration import FreezeOmniGenerationConfig
from ..generation.mixin import FreezeOmniGenerationMixin
from ..generation.text import check_placeholders, close_unread
from ..language_model import cache_of, check_language_model, load_language_model, warn_other_revision
from .adapter import FreezeOmniAdapter, StateHead
from .cache import AudioCache
from .checkpoint import load_config, refuse_incomplete, write_remote_code_stub
from .losses import causal_loss, distillation_loss, supervised_positions
from .outputs import FreezeOmniAudioOutput, FreezeOmniOutput
from .speech_decoder import FreezeOmniSpeechDecoder
from .speech_encoder import FreezeOmniSpeechEncoder


# Log-odds of a token below which a search does not ask which one it might be.
MAYBE_HEARD = -4.0

# Set while a checkpoint without LLM weights is loaded, so that no randomly initialised LLM is built.
_WITHOUT_LLM: ContextVar[bool] = ContextVar("freeze_omni_without_llm", default=False)


@contextmanager
def without_language_model():
    """Inside, `FreezeOmniForConditionalGeneration` is built without its LLM; attach one afterwards."""
    token = _WITHOUT_LLM.set(True)
    try:
        yield
    finally:
        _WITHOUT_LLM.reset(token)


class FreezeOmniPreTrainedModel(PreTrainedModel):
    config: FreezeOmniConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("audio", "text")
    output_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    generation_config_class = FreezeOmniGenerationConfig
    _supports_sdpa = True
    _supports_attention_backend = True
    # Several losses are averaged inside forward; Trainer must divide by the accumulation steps itself.
    accepts_loss_kwargs = False


class FreezeOmniForConditionalGeneration(FreezeOmniPreTrainedModel, FreezeOmniGenerationMixin, GenerationMixin):
    """Freeze-Omni (arXiv 2411.00774): a text LLM that is never changed, with ears and a voice.

    The LLM is held by reference: `from_pretrained` attaches it, `save_pretrained` leaves it out, and no code path
    changes it. The other parts are ``speech_encoder``, ``adapter``, ``prompt_embeddings``, ``task_embeddings``,
    ``state_head``, ``speech_decoder`` and ``codec``.
    """

    def __init__(self, config: FreezeOmniConfig):
        super().__init__(config)
        width = config.get_text_config().hidden_size
        self.speech_encoder = FreezeOmniSpeechEncoder._from_config(config.speech_encoder_config)
        self.adapter = FreezeOmniAdapter._from_config(config.adapter_config)
        self.prompt_embeddings = nn.Embedding(config.prompt_length, width) if config.prompt_length else None
        self.task_embeddings = nn.Embedding(config.num_tasks, width) if config.num_tasks else None
        self.state_head = StateHead(width, config.num_states) if config.num_states else None
        self.speech_decoder = self.codec = None
        if config.has_voice:
            self.speech_decoder = FreezeOmniSpeechDecoder._from_config(config.speech_decoder_config)
            self.codec = AutoModelForAudioTokenization.from_config(config.codec_config)
        self.language_model = None
        if not _WITHOUT_LLM.get():
            self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()
        if self.language_model is not None:
            self._adopt_language_model()

    # Loading, saving and the frozen LLM

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *model_args,
        language_model: PreTrainedModel | str | os.PathLike | None = None,
        llm_kwargs: dict[str, Any] | None = None,
        config: FreezeOmniConfig | None = None,
        dtype: torch.dtype | str | None = None,
        **kwargs,
    ) -> "FreezeOmniForConditionalGeneration":
        """Load the speech parts and attach the frozen LLM.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            language_model: A loaded LLM to share, or where to load one from; by default the one that the
                configuration names is looked for as a folder, in the user's cache and on the Hub, in this order.
            llm_kwargs: Arguments of `AutoModelForCausalLM.from_pretrained` for the LLM alone (``dtype``,
                ``device_map``, ``quantization_config``, ``attn_implementation``).
            dtype: Floating-point type; float32 for the speech parts and the LLM's own type by default.
            kwargs: As in `PreTrainedModel.from_pretrained`.

        Raises:
            LanguageModelError: the LLM is missing or has other sizes.
            ValueError: the checkpoint lacks weights of the speech parts.
        """
        place = pretrained_model_name_or_path
        hub = {
            key: kwargs[key]
            for key in ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
            if key in kwargs
        }
        if not isinstance(config, FreezeOmniConfig):
            config = load_config(place if config is None else config, hub)
        dtype = dtype if dtype is not None else kwargs.pop("torch_dtype", None)
        wanted_info = kwargs.pop("output_loading_info", False)
        own_dtype = torch.float32 if dtype in (None, "auto") else dtype
        whole = config.llm_saved and language_model is None
        if whole:
            own_dtype = "auto" if dtype is None else dtype
        with nullcontext() if whole else without_language_model():
            model, info = super().from_pretrained(
                place, *model_args, config=config, dtype=own_dtype, output_loading_info=True, **kwargs
            )
        refuse_incomplete(place, info)
        if whole:
            model._adopt_language_model()
        else:
            if language_model is None or isinstance(language_model, (str, os.PathLike)):
                llm_kwargs = dict(llm_kwargs or {})
                if dtype is not None:
                    llm_kwargs.setdefault("dtype", dtype)
                if kwargs.get("device_map") is not None:
                    llm_kwargs.setdefault("device_map", kwargs["device_map"])
                if language_model is None and config.llm_revision is not None:
                    llm_kwargs.setdefault("revision", config.llm_revision)
                for key in ("token", "local_files_only"):
                    if key in hub:
                        llm_kwargs.setdefault(key, hub[key])
                language_model = load_language_model(
                    config.llm_name_or_path if language_model is None else language_model, place, **llm_kwargs
                )
            model.attach_language_model(language_model)
        return (model, info) if wanted_info else model

    def attach_language_model(self, language_model: PreTrainedModel) -> None:
        """Attach (and freeze) the LLM; it may be shared with other models.

        Raises:
            LanguageModelError: its family or sizes differ from the configuration's.
        """
        check_language_model(self.config, language_model)
        warn_other_revision(self.config, language_model)
        self.language_model = language_model
        self.config.llm_saved = False
        self._adopt_language_model()
        if getattr(language_model, "hf_device_map", None):
            # Pipelines move a model unless it says that it is placed already.
            self.hf_device_map = dict(language_model.hf_device_map)

    def _adopt_language_model(self) -> None:
        """Freeze the LLM and keep it out of what is saved."""
        llm = self.language_model
        llm.requires_grad_(False)
        llm.eval()
        if tied := getattr(llm, "all_tied_weights_keys", None):
            self.all_tied_weights_keys.update(
                {f"language_model.{key}": f"language_model.{source}" for key, source in tied.items()}
            )
        self._no_split_modules = set(self._no_split_modules or []) | set(llm._no_split_modules or [])
        self._keys_to_ignore_on_save = (
            set() if self.config.llm_saved else {f"language_model.{key}" for key in llm.state_dict()}
        )

    def save_pretrained(
        self, save_directory: str | os.PathLike, *args, remote_code_stub: bool = False, **kwargs
    ) -> None:
        """Save the speech parts and the configuration, without the LLM.

        Args:
            save_directory: Folder.
            remote_code_stub: Also write a small file through which ``trust_remote_code=True`` finds this package.
        """
        super().save_pretrained(save_directory, *args, **kwargs)
        if remote_code_stub or getattr(self, "_push_stub", False):
            write_remote_code_stub(save_directory)

    def push_to_hub(self, repo_id: str, *, remote_code_stub: bool = False, **kwargs) -> str:
        """Upload the speech parts; see `PreTrainedModel.push_to_hub` and `save_pretrained`."""
        self._push_stub = remote_code_stub
        try:
            return super().push_to_hub(repo_id, **kwargs)
        finally:
            del self._push_stub

    def export_full(self, save_directory: str | os.PathLike, processor: Any = None, **kwargs) -> None:
        """Save speech parts and LLM together, with the processor where given: a folder that needs nothing else."""
        if self.language_model is None:
            raise ValueError("There is no LLM to export: attach one with attach_language_model first.")
        ignored, saved = self._keys_to_ignore_on_save, self.config.llm_saved
        self._keys_to_ignore_on_save, self.config.llm_saved = set(), True
        try:
            self.save_pretrained(save_directory, **kwargs)
        finally:
            self._keys_to_ignore_on_save, self.config.llm_saved = ignored, saved
        if processor is not None:
            processor.save_pretrained(save_directory)

    def train(self, mode: bool = True) -> "FreezeOmniForConditionalGeneration":
        """Set the speech parts to training mode; the LLM stays in evaluation mode."""
        super().train(mode)
        if self.language_model is not None:
            self.language_model.eval()
            for module in self.language_model.modules():
                # A checkpointed layer recomputes its activations only while its own flag says training.
                if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
                    module.training = mode
        return self

    def get_input_embeddings(self) -> nn.Module | None:
        return None if self.language_model is None else self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module | None:
        return None if self.language_model is None else self.language_model.get_output_embeddings()

    def get_decoder(self) -> nn.Module | None:
        return self.language_model

    def can_generate(self) -> bool:
        return True

    def compile_steps(self, **kwargs) -> None:
        """Compile the steady-state steps of live use: the encoder's chunk and the speech decoder's token.

        Shapes are fixed, so the first calls are slow and a new batch size compiles once more.

        Args:
            kwargs: For ``torch.compile``.
        """
        self.speech_encoder.compile_steps(**kwargs)
        if self.speech_decoder is not None:
            self.speech_decoder.compile_steps(**kwargs)

    # Hearing

    def encode_audio(
        self,
        input_features: Tensor,
        feature_attention_mask: Tensor | None = None,
        cache: AudioCache | None = None,
        use_cache: bool = False,
        candidates: int = 0,
    ) -> FreezeOmniAudioOutput:
        """Log-mel frames to LLM-space vectors, for whole utterances or the next chunks of streams.

        With a token mixture, vectors that are not read are zeros.

        Args:
            input_features: (B, T, num_mel_bins).
            feature_attention_mask: (B, T), 1 on real frames.
            cache: Stream state; None starts one where ``use_cache`` is set.
            use_cache: Return the cache for the next chunk.
            candidates: For an adapter that mixes tokens, the likeliest tokens of each vector instead of mixtures.
        """
        streaming = cache is not None or use_cache
        encoded = self.speech_encoder(
            input_features.to(self.adapter.proj.weight.device),
            feature_attention_mask,
            cache=None if cache is None else cache.encoder,
            use_cache=streaming,
            return_dict=True,
        )
        adapted = self.adapter(
            encoded.last_hidden_state,
            encoded.attention_mask,
            cache=None if cache is None else cache.adapter,
            use_cache=streaming,
            return_dict=True,
        )
        new_cache = AudioCache(encoded.cache, adapted.cache) if streaming else None
        read = adapted.attention_mask
        if adapted.gate_logits is not None:
            read = read & (adapted.gate_logits > 0)
        output = FreezeOmniAudioOutput(
            attention_mask=adapted.attention_mask,
            read_mask=read,
            gate_logits=adapted.gate_logits,
            letter_logits=adapted.letter_logits,
            cache=new_cache,
        )
        if candidates:
            table = self._require_llm().get_input_embeddings().weight
            maybe = adapted.attention_mask
            if adapted.gate_logits is not None:
                maybe = maybe & (adapted.gate_logits > MAYBE_HEARD)
            output.likely_ids, output.likely_log_probs = self.adapter.likely_tokens(
                adapted.last_hidden_state, table, adapted.spelling, candidates, maybe
            )
        else:
            output.embeds, output.token_ids = self.as_embeddings(adapted.last_hidden_state, adapted.spelling, read)
        return output

    def as_embeddings(
        self, vectors: Tensor, spelling: Tensor | None = None, read: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Adapter vectors (B, L, hidden_size) as the LLM reads them: as they are, or as mixtures of its embeddings.

        Args:
            vectors, spelling: Of the adapter.
            read: (B, L) boolean, the vectors that are read; mixtures are made for them alone, and others are zeros.

        Returns:
            (B, L, hidden_size), and (B, L) the likeliest token of each mixture or None.
        """
        if not self.config.adapter_config.token_mixture:
            return vectors, None
        return self.adapter.hear_tokens(vectors, self._require_llm().get_input_embeddings().weight, spelling, read)

    @property
    def vectors_per_chunk(self) -> int:
        """LLM-space vectors of one chunk: 2 for 160 ms."""
        return max(self.config.speech_encoder_config.chunk_size // self.config.adapter_config.stride, 1)

    def _audio_rows(
        self, input_features: Tensor, feature_attention_mask: Tensor | None, task_ids: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All placeholder vectors in order, (N, hidden_size), which of them end a chunk and which are read, (N,)."""
        audio = self.encode_audio(input_features, feature_attention_mask)
        count = audio.embeds.shape[0]
        lead = self._lead_rows(count, task_ids).to(audio.embeds)
        real = F.pad(audio.attention_mask, (lead.shape[1], 0), value=True)
        ends = torch.arange(1, audio.embeds.shape[1] + 1, device=real.device) % self.vectors_per_chunk == 0
        ends = F.pad(ends, (lead.shape[1], 0)).expand(count, -1)
        read = F.pad(audio.read_mask, (lead.shape[1], 0), value=True)
        return torch.cat((lead, audio.embeds), dim=1)[real], ends[real], read[real]

    def _lead_rows(self, count: int, task_ids: Tensor | None) -> Tensor:
        """(count, n, hidden_size) vectors that stand before each audio: its task's, or the learned prompt."""
        if task_ids is not None:
            if self.task_embeddings is None:
                raise ValueError("task_ids are given, but the model has no task embeddings (num_tasks=0).")
            return self.task_embeddings(task_ids.to(self.task_embeddings.weight.device)).unsqueeze(1)
        if self.prompt_embeddings is not None:
            return self.prompt_embeddings.weight.expand(count, -1, -1)
        return self.adapter.proj.weight.new_zeros(count, 0, self.adapter.config.output_size)

    def prepare_inputs_embeds(
        self,
        input_ids: Tensor,
        input_features: Tensor | None = None,
        feature_attention_mask: Tensor | None = None,
        task_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Look up the text and put audio in the place of its placeholders.

        Args:
            input_ids: (B, S) ids from the processor.
            input_features: (A, T, num_mel_bins), one row for each audio in the order of appearance.
            feature_attention_mask: (A, T).
            task_ids: (A,) task of each audio; the task's embedding then stands in the place of the prompt.

        Returns:
            (B, S, hidden_size) in the LLM's type, and (B, S) boolean: the last vector of each chunk.

        Raises:
            ValueError: placeholders and audio do not match.
        """
        return self._embed(input_ids, input_features, feature_attention_mask, task_ids)[:2]

    def _embed(
        self,
        input_ids: Tensor,
        input_features: Tensor | None = None,
        feature_attention_mask: Tensor | None = None,
        task_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`prepare_inputs_embeds`, and (B, S) boolean: False at vectors that the gate keeps from the LLM."""
        table = self._require_llm().get_input_embeddings()
        places = input_ids == self.config.audio_token_id
        embeds = table(input_ids.masked_fill(places, 0).to(table.weight.device))
        chunk_ends = torch.zeros_like(places)
        expected = int(places.sum())
        if input_features is None:
            if expected:
                raise ValueError(f"input_ids holds {expected} audio placeholders, but input_features is missing.")
            return embeds, chunk_ends, torch.ones_like(places)
        rows, ends, read = self._audio_rows(input_features, feature_attention_mask, task_ids)
        check_placeholders(expected, rows.shape[0])
        embeds = embeds.masked_scatter(places.unsqueeze(-1).to(embeds.device), rows.to(embeds.device, embeds.dtype))
        chunk_ends = chunk_ends.masked_scatter(places, ends.to(places.device))
        return embeds, chunk_ends, torch.ones_like(places).masked_scatter(places, read.to(places.device))

    # The LLM

    def _require_llm(self) -> PreTrainedModel:
        if self.language_model is None:
            raise ValueError("No LLM is attached: load with from_pretrained or call attach_language_model.")
        return self.language_model

    def run_language_model(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        logits_to_keep: int | Tensor = 0,
    ) -> Any:
        """One pass of the frozen LLM; ``hidden_states[-1]`` of the output is behind the final norm.

        Positions follow the mask, so that padding on either side does not matter.
        """
        llm = self._require_llm()
        kwargs: dict[str, Any] = {}
        if isinstance(logits_to_keep, int) and logits_to_keep > 0:
            # Given a number, an LLM slices its hidden states, and on a CPU the output layer copies its weight for
            # them (twice the time of a short prefill); an index does not.
            length = inputs_embeds.shape[1]
            kept = range(max(length - logits_to_keep, 0), length)
            logits_to_keep = torch.tensor(kept, device=inputs_embeds.device)
        if position_ids is None and attention_mask is not None:
            position_ids = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -inputs_embeds.shape[1] :]
        if position_ids is not None and "position_ids" in _parameters(type(llm)):
            kwargs["position_ids"] = position_ids
        # The cache has another name since transformers 5.24.
        kwargs["cache" if "cache" in _parameters(type(llm)) else "past_key_values"] = past_key_values
        return llm(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            use_cache=use_cache,
            output_hidden_states=True,
            return_dict=True,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    @torch.no_grad()
    def text_mode_logits(self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor) -> Tensor:
        """Logits of the LLM reading text, at the positions that ``labels`` supervises: the distillation target.

        Args:
            input_ids: (B, S) the conversation as text.
            attention_mask: (B, S).
            labels: (B, S) ids of the answer, -100 elsewhere.

        Returns:
            (N, vocab_size), row by row.
        """
        embeds = self._require_llm().get_input_embeddings()(input_ids)
        logits = self.run_language_model(embeds, attention_mask).logits
        return logits[:, :-1][supervised_positions(labels)]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        feature_attention_mask: Tensor | None = None,
        task_ids: Tensor | None = None,
        labels: Tensor | None = None,
        state_labels: Tensor | None = None,
        teacher_input_ids: Tensor | None = None,
        teacher_attention_mask: Tensor | None = None,
        teacher_labels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
    ) -> FreezeOmniOutput | tuple:
        """Text and state logits of a padded batch, and the losses of the input stages (section 3.3).

        In training, an adapter with a gate leaves the positions that the LLM does not read out of the batch (unless
        ``state_labels`` need them), so that outputs are shorter than ``input_ids``.

        Args:
            input_ids: (B, S) from the processor, audio as placeholders.
            attention_mask: (B, S), 1 on real positions; padding may be on either side.
            input_features: (A, T, num_mel_bins) of all audio in the batch.
            feature_attention_mask: (A, T).
            task_ids: (A,) see `prepare_inputs_embeds`.
            labels: (B, S) ids to predict, -100 where not supervised (shifted here).
            state_labels: (B, S) state at each position, -100 where unknown (not shifted).
            teacher_input_ids: (B, S') the same conversation as text, for distillation.
            teacher_attention_mask: (B, S').
            teacher_labels: (B, S') the same answer ids as in ``labels``, at their places in ``teacher_input_ids``.
            teacher_logits: (N, vocab_size) a ready target instead, one row a supervised position.
            inputs_embeds: (B, S, hidden_size) instead of ``input_ids`` and audio.
            past_key_values: The LLM's cache; ``attention_mask`` then covers past and new positions.
            use_cache: Return the LLM's cache.
            logits_to_keep: As in transformers: compute only the last text logits.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("Give input_ids or inputs_embeds.")
            inputs_embeds, _, read = self._embed(input_ids, input_features, feature_attention_mask, task_ids)
            if attention_mask is None:
                attention_mask = torch.ones_like(input_ids)
            if self.config.adapter_config.gate:
                attention_mask = close_unread(attention_mask, read)
                if self.training and past_key_values is None and position_ids is None and state_labels is None:
                    inputs_embeds, attention_mask, labels = _without_gaps(inputs_embeds, attention_mask, labels)
        chosen = None
        if labels is not None and self.training and isinstance(logits_to_keep, int) and logits_to_keep == 0:
            # A vocabulary is wide: compute logits only where some row of the batch is supervised.
            chosen = supervised_positions(labels).any(dim=0).nonzero().flatten()
            logits_to_keep = chosen if chosen.numel() else 1
        output = self.run_language_model(
            inputs_embeds, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep
        )
        hidden, logits = output.hidden_states[-1], output.logits
        state_logits = None
        if self.state_head is not None:
            state_logits = self.state_head(hidden.to(self.state_head.weight.dtype))

        loss = lm_loss = state_loss = kd_loss = None
        if labels is not None:
            where = supervised_positions(labels)
            if chosen is not None:
                kept, where = labels[:, 1:][where], where[:, chosen]
                student = logits[where] if chosen.numel() else logits[:0, 0]
            else:
                kept, student = labels[:, 1:][where], logits[:, :-1][where]
            lm_loss = causal_loss(student, kept)
            loss = lm_loss
            if teacher_input_ids is not None:
                if teacher_labels is None:
                    raise ValueError("teacher_input_ids needs teacher_labels: the answer's place in them.")
                teacher_kept = teacher_labels[:, 1:][supervised_positions(teacher_labels)]
                if not torch.equal(teacher_kept, kept.to(teacher_kept.device)):
                    raise ValueError("teacher_labels and labels supervise different tokens; both are the same answer.")
                teacher_logits = self.text_mode_logits(teacher_input_ids, teacher_attention_mask, teacher_labels)
            if teacher_logits is not None:
                kd_loss = distillation_loss(student, teacher_logits, self.config.distillation_temperature)
                loss = self.config.lm_loss_weight * lm_loss + self.config.distillation_weight * kd_loss
        if state_labels is not None:
            if self.state_head is None:
                raise ValueError("state_labels are given, but the model has no state head (num_states=0).")
            state_loss = causal_loss(state_logits.flatten(0, 1), state_labels.flatten())
            weighted = self.config.state_loss_weight * state_loss
            loss = weighted if loss is None else loss + weighted
        result = FreezeOmniOutput(loss, lm_loss, state_loss, kd_loss, logits, state_logits, hidden, cache_of(output))
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return result if return_dict else result.to_tuple()


def _without_gaps(
    embeds: Tensor, attention_mask: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A batch without the positions that no row reads, in their order: half as much to compute for short speech."""
    keep = attention_mask.bool()
    order = keep.long().argsort(dim=1, descending=True, stable=True)[:, : int(keep.sum(dim=1).max())]
    keep = keep.gather(1, order)
    embeds = embeds.gather(1, order.to(embeds.device).unsqueeze(-1).expand(-1, -1, embeds.shape[-1]))
    if labels is not None:
        labels = labels.gather(1, order.to(labels.device)).masked_fill(~keep.to(labels.device), -100)
    return embeds, keep.to(attention_mask.dtype), labels


def _parameters(kind: type) -> set[str]:
    return set(inspect.signature(kind.forward).parameters)


__all__ = [
    "FreezeOmniAudioOutput",
    "FreezeOmniForConditionalGeneration",
    "FreezeOmniOutput",
    "FreezeOmniPreTrainedModel",
]

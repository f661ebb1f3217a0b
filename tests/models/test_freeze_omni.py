# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The whole model: the LLM stays as it is and out of the checkpoint, losses, padded batches, any LLM."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForMultimodalLM

from freeze_omni_hf import (
    FreezeOmniForConditionalGeneration,
    LanguageModelError,
    language_model_fingerprint,
    state_hash,
)


AUDIO = 259  # the placeholder's id: one past the tiny vocabulary


def batch(model, chunks=(3, 1), text=(5, 9), labels: bool = True, side: str = "left") -> dict:
    """Rows of different length: text, prompt and audio, answer."""
    torch.manual_seed(5)
    prompt = model.config.prompt_length
    rows, features = [], []
    for count, length in zip(chunks, text, strict=True):
        before, answer = torch.randint(0, 250, (4,)), torch.randint(0, 250, (length,))
        places = torch.full((prompt + 2 * count,), AUDIO)
        rows.append((torch.cat((before, places, answer)), 4 + len(places)))
        features.append(torch.randn(16 * count, 80) * 2)
    longest = max(len(ids) for ids, _ in rows)
    frames = max(len(f) for f in features)
    out = {
        "input_ids": torch.full((len(rows), longest), 256),
        "attention_mask": torch.zeros(len(rows), longest, dtype=torch.long),
        "input_features": torch.zeros(len(rows), frames, 80),
        "feature_attention_mask": torch.zeros(len(rows), frames, dtype=torch.long),
    }
    wanted = torch.full((len(rows), longest), -100)
    for row, ((ids, start), feature) in enumerate(zip(rows, features, strict=True)):
        place = slice(longest - len(ids), longest) if side == "left" else slice(0, len(ids))
        out["input_ids"][row, place] = ids
        out["attention_mask"][row, place] = 1
        wanted[row, place] = torch.cat((torch.full((start,), -100), ids[start:]))
        out["input_features"][row, : len(feature)] = feature
        out["feature_attention_mask"][row, : len(feature)] = 1
    if labels:
        out["labels"] = wanted
    return out


def row_of(inputs: dict, row: int) -> dict:
    """One row alone, without padding."""
    keep = inputs["attention_mask"][row].bool()
    frames = inputs["feature_attention_mask"][row].bool()
    alone = {name: inputs[name][row : row + 1, keep] for name in ("input_ids", "attention_mask")}
    alone["input_features"] = inputs["input_features"][row : row + 1, frames]
    if "labels" in inputs:
        alone["labels"] = inputs["labels"][row : row + 1, keep]
    return alone


class TestFrozenLLM:
    def test_no_code_path_changes_one_bit(self, tmp_path):
        llm = tiny.language_model()
        llm.save_pretrained(tmp_path / "llm")
        before = state_hash(llm)
        model = tiny.model(llm, llm_name_or_path=str(tmp_path / "llm"))
        assert state_hash(model.language_model) == before
        model.train()
        assert not llm.training and not any(p.requires_grad for p in llm.parameters())
        trainable = [p for p in model.parameters() if p.requires_grad]
        start = [p.detach().clone() for p in trainable]
        optimizer = torch.optim.AdamW(trainable, lr=0.1, weight_decay=0.1)
        inputs = batch(model)
        loss = model(**inputs, state_labels=torch.zeros_like(inputs["input_ids"])).loss
        rows = model.get_input_embeddings()(torch.randint(0, 250, (2, 4)))
        loss = loss + model.speech_decoder(rows, None, rows, labels=torch.randint(0, 32, (2, 6))).loss
        loss = loss + model.codec(torch.randn(1, 4800)).audio_values.square().mean()
        loss.backward()
        optimizer.step()
        assert any(not torch.equal(a, b) for a, b in zip(start, trainable, strict=True))
        assert state_hash(model.language_model) == before
        model.save_pretrained(tmp_path / "model")
        assert state_hash(model.language_model) == before
        again = FreezeOmniForConditionalGeneration.from_pretrained(tmp_path / "model")
        assert state_hash(again.language_model) == before
        assert not any(p.requires_grad for p in again.language_model.parameters())
        model.eval(), again.eval()
        inputs = batch(model)
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)

    def test_checkpoint_holds_no_llm_tensor_and_reloads_bit_equal(self, tmp_path):
        model = tiny.model()
        model.save_pretrained(tmp_path)
        with safe_open(tmp_path / "model.safetensors", "pt") as file:
            names = set(file.keys())
        assert names == {name for name in model.state_dict() if not name.startswith("language_model.")}
        again = FreezeOmniForConditionalGeneration.from_pretrained(tmp_path, language_model=model.language_model)
        assert again.language_model is model.language_model
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name
        explicit = tmp_path / "explicit"
        model.save_pretrained(explicit, state_dict=model.state_dict())
        with safe_open(explicit / "model.safetensors", "pt") as file:
            assert set(file.keys()) == names

    def test_export_full_is_self_contained(self, tmp_path):
        model = tiny.model()
        model.export_full(tmp_path)
        again = FreezeOmniForConditionalGeneration.from_pretrained(tmp_path).eval()
        assert state_hash(again.language_model) == state_hash(model.language_model)
        assert not any(p.requires_grad for p in again.language_model.parameters())
        inputs = batch(model)
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)
        assert not model.config.llm_saved
        # From there the speech parts can be saved alone again, around another copy of the LLM.
        shared = FreezeOmniForConditionalGeneration.from_pretrained(tmp_path, language_model=model.language_model)
        shared.save_pretrained(tmp_path / "parts")
        with safe_open(tmp_path / "parts/model.safetensors", "pt") as file:
            assert not any(name.startswith("language_model.") for name in file.keys())  # noqa: SIM118

    def test_wrong_or_missing_llm_is_refused_by_name(self, tmp_path):
        model = tiny.model(llm_name_or_path="nobody/nothing")
        model.save_pretrained(tmp_path)
        load = FreezeOmniForConditionalGeneration.from_pretrained
        with pytest.raises(LanguageModelError, match="hidden_size 48 instead of 32"):
            load(tmp_path, language_model=tiny.language_model(width=48))
        with pytest.raises(LanguageModelError, match="'qwen2' instead of 'llama'"):
            load(tmp_path, language_model=tiny.language_model("qwen2"))
        with pytest.raises(LanguageModelError, match="nobody/nothing.*language_model="):
            load(tmp_path)
        with pytest.raises(LanguageModelError, match="not str|not int"):
            model.attach_language_model(3)

    def test_another_revision_is_a_warning(self, tmp_path, caplog):
        llm = tiny.language_model()
        model = tiny.model(llm, llm_fingerprint=language_model_fingerprint(llm))
        model.save_pretrained(tmp_path)
        load = FreezeOmniForConditionalGeneration.from_pretrained
        import logging

        logger = logging.getLogger("transformers")
        logger.propagate = True
        load(tmp_path, language_model=llm)
        assert "fingerprint" not in caplog.text
        load(tmp_path, language_model=tiny.language_model(seed=2))
        assert "fingerprint" in caplog.text
        half = tiny.language_model().to(torch.bfloat16)
        assert language_model_fingerprint(half) == language_model_fingerprint(llm)

    def test_truncated_checkpoint_is_refused(self, tmp_path):
        from safetensors.torch import load_file, save_file

        model = tiny.model()
        model.save_pretrained(tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        del weights["adapter.proj.weight"]
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match="adapter.proj.weight is missing"):
            FreezeOmniForConditionalGeneration.from_pretrained(tmp_path, language_model=model.language_model)

    @pytest.mark.parametrize("auto", [AutoModel, AutoModelForMultimodalLM])
    def test_auto_classes_and_dtypes(self, tmp_path, auto):
        llm = tiny.language_model()
        llm.save_pretrained(tmp_path / "llm")
        model = tiny.model(llm, llm_name_or_path=str(tmp_path / "llm"))
        model.save_pretrained(tmp_path / "model")
        loaded = auto.from_pretrained(tmp_path / "model")
        assert type(loaded) is FreezeOmniForConditionalGeneration
        assert state_hash(loaded.language_model) == state_hash(llm)
        mixed = auto.from_pretrained(tmp_path / "model", llm_kwargs={"dtype": torch.bfloat16})
        assert mixed.adapter.proj.weight.dtype == torch.float32
        assert mixed.language_model.dtype == torch.bfloat16
        inputs = batch(mixed)
        assert mixed(**inputs).loss.isfinite()
        half = auto.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
        assert half.adapter.proj.weight.dtype == half.language_model.dtype == torch.bfloat16
        assert half(**inputs).loss.isfinite()

    def test_local_folder_beside_the_checkpoint(self, tmp_path):
        llm = tiny.language_model()
        tiny.model(llm, llm_name_or_path="llm").save_pretrained(tmp_path)
        llm.save_pretrained(tmp_path / "llm")
        loaded = FreezeOmniForConditionalGeneration.from_pretrained(tmp_path)
        assert state_hash(loaded.language_model) == state_hash(llm)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
@pytest.mark.parametrize("width", [32, 40])
def test_any_llm_attaches(family, width, tmp_path):
    """40 is no multiple of the decoder's 16: the LLM's vectors are projected."""
    llm = tiny.language_model(family, width)
    model = tiny.model(llm, llm_name_or_path=str(tmp_path / "llm"))
    assert model.config.speech_decoder_config.uses_projection == (width == 40)
    inputs = batch(model)
    output = model(**inputs)
    # The hidden state is the vector that the LLM's output layer reads.
    torch.testing.assert_close(llm.get_output_embeddings()(output.last_hidden_state), output.logits)
    llm.save_pretrained(tmp_path / "llm")
    model.save_pretrained(tmp_path / "model")
    again = FreezeOmniForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    assert torch.equal(again(**inputs).logits, output.logits)
    for key in ("labels",):
        inputs.pop(key)
    out = model.generate(
        **inputs, max_new_tokens=6, do_sample=False, return_dict_in_generate=True, speech_max_tokens=20
    )
    assert out.sequences.shape[1] == inputs["input_ids"].shape[1] + 6 or 258 in out.sequences


class TestForward:
    @pytest.mark.parametrize("side", ["left", "right"])
    @torch.no_grad()
    def test_padded_batch_equals_rows_alone(self, side):
        model = tiny.model()
        inputs = batch(model, chunks=(3, 1, 7), text=(5, 9, 2), side=side)
        output = model(**inputs)
        losses, counts = [], []
        for row in range(3):
            alone = model(**row_of(inputs, row))
            keep = inputs["attention_mask"][row].bool()
            torch.testing.assert_close(output.logits[row, keep], alone.logits[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(output.state_logits[row, keep], alone.state_logits[0], atol=1e-4, rtol=1e-4)
            counts.append((inputs["labels"][row] >= 0).sum())
            losses.append(alone.lm_loss * counts[-1])
        torch.testing.assert_close(output.lm_loss, sum(losses) / sum(counts), atol=1e-5, rtol=1e-5)

    def test_training_and_evaluation_give_the_same_loss(self):
        model = tiny.model(encoder={"hidden_dropout": 0.0, "activation_dropout": 0.0})
        inputs = batch(model)
        torch.testing.assert_close(model.train()(**inputs).loss, model.eval()(**inputs).loss)

    def test_loss_is_next_token_cross_entropy(self):
        model = tiny.model()
        inputs = batch(model, chunks=(2,), text=(4,))
        output = model(**inputs)
        logits = output.logits[0, -5:-1].log_softmax(-1)
        answer = inputs["input_ids"][0, -4:]
        torch.testing.assert_close(output.loss, -logits[torch.arange(4), answer].mean())

    def test_gradients_reach_ears_and_not_the_llm(self):
        model = tiny.model().train()
        inputs = batch(model)
        ends = torch.full_like(inputs["input_ids"], -100)
        ends[:, 8] = 1
        model(**inputs, state_labels=ends).loss.backward()
        reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert reached == {"speech_encoder", "adapter", "prompt_embeddings", "state_head"}

    def test_state_loss_and_chunk_ends(self):
        model = tiny.model(state_loss_weight=0.5)
        inputs = batch(model, labels=False)
        _, ends = model.prepare_inputs_embeds(
            inputs["input_ids"], inputs["input_features"], inputs["feature_attention_mask"]
        )
        assert ends.sum(1).tolist() == [3, 1]
        places = inputs["input_ids"] == AUDIO
        assert bool((ends <= places).all())
        # The last audio vector of a row ends its last chunk.
        last = torch.where(places, torch.arange(places.shape[1]), -1).max(1).values
        assert bool(ends[torch.arange(2), last].all())
        labels = torch.where(ends, 0, -100)
        output = model(**inputs, state_labels=labels)
        expected = torch.nn.functional.cross_entropy(output.state_logits[ends], torch.zeros(4, dtype=torch.long))
        torch.testing.assert_close(output.loss, 0.5 * expected)

    def test_task_embedding_stands_in_the_place_of_the_prompt(self):
        model = tiny.model()
        ids = torch.tensor([[1, AUDIO, AUDIO, AUDIO, 2]])
        features = torch.randn(1, 16, 80)
        embeds, _ = model.prepare_inputs_embeds(ids, features, task_ids=torch.tensor([4]))
        assert torch.equal(embeds[0, 1], model.task_embeddings.weight[4])

    def test_distillation(self):
        model = tiny.model(distillation_weight=2.0, lm_loss_weight=0.0)
        inputs = batch(model, chunks=(2, 2), text=(4, 6))
        answer = [inputs["labels"][row][inputs["labels"][row] >= 0] for row in range(2)]
        teacher = torch.full((2, 8), 256)
        labels = torch.full((2, 8), -100)
        mask = torch.zeros(2, 8, dtype=torch.long)
        for row, ids in enumerate(answer):
            teacher[row, -len(ids) - 2 :] = torch.cat((torch.tensor([7, 8]), ids))
            labels[row, -len(ids) :] = ids
            mask[row, -len(ids) - 2 :] = 1
        output = model(**inputs, teacher_input_ids=teacher, teacher_attention_mask=mask, teacher_labels=labels)
        logits = [model.language_model(torch.cat((torch.tensor([7, 8]), ids))[None]).logits[0, 1:-1] for ids in answer]
        where = inputs["labels"][:, 1:] != -100
        student = output.logits[:, :-1][where].log_softmax(-1)
        target = torch.cat(logits).log_softmax(-1)
        expected = (target.exp() * (target - student)).sum(-1).mean()
        torch.testing.assert_close(output.distillation_loss, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.loss, 2 * expected, atol=1e-4, rtol=1e-4)
        ready = model(**inputs, teacher_logits=torch.cat(logits))
        torch.testing.assert_close(ready.loss, output.loss, atol=1e-4, rtol=1e-4)
        with pytest.raises(ValueError, match="different tokens"):
            labels[0, -1] = 3
            model(**inputs, teacher_input_ids=teacher, teacher_attention_mask=mask, teacher_labels=labels)

    @torch.no_grad()
    def test_listening_chunk_by_chunk_equals_the_whole(self):
        """What live dialogue does: encode a chunk, prefill it, look at the state."""
        model = tiny.model()
        inputs = batch(model, chunks=(6,), text=(1,), labels=False)
        whole = model(**inputs)
        table = model.get_input_embeddings()
        ids = inputs["input_ids"][0]
        start = int((ids == AUDIO).nonzero()[0]) + model.config.prompt_length
        embeds = torch.cat((table(ids[:4]), model.prompt_embeddings.weight))[None]
        output = model(inputs_embeds=embeds, use_cache=True)
        cache, states = None, []
        for chunk in inputs["input_features"].split(16, dim=1):
            audio = model.encode_audio(chunk, cache=cache, use_cache=True)
            cache = audio.cache
            past = output.past_key_values.get_seq_length()
            output = model(
                inputs_embeds=audio.embeds,
                attention_mask=torch.ones(1, past + audio.embeds.shape[1]),
                past_key_values=output.past_key_values,
                use_cache=True,
            )
            states.append(output.state_logits[0])
        torch.testing.assert_close(torch.cat(states), whole.state_logits[0, start : start + 12], atol=1e-4, rtol=1e-4)

    @torch.no_grad()
    def test_the_llm_reads_what_the_gate_lets_through(self):
        """Vectors behind a closed gate change nothing: as if they were not there, offline, live and in generate."""
        model = tiny.model(adapter={"gate": True}, voice=False)
        inputs = batch(model, chunks=(6,), text=(5,), labels=False)
        audio = model.encode_audio(inputs["input_features"], inputs["feature_attention_mask"])
        model.adapter.gate.bias -= audio.gate_logits.median()  # some open, some closed
        audio = model.encode_audio(inputs["input_features"], inputs["feature_attention_mask"])
        read = audio.read_mask[0]
        assert 2 < int(read.sum()) < len(read) - 2
        whole = model(**inputs)
        ids = inputs["input_ids"][0]
        places = (ids == AUDIO).nonzero().flatten()
        first, last = int(places[0]), int(places[-1])
        table = model.get_input_embeddings()
        parts = [table(ids[:first]), model.prompt_embeddings.weight, audio.embeds[0, read], table(ids[last + 1 :])]
        dense = model(inputs_embeds=torch.cat(parts)[None])
        behind = len(ids) - last - 1
        torch.testing.assert_close(whole.logits[0, -behind:], dense.logits[0, -behind:], atol=1e-4, rtol=1e-4)
        answer = model.generate(**inputs, do_sample=False, max_new_tokens=5)[0, len(ids) :]
        plain = model.generate(inputs_embeds=torch.cat(parts)[None], do_sample=False, max_new_tokens=5)[0]
        assert answer.tolist() == plain.tolist()

        mask = torch.ones(1, first + model.config.prompt_length)
        output, cache = model(inputs_embeds=torch.cat(parts[:2])[None], attention_mask=mask, use_cache=True), None
        for chunk in inputs["input_features"].split(16, dim=1):
            heard = model.encode_audio(chunk, cache=cache, use_cache=True)
            cache, mask = heard.cache, torch.cat((mask, heard.read_mask), dim=1)
            output = model(
                inputs_embeds=heard.embeds, attention_mask=mask, past_key_values=output.cache, use_cache=True
            )
        mask = torch.cat((mask, torch.ones(1, behind)), dim=1)
        live = model(inputs_embeds=parts[3][None], attention_mask=mask, past_key_values=output.cache)
        torch.testing.assert_close(live.logits[0], dense.logits[0, -behind:], atol=1e-4, rtol=1e-4)

    def test_training_leaves_unread_positions_out(self):
        """The same loss and gradients over fewer positions."""
        model = tiny.model(adapter={"gate": True}, voice=False, encoder={"hidden_dropout": 0, "activation_dropout": 0})
        inputs = batch(model, chunks=(6, 4), text=(5, 7))
        with torch.no_grad():
            audio = model.encode_audio(inputs["input_features"], inputs["feature_attention_mask"])
            model.adapter.gate.bias -= audio.gate_logits.median()
        gradients, outputs = [], []
        for training in (False, True):
            model.zero_grad()
            outputs.append(model.train(training)(**inputs))
            outputs[-1].loss.backward()
            gradients.append(model.adapter.proj.weight.grad.clone())
        assert outputs[1].last_hidden_state.shape[1] < outputs[0].last_hidden_state.shape[1]
        torch.testing.assert_close(outputs[0].loss, outputs[1].loss, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-3)

    def test_placeholders_and_audio_must_match(self):
        model = tiny.model()
        inputs = batch(model)
        with pytest.raises(ValueError, match="18 audio placeholders.*22 vectors|placeholders"):
            model(**{**inputs, "input_features": inputs["input_features"][:1], "feature_attention_mask": None})
        with pytest.raises(ValueError, match="input_features is missing"):
            model(input_ids=inputs["input_ids"])
        with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
            model()

    def test_return_tuple(self):
        model = tiny.model()
        assert isinstance(model(**batch(model), return_dict=False), tuple)


def test_gradient_checkpointing_reaches_the_frozen_llm():
    model = tiny.model(encoder={"hidden_dropout": 0.0, "activation_dropout": 0.0}).train()
    inputs = batch(model)
    model(**inputs).loss.backward()
    expected = model.adapter.proj.weight.grad.clone()
    model.zero_grad()
    model.activation_checkpointing_enable()
    model.train()
    calls = []
    layer = model.language_model.model.layers[0]
    handle = layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    model(**inputs).loss.backward()
    handle.remove()
    assert len(calls) == 2, "the LLM's layer is recomputed in the backward pass"
    assert not layer.mlp.training
    torch.testing.assert_close(model.adapter.proj.weight.grad, expected)


def test_attention_implementations_agree():
    model = tiny.model()
    inputs = batch(model)
    expected = model(**inputs).logits
    model.set_attn_implementation("eager")
    assert model.speech_encoder.config._attn_implementation == "eager"
    torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-4, rtol=1e-4)


def test_every_weight_is_initialised():
    torch.manual_seed(0)
    model = FreezeOmniForConditionalGeneration(tiny.config())
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all() and parameter.abs().max() < 10, name
    assert not any(parameter.requires_grad for parameter in model.language_model.parameters())


def test_trust_remote_code_finds_the_package_through_the_stub(tmp_path):
    llm = tiny.language_model()
    llm.save_pretrained(tmp_path / "llm")
    model = tiny.model(llm, llm_name_or_path=str(tmp_path / "llm"))
    model.save_pretrained(tmp_path / "model", remote_code_stub=True)
    assert "custom_pipelines" in json.loads((tmp_path / "model/config.json").read_text())
    code = (
        "from transformers import AutoModel\n"
        f"model = AutoModel.from_pretrained({str(tmp_path / 'model')!r}, trust_remote_code=True)\n"
        "print(type(model).__module__, type(model).__name__)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "FreezeOmniForConditionalGeneration" in result.stdout, result.stderr
    assert "auto_map" not in json.loads((_save_plain(model, tmp_path) / "config.json").read_text())


def _save_plain(model, folder: Path) -> Path:
    model.save_pretrained(folder / "plain")
    return folder / "plain"

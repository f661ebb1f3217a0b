# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What the stage scripts share: alignment, collators, which parts are trained."""

import io

import numpy as np
import pytest
import soundfile
import tiny
import torch
from transformers import Trainer, TrainingArguments

from freeze_omni_hf import FreezeOmniProcessor, state_hash
from freeze_omni_hf.models.letters import character_ids
from freeze_omni_hf.training.alignment import (
    FreezeOmniForAlignment,
    collapse,
    transcript_tokens,
)
from freeze_omni_hf.training.collators import ConversationCollator, TranscriptCollator
from freeze_omni_hf.training.data import DataError
from freeze_omni_hf.training.stages import FrozenParts, train_only


TEXTS = ("abc", "the cat", "cab", "hello")


def row(text: str) -> dict:
    """A row whose sound spells its text: one tone a letter."""
    time = np.arange(3200) / 16000
    wave = np.concatenate([0.3 * np.sin(2 * np.pi * (200 + 60 * (ord(c) - 96)) * time) for c in text])
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, 16000, format="FLAC")
    turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": text[::-1]}]
    return {"audio": {"bytes": buffer.getvalue(), "path": None}, "text": text, "messages": turns}


ADAPTERS = {"blank": {}, "gate": {"gate": True, "num_blocks": 1}, "mixture": {"gate": True, "token_mixture": True},
            "spelling": {"gate": True, "token_mixture": True, "spelling_size": 32, "letters": True}}  # fmt: skip


@pytest.fixture(params=ADAPTERS)
def model(request):
    """The paper's adapter, one with a gate, and one that also mixes tokens."""
    built = tiny.model(
        encoder={"hidden_dropout": 0.0, "activation_dropout": 0.0, "left_chunks": 4}, adapter=ADAPTERS[request.param]
    )
    if built.config.adapter_config.token_mixture:
        built.adapter.set_tokens(torch.arange(256), [chr(index) for index in range(256)])
    return built


@pytest.fixture
def processor(model):
    return FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())


def aligner(model, processor, **settings) -> FreezeOmniForAlignment:
    tokens = transcript_tokens(processor.tokenizer, TEXTS)
    texts = processor.tokenizer.batch_decode([[token] for token in tokens])
    return FreezeOmniForAlignment(model, tokens, texts, **settings)


def test_alignment_loss_of_a_batch_is_the_mean_of_its_rows(model, processor):
    both = aligner(model, processor, character_weight=0.5).eval()
    collate = TranscriptCollator(processor)
    losses = [both(**collate([row(text)])) for text in TEXTS[:2]]
    together = both(**collate([row(text) for text in TEXTS[:2]]))
    for part in ("token_loss", "character_loss"):
        torch.testing.assert_close(together[part], sum(loss[part] for loss in losses) / 2, atol=1e-4, rtol=1e-4)
    # The small term on the vectors' norms is a mean over vectors, the rest a mean over rows.
    torch.testing.assert_close(together.loss, sum(loss.loss for loss in losses) / 2, atol=0.02, rtol=0.01)


def test_scores_are_probabilities_of_blank_and_tokens(model, processor):
    align = aligner(model, processor)
    vectors, gate = torch.randn(2, 5, 32), torch.randn(2, 5) if model.adapter.gate else None
    cosine = torch.nn.functional.normalize(vectors, dim=-1) @ align.rows.T
    log_probs = align._log_probs(cosine, vectors, gate)
    assert log_probs.shape[-1] == len(set("".join(TEXTS))) + 1
    torch.testing.assert_close(log_probs.exp().sum(dim=-1), torch.ones(2, 5))
    if gate is not None:
        torch.testing.assert_close(log_probs[..., 0].exp(), torch.sigmoid(-gate))


def test_negatives_leave_the_targets_own_scores(model, processor):
    """All tokens as negatives is the whole table; fewer only make the loss smaller."""
    align = aligner(model, processor).train()
    batch = TranscriptCollator(processor)([row("the cat")])
    whole = align(**batch).token_loss
    align.negatives = 500
    torch.testing.assert_close(align(**batch).token_loss, whole)
    align.negatives = 1
    assert align(**batch).token_loss < whole


def test_an_adapter_that_mixes_gets_the_tokens_of_the_transcripts(model, processor):
    align = aligner(model, processor)
    names = dict(align.named_parameters())
    if model.config.adapter_config.token_mixture:
        assert torch.equal(model.adapter.token_ids, align.token_ids)
        assert model.config.adapter_config.num_tokens == len(align.token_ids) < 20
        assert align.log_scale is model.adapter.log_scale and "own_scale" not in names
    else:
        assert align.log_scale is names["own_scale"]


def test_best_path_becomes_token_ids(model, processor):
    a, b = (processor.tokenizer(letter)["input_ids"][0] for letter in "ab")
    assert collapse(torch.tensor([-1, a, a, -1, a, b, b, -1])) == [a, a, b]
    align = aligner(model, processor).eval()
    best = align(**TranscriptCollator(processor)([row("cab")])).best_path
    assert set(best.flatten().tolist()) <= {-1, *align.token_ids.tolist()}
    with pytest.raises(ValueError, match="token_ids lack"):
        align(**TranscriptCollator(processor)([row("xyz")]))


def test_characters_are_letters_apostrophes_and_single_spaces():
    assert character_ids("Ab’s -- c.") == [3, 4, 2, 21, 1, 5]


@torch.no_grad()
def test_collated_features_are_the_extractors(model, processor):
    processor.feature_extractor.trailing_silence = 0.2
    collate = TranscriptCollator(processor)
    waves = collate.read([row("abc"), row("hello")])[1]
    extractor = processor.feature_extractor
    expected = extractor(waves, sampling_rate=16000, return_tensors="pt")
    found = collate.features(waves)
    torch.testing.assert_close(found["input_features"], expected["input_features"], atol=1e-5, rtol=0)
    assert torch.equal(found["feature_attention_mask"], expected["feature_attention_mask"])


def test_alignment_learns_and_changes_only_its_parts(model, processor, tmp_path):
    train_only(model, ["speech_encoder", "adapter"])
    align = aligner(model, processor, character_weight=0.3, snap_weight=0.1)
    decoder = state_hash(model.speech_decoder)
    arguments = TrainingArguments(
        tmp_path,
        max_steps=60,
        per_device_train_batch_size=4,
        learning_rate=2e-2,
        logging_steps=10,
        report_to="none",
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
        save_steps=60,
    )
    rows = [row(text) for text in TEXTS]
    trainer = Trainer(
        model=align,
        args=arguments,
        train_dataset=rows * 4,
        data_collator=TranscriptCollator(processor),
        callbacks=[FrozenParts({"the LLM": model.language_model, "the decoder": model.speech_decoder})],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    assert state_hash(model.speech_decoder) == decoder
    from safetensors import safe_open

    with safe_open(tmp_path / "checkpoint-60/model.safetensors", "pt") as file:
        assert not any("language_model" in name for name in file.keys())  # noqa: SIM118


def test_a_changed_llm_fails_the_run(model, processor):
    watch = FrozenParts({"the LLM": model.language_model})
    watch.on_train_end(None, None, None)
    with torch.no_grad():
        model.language_model.model.norm.weight[0] += 1e-6
    with pytest.raises(RuntimeError, match="the LLM"):
        watch.on_train_end(None, None, None)


def test_train_only_names_what_is_trained(model):
    names = train_only(model, ["prompt_embeddings", "state_head"])
    assert {name.split(".")[0] for name in names} == {"prompt_embeddings", "state_head"}
    with pytest.raises(ValueError, match="no ears"):
        train_only(model, ["ears"])


@pytest.mark.parametrize("task", ["transcribe", None])
def test_conversations_supervise_the_target_alone(model, processor, task):
    collate = ConversationCollator(processor, target="text" if task else "answer", task=task, teacher=task is None)
    batch = collate([row("abc"), row("the cat")])
    assert ("task_ids" in batch) == (task is not None)
    wanted = ["abc", "the cat"] if task else ["cba", "tac eht"]
    for labels, text in zip(batch["labels"], wanted, strict=True):
        ids = labels[labels >= 0].tolist()
        assert ids == [*processor.tokenizer(text)["input_ids"], processor.tokenizer.eos_token_id]
    output = model.train()(**batch)
    assert output.loss.isfinite()
    output.loss.backward()
    assert (output.distillation_loss is not None) == (task is None)
    part = model.task_embeddings if task else model.prompt_embeddings
    assert part.weight.grad.abs().sum() > 0


def test_a_rows_own_system_turn_and_a_cut_answer(model, processor):
    spoken = row("abc")
    spoken["messages"].insert(0, {"role": "system", "content": [{"type": "text", "text": "Be short."}]})
    spoken["finished"] = False
    collate = ConversationCollator(processor, target="answer", teacher=True)
    batch = collate([spoken])
    for name in ("input_ids", "teacher_input_ids"):
        assert "Be short." in processor.decode(batch[name][0])
    assert batch["labels"][batch["labels"] >= 0].tolist() == processor.tokenizer("cba")["input_ids"]


def test_draws_of_a_row_follow_seed_epoch_and_id_alone(model, processor):
    def noise(samples, rng, voices):
        return (samples + 0.1 * rng.standard_normal(len(samples))).astype(np.float32)

    def first(epoch=0, seed=0, row_id="a", neighbours=()):
        collate = TranscriptCollator(
            processor, augment=noise, seed=seed, epoch=epoch, spec_augment={"frequency_width": 40, "time_width": 0}
        )
        torch.randint(9, (1,))  # what else draws numbers does not matter
        return collate([{**row("abc"), "id": row_id}, *neighbours])["input_features"][0]

    reference = first()
    assert reference.dtype == torch.float32
    assert torch.equal(reference, first(neighbours=[row("cab")]))
    for other in (first(epoch=1), first(seed=1), first(row_id="b")):
        assert not torch.equal(reference, other)


def test_a_broken_row_is_left_out_and_reported(model, processor):
    collate = TranscriptCollator(processor)
    broken = {**row("cab"), "audio": {"bytes": b"no sound", "path": None}, "id": "row-7"}
    batch = collate([row("abc"), broken])
    assert len(batch["input_features"]) == len(batch["labels"]) == 1
    assert "row-7" in str(collate.report)
    with pytest.raises(DataError, match="row-7"):
        collate([broken])

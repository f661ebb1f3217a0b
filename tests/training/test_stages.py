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
from freeze_omni_hf.training.alignment import FreezeOmniForAlignment, transcript_tokens
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
    return {"audio": {"bytes": buffer.getvalue(), "path": None}, "text": text, "answer": text[::-1]}


@pytest.fixture
def model():
    return tiny.model(encoder={"hidden_dropout": 0.0, "activation_dropout": 0.0, "left_chunks": 4})


@pytest.fixture
def processor(model):
    return FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())


def aligner(model, processor) -> FreezeOmniForAlignment:
    return FreezeOmniForAlignment(model, transcript_tokens(processor.tokenizer, TEXTS))


def test_alignment_loss_of_a_batch_is_the_mean_of_its_rows(model, processor):
    both = aligner(model, processor).eval()
    collate = TranscriptCollator(processor)
    losses = [both(**collate([row(text)])).loss for text in TEXTS[:2]]
    together = both(**collate([row(text) for text in TEXTS[:2]]))
    assert together.logits.shape[-1] == len(set("".join(TEXTS))) + 1
    # The small term on the vectors' norms is a mean over vectors, the rest a mean over rows.
    torch.testing.assert_close(together.loss, sum(losses) / 2, atol=0.02, rtol=0.01)


def test_best_path_becomes_token_ids(model, processor):
    align = aligner(model, processor)
    a, b = (processor.tokenizer(letter)["input_ids"][0] for letter in "ab")
    classes = align.classes
    path = torch.tensor([0, classes[a], classes[a], 0, classes[a], classes[b], classes[b], 0])
    assert align.collapse(path) == [a, a, b]
    with pytest.raises(ValueError, match="token_ids lack"):
        align(**TranscriptCollator(processor)([row("xyz")]))


def test_alignment_learns_and_changes_only_its_parts(model, processor, tmp_path):
    train_only(model, ["speech_encoder", "adapter"])
    align = aligner(model, processor)
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


def test_augmentation_follows_torchs_seed(model, processor):
    def noise(samples, rng, voices):
        assert voices == []
        return (samples + 0.1 * rng.standard_normal(len(samples))).astype(np.float32)

    collate = TranscriptCollator(processor, augment=noise)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(collate([row("abc")])["input_features"])
    assert draws[0].dtype == torch.float32
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_a_broken_row_is_left_out_and_reported(model, processor):
    collate = TranscriptCollator(processor)
    broken = {**row("cab"), "audio": {"bytes": b"no sound", "path": None}, "id": "row-7"}
    batch = collate([row("abc"), broken])
    assert len(batch["input_features"]) == len(batch["labels"]) == 1
    assert "row-7" in str(collate.report)
    with pytest.raises(DataError, match="row-7"):
        collate([broken])

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Preference tuning: the decoder as TRL knows a causal LM, pairs ranked by a recogniser, and the stage as a script."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from smoke import TRAINER, run
from torch.nn.utils.rnn import pad_sequence

from freeze_omni_hf import FreezeOmniForConditionalGeneration, FreezeOmniProcessor, state_hash
from freeze_omni_hf.generation.speech import SpokenSegment
from freeze_omni_hf.training.preference import (
    FreezeOmniSpeechDecoderForCausalLM,
    PreferenceCollator,
    rank_readings,
    sample_readings,
)


@pytest.fixture(params=[False, True], ids=["tokens", "letters"])
def model(request):
    letters = {"letters": True, "num_tokens": 259, "project_inputs": True} if request.param else {}
    made = tiny.model(decoder=letters, prompt_length=0)
    if request.param:
        tokens = tiny.tokenizer().batch_decode([[token] for token in range(259)])
        made.speech_decoder.reader.set_tokens(tokens)
    return made.eval()


def segments(model) -> list[SpokenSegment]:
    torch.manual_seed(3)
    width = model.config.get_text_config().hidden_size
    return [
        SpokenSegment(0, text, torch.tensor(list(text.encode())), torch.randn(len(text), width))
        for text in ("red sun", "skies")
    ]


def pair(model, first: int = 0, second: int = 1) -> dict:
    """The first reading of the first piece is understood, the second is not."""
    (readings, _) = sample_readings(model, segments(model), 6, speech_top_k=8, speech_max_tokens=400)
    order = [readings[first], readings[second]]
    return rank_readings(order, lambda reading: "red sun" if reading is order[0] else "none")


def test_readings_differ_and_are_whole(model):
    torch.manual_seed(0)
    found = sample_readings(model, segments(model), 3, speech_top_k=8, speech_max_tokens=400)
    assert [readings[0].text for readings in found] == ["red sun", "skies"]
    said = {tuple(reading.speech_tokens.tolist()) for reading in found[0]}
    assert len(said) == 3 and all(reading.finish_reason == "end" for reading in found[0])
    for reading in found[0]:
        if model.speech_decoder.reader is not None:
            assert len(reading.places) == len(reading.speech_tokens) + 1 and int(reading.places[-1]) >= 6


def test_best_and_worst_are_kept(model):
    (readings, _) = sample_readings(model, segments(model), 4, speech_top_k=8, speech_max_tokens=400)
    heard = dict(zip(map(id, readings), ["red", "red sun", "nothing at all", "red sun"], strict=False))
    row = rank_readings(readings, lambda reading: heard[id(reading)])
    assert row["chosen_tokens"] == readings[1].speech_tokens.tolist() and row["chosen_wer"] == 0
    assert row["rejected_tokens"] == readings[2].speech_tokens.tolist() and row["rejected_wer"] > 1
    assert rank_readings(readings, lambda reading: "red sun") is None
    assert rank_readings(readings[:2], lambda reading: heard[id(reading)], margin=0.6) is None
    assert rank_readings(readings[:1], lambda reading: "") is None


@torch.no_grad()
def test_it_is_the_decoder_s_own_likelihood(model):
    """What trainers of causal LMs sum up is the log-probability with which the decoder says the tokens and the end."""
    decoder, table = model.speech_decoder, model.get_input_embeddings()
    rows = [pair(model), pair(model, 2, 3)]
    batch = PreferenceCollator(decoder.config, table)(rows)
    completion = batch.pop("completion_mask")
    logits = FreezeOmniSpeechDecoderForCausalLM(decoder)(**batch)
    log_probs = logits[:, :-1].log_softmax(dim=-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    sums = (log_probs * completion[:, 1:]).sum(dim=1)
    for index, (name, row) in enumerate((name, row) for name in ("chosen", "rejected") for row in rows):
        ids = torch.tensor([row["text_ids"]])
        labels = torch.tensor([row[f"{name}_tokens"]])
        hidden = batch["prefix_embeds"][index : index + 1, : int(batch["prefix_mask"][index].sum())]
        extra = {}
        if decoder.reader is not None:
            extra = {"text_ids": ids, "places": torch.tensor([row[f"{name}_places"]])}
        output = decoder(table(ids), None, hidden, None, labels=labels, return_dict=True, **extra)
        loss = output.loss if output.move_loss is None else output.loss - output.move_loss
        expected = -loss * (labels.shape[1] + 1)
        torch.testing.assert_close(sums[index], expected, rtol=1e-3, atol=1e-2)


def test_stage_prefers_what_was_understood(model, tmp_path, monkeypatch):
    llm = tiny.language_model()
    llm.save_pretrained(tmp_path / "llm")
    tiny.tokenizer().save_pretrained(tmp_path / "llm")
    model.config.llm_name_or_path = str(tmp_path / "llm")
    model.attach_language_model(llm)
    processor = FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    rows = [pair(model), pair(model, 2, 3)]
    settings = {
        **TRAINER,
        "model": str(tmp_path / "model"),
        "pairs": str(tmp_path / "pairs"),
        "output_dir": str(tmp_path / "out"),
        "learning_rate": 1e-3,
        "max_steps": 12,
        "per_device_train_batch_size": 2,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
    }
    with pytest.raises(ValueError, match="rank_readings"):
        run("output4_prefer.py", tmp_path, monkeypatch, **settings)
    (tmp_path / "pairs").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs" / "pairs-00000.parquet")
    run("output4_prefer.py", tmp_path, monkeypatch, **settings)
    tuned = FreezeOmniForConditionalGeneration.from_pretrained(tmp_path / "out", language_model=llm)

    @torch.no_grad()
    def margins(which) -> torch.Tensor:
        batch = PreferenceCollator(which.speech_decoder.config, which.get_input_embeddings())(rows)
        completion = batch.pop("completion_mask")
        logits = FreezeOmniSpeechDecoderForCausalLM(which.speech_decoder.eval())(**batch)
        log_probs = logits[:, :-1].log_softmax(dim=-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
        chosen, rejected = (log_probs * completion[:, 1:]).sum(dim=1).chunk(2)
        return chosen - rejected

    assert (margins(tuned) > margins(model)).all()
    assert state_hash(tuned.codec) == state_hash(model.codec)
    assert "Output stage 4" in (tmp_path / "out" / "README.md").read_text()


def test_hidden_states_come_back_as_they_went_in(model):
    row = pair(model)
    batch = PreferenceCollator(model.speech_decoder.config, model.get_input_embeddings())([row])
    wanted = segments(model)[0].hidden.half().float()
    torch.testing.assert_close(batch["prefix_embeds"], pad_sequence([wanted, wanted], batch_first=True))

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Output stage 1: distances and critics, a codebook that stays in use, and the stage as a script."""

import json

import numpy as np
import pytest
import tones
import torch
from smoke import EVERY_20, TRAINER, run

from freeze_omni_hf.configuration import FreezeOmniCodecConfig
from freeze_omni_hf.models import FreezeOmniCodec
from freeze_omni_hf.training.codec import (
    CodecLosses,
    FreezeOmniForCodec,
    codebook_figures,
    load_phonetic_head,
    mean_ctc_loss,
)
from freeze_omni_hf.training.collators import CodecCollator
from freeze_omni_hf.training.spectral import MelDistance, SpectrumCritics, critic_loss, generator_losses


SIZES = {
    "encoder_type": "stft",
    "generator_type": "istft",
    "num_global_tokens": 0,
    "codebook_size": 16,
    "latent_size": 16,
    "stft_hidden_size": 16,
    "stft_frame_layers": 1,
    "stft_token_layers": 1,
    "istft_hidden_size": 32,
    "istft_token_layers": 1,
    "istft_frame_layers": 1,
}


def waves(rows: int = 2, seconds: float = 0.5) -> torch.Tensor:
    return 0.1 * torch.randn(rows, int(24000 * seconds), generator=torch.Generator().manual_seed(1))


def codec() -> FreezeOmniCodec:
    torch.manual_seed(0)
    return FreezeOmniCodec(FreezeOmniCodecConfig(**SIZES))


def test_mel_distance():
    distance, wave = MelDistance(24000), waves()
    assert float(distance(wave, wave)) == 0.0
    # Twice as loud is log 2 away where it is not silent.
    assert float(distance(2 * wave, wave)) == pytest.approx(np.log(2), rel=0.02)
    # What stands behind the end of a row does not matter, but for windows that reach over it.
    lengths = torch.tensor([12000, 6000])
    changed = wave.clone()
    changed[1, 8000:] = 0.5
    assert float(distance(changed, wave, lengths)) == 0.0
    assert float(distance(changed, wave)) > 0.1


def test_one_backward_pass_trains_both_sides_apart():
    """Generator losses leave the critics alone, and the critics' loss leaves the generator alone."""
    critics, wanted = SpectrumCritics(4), waves()
    made = waves(seconds=0.5).mul(0.3).requires_grad_()
    real, opinions = critics(wanted), critics.opinions(made)
    adversarial, matching = generator_losses(real, opinions)
    (adversarial + matching).backward(retain_graph=True)
    assert made.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in critics.parameters())
    before = made.grad.clone()
    critic_loss(real, critics(made.detach())).backward()
    assert torch.equal(made.grad, before)
    # The last biases are drawn up by one side as much as down by the other.
    assert all(weight.grad.abs().sum() > 0 for name, weight in critics.named_parameters() if not name.endswith("bias"))
    # The opinion is the critics' own.
    for (score, _), (opinion, _) in zip(critics(made), critics.opinions(made), strict=True):
        assert torch.equal(score, opinion)


def test_critics_learn_to_tell_and_are_told_by_hinge():
    score = torch.tensor([[2.0, -3.0]])
    assert float(critic_loss([(score, [])], [(score, [])])) == pytest.approx((0 + 4) / 2 + (3 + 0) / 2)
    seen = [torch.tensor([1.0, 3.0])]
    adversarial, matching = generator_losses([(score, seen)], [(score, [torch.tensor([2.0, 3.0])])])
    assert float(adversarial) == pytest.approx(2.0) and float(matching) == pytest.approx(0.25)


def test_the_codebook_is_filled_and_dead_codes_are_revived():
    losses = CodecLosses(phonetic=0.0, critic_start=3, quantize_from=1, revive_every=3, codebook_decay=1.0)
    stage = FreezeOmniForCodec(codec(), losses).train()
    assert stage.phonetic_head is None
    book = stage.codec.quantizer.codebooks[0].weight
    start = book.clone()
    # Before anything is quantised the sound is that of the latents.
    plain = stage(waves())
    made = stage.codec(waves(), quantize=False)
    torch.testing.assert_close(plain.mel_loss, stage.mel_distance(made.audio_values, waves()))
    assert torch.equal(book, start) and int(stage.steps) == 1 and not torch.equal(made.quantized, start)
    stage(waves())
    filled = book.clone()
    assert not torch.equal(filled, start)
    stage.uses[:] = 1.0
    stage.uses[[3, 7]] = 0.0
    stage(waves())
    torch.testing.assert_close(book, filled)
    stage(waves())
    stage.uses[:] = 1.0
    stage.uses[[3, 7]] = 0.0
    stage(waves())
    changed = (~torch.isclose(book, filled, atol=1e-6)).any(dim=1).nonzero().flatten().tolist()
    assert changed == [3, 7] and stage.uses[3] > 0
    assert set(stage.figures()) == {"mel", "quantizer", "adversarial", "matching", "critic", "codes_used"}
    assert codebook_figures(torch.tensor([0, 0, 1, 1, -1]), 4) == {
        "codes_used": 0.5, "perplexity": pytest.approx(2.0)
    }  # fmt: skip


def test_codes_follow_their_latents():
    """A code is the running mean of the latents that chose it, and gradients leave it alone."""
    stage = FreezeOmniForCodec(codec(), CodecLosses(adversarial=0.0, matching=0.0, phonetic=0.0, codebook_decay=0.9))
    (book,) = stage.codec.quantizer.codebooks
    assert not book.weight.requires_grad
    latents = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(0))
    stage.code_counts[:], stage.code_sums[:] = 1.0, book.weight
    before = book.weight.clone()
    stage._follow(latents, torch.tensor([[4, 4, -1]]))
    mean = (0.9 * before[4] + 0.1 * (latents[0, 0] + latents[0, 1])) / (0.9 + 0.2)
    torch.testing.assert_close(book.weight[4], mean)
    others = torch.arange(16) != 4
    assert torch.equal(book.weight[others], before[others])


def test_sound_of_pieces():
    """A piece of each row becomes sound, compared with the same piece of what went in."""
    stage = FreezeOmniForCodec(
        codec(), CodecLosses(adversarial=0.0, matching=0.0, phonetic=0.0, quantize_from=0, piece_tokens=8)
    )
    mask = torch.ones(2, 12000, dtype=torch.long)
    mask[1, 3000:] = 0
    starts = torch.tensor([5, 0])
    whole, piece = stage.codec(waves(), mask), stage.codec(waves(), mask, starts, 8)
    assert piece.audio_values.shape == (2, 8 * 600) and piece.audio_lengths.tolist() == [4800, 3000]
    assert torch.equal(piece.audio_codes, whole.audio_codes)
    alone = stage.codec.synthesize(whole.quantized[:1, 5:13])
    torch.testing.assert_close(piece.audio_values[:1], alone)
    found, size = stage._piece_starts(waves(), mask)
    assert size == 8 and int(found[1]) == 0 and 0 <= int(found[0]) <= 12
    assert stage.train()(waves(), mask).mel_loss > 0
    # Longer than everything: the whole.
    stage.losses.piece_tokens = 100
    assert stage._piece_starts(waves(), mask)[1] == 20


def test_rows_without_letters_ask_for_nothing():
    scores = torch.randn(6, 2, 29, generator=torch.Generator().manual_seed(0)).log_softmax(dim=-1)
    labels = torch.tensor([[3, 4], [-100, -100]])
    both = mean_ctc_loss(scores, labels, torch.tensor([6, 6]))
    alone = mean_ctc_loss(scores[:, :1], labels[:1], torch.tensor([6]))
    torch.testing.assert_close(both, alone)
    torch.testing.assert_close(
        alone, torch.nn.functional.ctc_loss(scores[:, :1], labels[:1], torch.tensor([6]), torch.tensor([2]))
    )
    assert float(mean_ctc_loss(scores[:, 1:], labels[1:], torch.tensor([6]))) == 0.0


def test_rows_do_not_depend_on_padding():
    stage = FreezeOmniForCodec(codec(), CodecLosses(adversarial=0.0, matching=0.0)).eval()
    wave = waves(1)
    labels = torch.tensor([[3, 4, 5]])
    alone = stage(wave, torch.ones(1, 12000, dtype=torch.long), labels)
    padded = torch.nn.functional.pad(wave, (0, 6000))
    mask = torch.nn.functional.pad(torch.ones(1, 12000, dtype=torch.long), (0, 6000))
    longer = stage(padded, mask, labels)
    assert longer.audio_codes[0, :20].tolist() == alone.audio_codes[0].tolist()
    assert longer.audio_codes[0, 20:].unique().tolist() == [-1]
    for name in ("quantizer_loss", "phonetic_loss"):
        torch.testing.assert_close(longer[name], alone[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(longer.mel_loss, alone.mel_loss, rtol=0.02, atol=0)
    with pytest.raises(ValueError, match="one codebook"):
        FreezeOmniForCodec(FreezeOmniCodec(FreezeOmniCodecConfig(**SIZES, num_residual_layers=2)))


def test_collator_gives_whole_tokens_and_letters():
    config = FreezeOmniCodecConfig(**SIZES)
    rows = [tones.row(0), tones.row(2)]  # one (3 letters of 160 ms at 16 kHz), three
    batch = CodecCollator(config)(rows)
    assert batch["padding_mask"].sum(dim=1).tolist() == [11400, 19200]
    assert batch["labels"].tolist() == [[17, 16, 7, -100, -100], [22, 10, 20, 7, 7]]
    assert not batch["input_values"][0, 11520:].any()
    cropped = CodecCollator(config, crop_seconds=0.5)(rows)
    assert cropped["padding_mask"].sum(dim=1).tolist() == [11400, 12000]
    assert cropped["labels"].tolist() == [[17, 16, 7], [-100, -100, -100]]


def test_stage_learns(tmp_path, monkeypatch):
    tones.write_data(tmp_path / "data")
    settings = {
        **TRAINER,
        **EVERY_20,
        "codec_config": SIZES,
        "losses": {"critic_start": 20, "critic_channels": 4, "critic_samples": 4800, "quantize_from": 5},
        "train": [{"path": str(tmp_path / "data"), "task": "tts"}],
        "test": {"dev": {"path": str(tmp_path / "data"), "task": "tts", "limit": 5}},
        "output_dir": str(tmp_path / "out"),
        "learning_rate": 3e-3,
        "label_names": ["labels"],
    }
    run("output1_codec.py", tmp_path, monkeypatch, **settings)
    history = json.loads((tmp_path / "out" / "checkpoint-40" / "trainer_state.json").read_text())["log_history"]
    mel = [entry["mel"] for entry in history if "mel" in entry]
    assert mel[-1] < 0.75 * mel[0], mel
    assert "critic" in history[-2] or any("critic" in entry for entry in history)
    assert any(0 < entry.get("eval_dev_codes_used", 0) <= 1 for entry in history)
    loaded = FreezeOmniCodec.from_pretrained(tmp_path / "out")
    codes = loaded.encode(waves(1)).audio_codes
    assert loaded.decode(codes).audio_values.shape == (1, 12000)
    # What read letters off the codec stays beside it: it places letters in time.
    head = load_phonetic_head(tmp_path / "out")
    assert head(loaded.quantizer.embed(codes[..., None])).shape == (1, 20, 29)
    assert load_phonetic_head(tmp_path) is None

    # Then the sound alone: other weights of the generator, the same tokens.
    more = {"generator_only": True, "codec": str(tmp_path / "out"), "max_steps": 10, "save_steps": 10}
    more |= {"output_dir": str(tmp_path / "sound"), "losses": {**settings["losses"], "critic_start": 0}}
    run("output1_codec.py", tmp_path, monkeypatch, **{**settings, **more})
    again = FreezeOmniCodec.from_pretrained(tmp_path / "sound")
    assert torch.equal(again.encode(waves(1)).audio_codes, codes)
    assert not torch.equal(again.decode(codes).audio_values, loaded.decode(codes).audio_values)
    assert (tmp_path / "sound" / "phonetic_head.safetensors").is_file()
    with pytest.raises(ValueError, match="--codec"):
        run("output1_codec.py", tmp_path, monkeypatch, **{**settings, **more, "codec": None})
    assert "A codec" in (tmp_path / "out" / "README.md").read_text()

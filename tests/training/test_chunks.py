# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""An encoder learns to work under chunk masks by following itself."""

import tiny
import torch

from freeze_omni_hf import state_hash
from freeze_omni_hf.training.chunks import FreezeOmniForChunks
from freeze_omni_hf.training.stages import train_only


def test_follows_itself_and_changes_the_encoder_alone():
    model = tiny.model(encoder={"hidden_dropout": 0.0, "activation_dropout": 0.0, "left_chunks": 1})
    train_only(model, ["speech_encoder"])
    follower = FreezeOmniForChunks(model, fixed_share=1.0).train()
    assert set(follower.state_dict()) == {f"speech_encoder.{name}" for name in model.speech_encoder.state_dict()}
    teacher, adapter = state_hash(follower.teachers[0]), state_hash(model.adapter)
    torch.manual_seed(0)
    features = torch.randn(4, 16 * 6, 80)
    whole = model.speech_encoder(features, chunk_size=-1).last_hidden_state.detach()
    optimizer = torch.optim.Adam([p for p in follower.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(150):
        output = follower(features)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert state_hash(follower.teachers[0]) == teacher and state_hash(model.adapter) == adapter
    # The teacher still sees the whole utterance; one chunk of everything is no loss for it.
    torch.testing.assert_close(follower.teachers[0](features, chunk_size=-1).last_hidden_state, whole)


def test_padded_rows_do_not_count():
    model = tiny.model()
    follower = FreezeOmniForChunks(model).eval()
    features = torch.randn(2, 96, 80)
    mask = torch.ones(2, 96)
    mask[1, 32:] = 0
    first = follower(features, mask)
    features[1, 32:] = 9.0
    torch.testing.assert_close(follower(features, mask).loss, first.loss)

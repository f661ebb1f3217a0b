# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The model in the hands of transformers, accelerate, peft and the Hub."""

from pathlib import Path
from types import SimpleNamespace

import tiny
import torch
from huggingface_hub import HfApi
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from test_freeze_omni import batch
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioTokenization,
    AutoProcessor,
    Trainer,
    TrainingArguments,
    pipeline,
)
from transformers.utils.hub import PushToHubMixin

from freeze_omni_hf import (
    FreezeOmniCodec,
    FreezeOmniFeatureExtractor,
    FreezeOmniForConditionalGeneration,
    FreezeOmniProcessor,
    state_hash,
)


class Rows(torch.utils.data.Dataset):
    """The same two rows over and over."""

    def __init__(self, model):
        inputs = batch(model)
        self.rows = [{name: value[index] for name, value in inputs.items()} for index in range(2)]

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.rows[index % 2]


def trainer(model, folder, steps: int) -> Trainer:
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=steps,
        save_steps=2,
        learning_rate=1e-2,
        report_to="none",
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
    )
    return Trainer(model=model, args=arguments, train_dataset=Rows(model))


def test_trainer_saves_only_speech_parts_and_resumes_bit_equal(tmp_path):
    llm = tiny.language_model()
    before = state_hash(llm)
    straight = tiny.model(llm)
    run = trainer(straight, tmp_path / "a", 4)
    run.train()
    losses = [entry["train_loss"] for entry in run.state.log_history if "train_loss" in entry]
    # The loss is a mean over positions: gradient accumulation must not add it up.
    assert 0 < losses[-1] < 10
    assert state_hash(llm) == before
    with safe_open(tmp_path / "a/checkpoint-2/model.safetensors", "pt") as file:
        assert not any(name.startswith("language_model.") for name in file.keys())  # noqa: SIM118
    resumed = tiny.model(llm, seed=9)
    trainer(resumed, tmp_path / "a", 4).train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-2"))
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert state_hash(llm) == before


def test_lora_on_the_speech_decoder_leaves_the_rest_alone():
    model = tiny.model()
    before = state_hash(model)
    peft = get_peft_model(model, LoraConfig(r=2, target_modules=r"speech_decoder\.layers\..*\.(q_proj|v_proj)"))
    trained = [name for name, parameter in peft.named_parameters() if parameter.requires_grad]
    assert trained and all("speech_decoder.layers" in name and "lora" in name for name in trained)
    rows = model.get_input_embeddings()(torch.randint(0, 250, (2, 4)))
    model.speech_decoder(rows, None, rows, labels=torch.randint(0, 32, (2, 6))).loss.backward()
    torch.optim.SGD([p for p in peft.parameters() if p.requires_grad], lr=0.1).step()
    assert state_hash(peft.unload()) == before


def test_auto_classes_of_parts_and_processor(tmp_path):
    model = tiny.model()
    processor = FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is FreezeOmniProcessor
    assert type(AutoFeatureExtractor.from_pretrained(tmp_path)) is FreezeOmniFeatureExtractor
    model.codec.save_pretrained(tmp_path / "codec")
    for auto in (AutoModel, AutoModelForAudioTokenization):
        codec = auto.from_pretrained(tmp_path / "codec")
        assert type(codec) is FreezeOmniCodec
        for name, tensor in model.codec.state_dict().items():
            assert torch.equal(tensor, codec.state_dict()[name]), name


def test_self_contained_export_answers_without_the_llm_folder(tmp_path):
    model = tiny.model()
    model.generation_config.eos_token_id = 258
    processor = FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())
    model.export_full(tmp_path, processor=processor)
    pipe = pipeline("speech-to-speech", model=str(tmp_path))
    settings = {"do_sample": False, "max_new_tokens": 5, "speech_max_tokens": 10}
    sound = torch.randn(8000) * 0.1
    answer = pipe(sound, generate_kwargs=settings)
    expected = type(pipe)(model=model, processor=processor)(sound, generate_kwargs=settings)
    assert answer["text"] == expected["text"]


def test_device_map_places_speech_parts_and_llm(tmp_path):
    llm = tiny.language_model()
    llm.save_pretrained(tmp_path / "llm")
    model = tiny.model(llm, llm_name_or_path=str(tmp_path / "llm"))
    model.save_pretrained(tmp_path / "model")
    for device_map in ("cpu", "auto"):
        placed = FreezeOmniForConditionalGeneration.from_pretrained(tmp_path / "model", device_map=device_map).eval()
        inputs = batch(placed)
        assert torch.equal(placed(**inputs).logits, model(**inputs).logits)


def test_compiled_steps_give_the_same_answer():
    model = tiny.model()
    features = torch.randn(1, 16 * 6, 80)

    def run():
        with torch.no_grad():
            cache, heard = None, []
            for chunk in features.split(16, dim=1):
                audio = model.encode_audio(chunk, cache=cache, use_cache=True)
                cache = audio.cache
                heard.append(audio.embeds)
            vectors = torch.cat(heard, dim=1)
            state = model.speech_decoder.prefill(vectors, None, vectors)
            token, spoken = torch.tensor([33]), []
            for _ in range(5):
                output = model.speech_decoder.step(token, state)
                state, token = output.cache, output.logits[:, 0, :32].argmax(-1)
                spoken.append(output.logits)
            return vectors, torch.cat(spoken)

    expected = run()
    # A graph break would raise: the steps are compiled as one graph each.
    model.compile_steps(backend="aot_eager")
    for found, wanted in zip(run(), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_push_uploads_speech_parts_and_the_stub_on_request(monkeypatch):
    uploads = []

    def record(self, working_dir, *args, **kwargs):
        uploads.append({path.name for path in Path(working_dir).iterdir()})

    monkeypatch.setattr(PushToHubMixin, "_upload_modified_files", record)
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **kwargs: SimpleNamespace(repo_id=repo_id))
    model = tiny.model()
    model.push_to_hub("somebody/model")
    model.push_to_hub("somebody/model", remote_code_stub=True)
    assert "model.safetensors" in uploads[0] and "freeze_omni_stub.py" not in uploads[0]
    assert "freeze_omni_stub.py" in uploads[1]

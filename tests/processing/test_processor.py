# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Texts and conversations with sound become model inputs, for more than one family of tokenizers."""

import numpy as np
import pytest
import soundfile
import torch
import yaml
from golden_data import CHECKPOINTS, LLM, prefixed, tensors
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoFeatureExtractor, AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast

from freeze_omni_hf.configuration import FreezeOmniConfig
from freeze_omni_hf.processing import (
    AudioNotFoundError,
    FreezeOmniFeatureExtractor,
    FreezeOmniProcessor,
    chat_template_from_released,
    load_audio,
)


RATE = 16000
AUDIO = "<|audio|>"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def released_template() -> str:
    return yaml.safe_load((CHECKPOINTS / "audiollm/train.yaml").read_text())["model_conf"]["chat_template"]


def golden_tokenizer():
    return AutoTokenizer.from_pretrained(LLM)


def word_tokenizer(chat_template=CHATML):
    """A tokenizer of another family: words, no padding token, its own end of turn."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", "<|im_start|>", "<|im_end|>"])
    sentences = ["what is the capital of France ?", "the capital is Paris .", "system user assistant you are kind"]
    tokenizer.train_from_iterator(sentences, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<|im_end|>", chat_template=chat_template
    )


@pytest.fixture
def processor():
    return FreezeOmniProcessor(FreezeOmniFeatureExtractor(), word_tokenizer(), prompt_length=5)


@pytest.fixture
def released():
    template = chat_template_from_released(released_template())
    return FreezeOmniProcessor(
        FreezeOmniFeatureExtractor(), golden_tokenizer(), chat_template=template, prompt_length=5
    )


def noise(count: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def heard(processor, *counts):
    return [processor.num_audio_vectors(count) for count in counts]


def places(processor, inputs):
    return (inputs["input_ids"] == processor.audio_token_id).sum(1).tolist()


# Markers and placeholders


def test_audio_token_is_special_and_next_free(processor):
    assert processor.audio_token_id == len(word_tokenizer())
    assert processor.tokenizer.decode([processor.audio_token_id], skip_special_tokens=True) == ""
    size = len(processor.tokenizer)
    again = FreezeOmniProcessor(processor.feature_extractor, processor.tokenizer)
    assert again.audio_token_id == processor.audio_token_id and len(again.tokenizer) == size


@pytest.mark.parametrize(
    "samples, dialogue, transcription",
    [(1, 5 + 2, 1 + 2), (2560, 5 + 2, 1 + 2), (2561, 5 + 4, 1 + 4), (RATE, 5 + 14, 1 + 14)],
)
def test_number_of_vectors(processor, samples, dialogue, transcription):
    assert processor.num_audio_vectors(samples) == dialogue
    assert processor.num_audio_vectors(samples, task="transcribe") == transcription
    assert processor.num_audio_vectors(num_frames=processor.feature_extractor.num_frames(samples)) == dialogue
    inputs = processor(text=f"the {AUDIO} .", audio=noise(samples), sampling_rate=RATE)
    assert places(processor, inputs) == [dialogue]
    inputs = processor(text=f"the {AUDIO} .", audio=noise(samples), sampling_rate=RATE, task="transcribe")
    assert places(processor, inputs) == [transcription]
    assert inputs["task_ids"].tolist() == [1]


def test_odd_numbers_are_rounded_up():
    processor = FreezeOmniProcessor(FreezeOmniFeatureExtractor(chunk_frames=4), word_tokenizer(), prompt_length=0)
    assert [processor.num_audio_vectors(640 * count) for count in (1, 2, 3)] == [1, 1, 2]
    with pytest.raises(ValueError, match="either num_samples or num_frames"):
        processor.num_audio_vectors()


def test_golden_number_of_vectors():
    chunks, frames = prefixed("frontend.")["fbank_chunks"].shape[:2]
    vectors = prefixed("adapter.")["out_chunks"].shape[:2].numel()
    extractor = FreezeOmniFeatureExtractor(chunk_frames=frames - 3)
    processor = FreezeOmniProcessor(extractor, golden_tokenizer(), prompt_length=0)
    assert processor.num_audio_vectors(len(tensors()["input.wav_16k"])) == vectors


def test_tasks(processor):
    audio = [noise(100), noise(3000)]
    text = f"{AUDIO} {AUDIO}"
    inputs = processor(text=text, audio=audio, sampling_rate=RATE, task=["/hyps", 12])
    assert inputs["task_ids"].tolist() == [8, 12] and inputs["task_ids"].dtype == torch.int64
    with pytest.raises(ValueError, match="task='sing' is unknown; choose one of"):
        processor(text=text, audio=audio, sampling_rate=RATE, task="sing")
    with pytest.raises(ValueError, match="1 tasks are given for 2 audio"):
        processor(text=text, audio=audio, sampling_rate=RATE, task=["en"])


def test_batch_is_padded_left_and_in_order(processor):
    texts = [f"the {AUDIO} is {AUDIO} .", "what is the capital ?", f"{AUDIO} ?"]
    audio = [noise(9000), noise(100, 1), noise(20000, 2)]
    inputs = processor(text=texts, audio=audio, sampling_rate=RATE)
    first, second, third = heard(processor, 9000, 100, 20000)
    assert places(processor, inputs) == [first + second, 0, third]
    assert inputs["input_features"].shape[0] == 3
    lengths = inputs["attention_mask"].sum(1).tolist()
    for text, ids, mask, count in zip(texts, inputs["input_ids"], inputs["attention_mask"], lengths, strict=True):
        assert mask.tolist() == [0] * (len(mask) - count) + [1] * count
        assert (ids[mask == 0] == processor.tokenizer.eos_token_id).all()
        kept = ids[mask == 1].tolist()
        squeezed = [item for i, item in enumerate(kept) if item != processor.audio_token_id or kept[i - 1] != item]
        assert squeezed == processor.tokenizer(text)["input_ids"]
    for index, samples in enumerate(audio):
        alone = processor(text=AUDIO, audio=samples, sampling_rate=RATE)["input_features"][0]
        assert torch.equal(inputs["input_features"][index, : len(alone)], alone)
    right = processor(text=texts, audio=audio, sampling_rate=RATE, padding_side="right")
    assert right["attention_mask"][1].tolist() == [1] * lengths[1] + [0] * (max(lengths) - lengths[1])
    nested = processor(text=texts, audio=[audio[:2], [], audio[2:]], sampling_rate=RATE)
    assert torch.equal(nested["input_ids"], inputs["input_ids"])


def test_padding_settings(processor):
    texts = ["what is the capital ?", "the"]
    assert processor(text=texts, pad_to_multiple_of=8)["input_ids"].shape == (2, 8)
    assert processor(text=texts, padding="max_length", max_length=12)["input_ids"].shape == (2, 12)
    rows = processor(text=texts, padding=False, return_tensors=None)["input_ids"]
    assert [len(row) for row in rows] == [5, 1]
    assert isinstance(processor(text=texts, return_tensors="np")["input_ids"], np.ndarray)
    with pytest.raises(ValueError, match="longest row has 5 ids"):
        processor(text=texts, padding="max_length", max_length=3)
    with pytest.raises(ValueError, match="padding_side='up'"):
        processor(text=texts, padding_side="up")
    assert processor(text=texts, truncation=True, max_length=2)["input_ids"].shape == (2, 2)
    with pytest.raises(ValueError, match="truncation would cut audio"):
        processor(text=AUDIO, audio=noise(9), sampling_rate=RATE, truncation=True, max_length=2)


def test_text_alone_and_audio_alone(processor):
    inputs = processor(text="the capital is Paris .")
    assert sorted(inputs) == ["attention_mask", "input_ids"] and inputs["input_ids"].shape == (1, 5)
    inputs = processor(audio=noise(100), sampling_rate=RATE)
    assert sorted(inputs) == ["feature_attention_mask", "input_features"]


def test_audio_kinds(processor, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(8000), 8000, subtype="FLOAT")
    path, wave = tmp_path / "a.wav", load_audio(tmp_path / "a.wav")
    expected = processor(text=AUDIO, audio=wave, sampling_rate=RATE)["input_features"]
    for audio in (path, str(path), [path.read_bytes()], {"path": path}, {"array": wave, "sampling_rate": RATE}, wave):
        assert torch.equal(processor(text=AUDIO, audio=audio)["input_features"], expected)
    resampled = processor(text=AUDIO, audio=noise(8000), sampling_rate=8000)["input_features"]
    assert torch.equal(resampled, expected)
    stereo = np.stack([wave, wave])
    assert torch.equal(processor(text=AUDIO, audio=stereo, sampling_rate=RATE)["input_features"], expected)


def test_refusals(processor):
    cases = [
        ("2 <\\|audio\\|> marker\\(s\\), but 1 audio", {"text": AUDIO * 2, "audio": noise(9)}),
        ("0 <\\|audio\\|> marker\\(s\\), but 1 audio", {"text": "the", "audio": noise(9)}),
        ("1 <\\|audio\\|> marker\\(s\\), but 0 audio", {"text": AUDIO}),
        ("images and videos must be None", {"text": "the", "images": [1]}),
        ("Give text, audio or both", {}),
        ("string or a list of strings", {"text": []}),
        ("string or a list of strings", {"text": [3]}),
    ]
    for message, arguments in cases:
        with pytest.raises(ValueError, match=message):
            processor(**arguments)
    with pytest.raises(AudioNotFoundError, match="nowhere.wav"):
        processor(text=AUDIO, audio="nowhere.wav")


# Conversations


def user(*parts):
    return {"role": "user", "content": list(parts)}


def sound(count, seed=0, **more):
    return {"type": "audio", "audio": noise(count, seed), "sampling_rate": RATE, **more}


def words(text):
    return {"type": "text", "text": text}


def chat(processor, conversation, **settings):
    settings = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, **settings}
    return processor.apply_chat_template(conversation, **settings)


def test_released_template_text_is_exact(released):
    text = released.apply_chat_template([user(sound(100))], add_generation_prompt=True)
    assert text == released_template().replace("<audio>", AUDIO)


def test_released_template_ids(released):
    pieces = {name: tensor[0].tolist() for name, tensor in prefixed("llm.chat.").items()}
    ids = chat(released, [user(sound(5000))])["input_ids"][0].tolist()
    (count,) = heard(released, 5000)
    turn = pieces["prefix_ids"] + [released.audio_token_id] * count + pieces["suffix_ids"]
    assert ids == pieces["role_ids"] + turn
    answer = released.tokenizer("ok!")["input_ids"]
    history = [
        user(sound(5000)),
        {"role": "assistant", "content": released.tokenizer.decode(answer)},
        user(sound(5000, 1)),
    ]
    ids = chat(released, history)["input_ids"][0].tolist()
    # The mark that ends the user's turn, first of the suffix, also ends the answer.
    assert ids == pieces["role_ids"] + turn + answer + pieces["suffix_ids"][:1] + turn


def test_released_template_turns(released):
    history = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Ä'\"{{x}}"},
        {"role": "assistant", "content": "B"},
    ]
    end = "<|im_end|>"
    expected = (
        f"<|im_start|>system\nBe kind.{end}\n<|im_start|>user\nÄ'\"{{{{x}}}}{end}\n<|im_start|>assistant\nB{end}"
    )
    assert released.apply_chat_template(history) == expected
    prefill = released.apply_chat_template(history, continue_final_message=True)
    assert prefill == expected.removesuffix(end)
    with pytest.raises(Exception, match="Roles are 'user' and 'assistant'.*'tool'"):
        released.apply_chat_template([{"role": "tool", "content": "x"}])
    inputs = chat(released, history, add_generation_prompt=False, return_assistant_tokens_mask=True)
    marked = inputs["input_ids"][inputs["assistant_masks"] == 1]
    assert released.tokenizer.decode(marked) == f"B{end}"


@pytest.mark.parametrize("template", ["no marker", "<audio><audio>", "a<e>b<audio>no mark", "a b<audio><e>c"])
def test_released_template_refusals(template):
    with pytest.raises(ValueError, match="<audio>"):
        chat_template_from_released(template)


def test_many_turns_and_sounds(processor, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(3000, 5), RATE, subtype="FLOAT")
    conversation = [
        {"role": "system", "content": [words("you are kind")]},
        user(words("what is "), sound(4000, 1), words(" ?"), {"type": "audio", "path": str(path)}),
        {"role": "assistant", "content": [words("the capital"), sound(999), words(" is Paris .")]},
        user({"type": "audio", "url": path.as_uri()}),
    ]
    text = processor.apply_chat_template(conversation, add_generation_prompt=True)
    assert text == (
        f"<|im_start|>system\nyou are kind<|im_end|>\n<|im_start|>user\nwhat is {AUDIO} ?{AUDIO}<|im_end|>\n"
        f"<|im_start|>assistant\nthe capital is Paris .<|im_end|>\n<|im_start|>user\n{AUDIO}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    inputs = chat(processor, conversation)
    assert inputs["input_features"].shape[0] == 3
    assert places(processor, inputs) == [sum(heard(processor, 4000, 3000, 3000))]
    assert torch.equal(inputs["input_features"][1], inputs["input_features"][2])
    direct = processor(text=text, audio=[noise(4000, 1), path, path], sampling_rate=RATE)
    assert torch.equal(direct["input_ids"], inputs["input_ids"])
    assert isinstance(conversation[1]["content"], list)


def test_batch_of_conversations(processor):
    batch = [
        [user(sound(9000))],
        [{"role": "user", "content": "what is the capital ?"}],
        [user(sound(100, 1)), {"role": "assistant", "content": "Paris"}, user(sound(200, 2))],
    ]
    inputs = chat(processor, batch)
    assert places(processor, inputs) == [*heard(processor, 9000), 0, sum(heard(processor, 100, 200))]
    for index, conversation in enumerate(batch):
        alone = chat(processor, conversation)["input_ids"][0]
        assert torch.equal(inputs["input_ids"][index][inputs["attention_mask"][index] == 1], alone)
    assert isinstance(processor.apply_chat_template(batch), list)
    ids = chat(processor, batch, return_dict=False)
    assert torch.equal(ids, inputs["input_ids"])


def test_called_as_pipelines_do(processor):
    inputs = processor.apply_chat_template(
        [user(sound(4000))],
        continue_final_message=False,
        return_tensors="pt",
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        processor_kwargs={"task": "transcribe", "padding_side": "right"},
    ).to(dtype=torch.bfloat16)
    assert inputs["input_features"].dtype == torch.bfloat16 and inputs["input_ids"].dtype == torch.int64
    assert inputs["task_ids"].tolist() == [1]
    audio = processor.feature_extractor.fetch_audio([noise(4000)])
    inputs = processor(text=AUDIO, images=None, videos=None, audio=audio, return_tensors="pt", padding=True)
    assert places(processor, inputs) == heard(processor, 4000)


def test_default_system_prompt():
    processor = FreezeOmniProcessor(
        FreezeOmniFeatureExtractor(), word_tokenizer(), default_system_prompt="you are kind"
    )
    conversation = [{"role": "user", "content": "what"}]
    assert processor.apply_chat_template(conversation).startswith("<|im_start|>system\nyou are kind<|im_end|>")
    own = [{"role": "system", "content": "the"}, *conversation]
    assert "kind" not in processor.apply_chat_template(own)


def test_templates_to_choose_from(processor):
    assert processor.apply_chat_template([user(words("what"))], chat_template="{{ messages[0].content }}") == "what"
    processor.chat_template = {"default": CHATML, "plain": "{{ messages[0].content }}"}
    assert processor.apply_chat_template([user(words("what"))], chat_template="plain") == "what"
    assert "im_start" in processor.apply_chat_template([user(words("what"))])
    processor.chat_template.pop("default")
    with pytest.raises(ValueError, match="none is 'default'"):
        processor.apply_chat_template([user(words("what"))])


def test_chat_refusals(processor):
    cases = [
        ("type 'image' is not understood", [user({"type": "image", "path": "a.png"})]),
        ("none of \\['audio'", [user({"type": "audio"})]),
        ("conversation is empty", []),
        ("1 audio\\(s\\) are given", [user(words(AUDIO), sound(10))]),
    ]
    for message, conversation in cases:
        with pytest.raises(ValueError, match=message):
            chat(processor, conversation)
    bare = FreezeOmniProcessor(FreezeOmniFeatureExtractor(), golden_tokenizer())
    with pytest.raises(ValueError, match="There is no chat template.*chat_template="):
        chat(bare, [user(words("what"))])


def test_template_of_a_real_llm(smollm2):
    processor = FreezeOmniProcessor(FreezeOmniFeatureExtractor(), AutoTokenizer.from_pretrained(smollm2))
    assert processor.audio_token_id == 49152
    text = processor.apply_chat_template([user(sound(5000))], add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\n")
    assert text.endswith(f"<|im_start|>user\n{AUDIO}<|im_end|>\n<|im_start|>assistant\n")
    inputs = chat(processor, [user(sound(5000))])
    assert places(processor, inputs) == heard(processor, 5000)
    assert AUDIO not in processor.decode(inputs["input_ids"][0], skip_special_tokens=False)


# Out


def test_decode(processor):
    inputs = chat(processor, [[user(words("the capital "), sound(100))], [user(words("what"))]])
    texts = processor.batch_decode(inputs["input_ids"])
    assert texts == ["user the capital assistant", "user what assistant"]
    assert processor.decode(inputs["input_ids"][0]) == texts[0]
    labels = torch.tensor([-100, *processor.tokenizer("is Paris")["input_ids"], processor.audio_token_id])
    assert processor.decode(labels) == "is Paris"
    assert processor.decode(labels[1]) == "is"
    assert "<|im_start|>" in processor.decode(inputs["input_ids"][0], skip_special_tokens=False)


def test_post_processing(processor):
    ids = processor(text=["the capital", "Paris"])["input_ids"]
    audio = [torch.zeros(5), torch.zeros(1, 7)]
    assert processor.post_process_multimodal_output(ids) == ["the capital", "Paris"]
    assert processor.post_process_multimodal_output((ids, audio), generation_mode="text") == ["the capital", "Paris"]
    sounds = processor.post_process_multimodal_output((ids, audio), generation_mode="audio")
    assert [item.shape for item in sounds] == [(5,), (7,)]
    with pytest.raises(ValueError, match="holds no sound"):
        processor.post_process_multimodal_output(ids, generation_mode="audio")
    with pytest.raises(ValueError, match="'image' is unknown"):
        processor.post_process_multimodal_output(ids, generation_mode="image")


def test_save_audio_uses_the_output_rate(processor, tmp_path):
    processor.output_sampling_rate = 22050
    assert soundfile.info(processor.save_audio(torch.zeros(10), tmp_path / "a.wav")).samplerate == 22050
    assert soundfile.info(processor.save_audio(torch.zeros(10), tmp_path / "b.wav", 8000)).samplerate == 8000


# Loading


def test_round_trip(released, tmp_path):
    AutoConfig.register("freeze_omni", FreezeOmniConfig, exist_ok=True)
    AutoFeatureExtractor.register(FreezeOmniConfig, FreezeOmniFeatureExtractor, exist_ok=True)
    AutoProcessor.register(FreezeOmniConfig, FreezeOmniProcessor, exist_ok=True)
    released.default_system_prompt = "Be kind."
    released.feature_extractor.chunk_frames = 32
    released.save_pretrained(tmp_path)
    for loaded in (FreezeOmniProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is FreezeOmniProcessor
        assert loaded.chat_template == released.chat_template
        assert loaded.to_dict() == released.to_dict()
        assert loaded.audio_token_id == released.audio_token_id
        expected, actual = (chat(item, [user(words("A"), sound(5000))]) for item in (released, loaded))
        assert sorted(expected) == sorted(actual)
        assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_template_of_the_tokenizer_survives_the_round_trip(processor, tmp_path):
    AutoFeatureExtractor.register(FreezeOmniConfig, FreezeOmniFeatureExtractor, exist_ok=True)
    assert processor.chat_template == CHATML
    processor.save_pretrained(tmp_path)
    assert FreezeOmniProcessor.from_pretrained(tmp_path).chat_template == CHATML


def test_from_model_config():
    config = FreezeOmniConfig(
        speech_encoder_config={"chunk_size": 8, "hidden_size": 16, "num_attention_heads": 2},
        adapter_config={"input_size": 16, "output_size": 64},
        text_config={"model_type": "qwen2", "hidden_size": 64},
        prompt_length=3,
    )
    processor = FreezeOmniProcessor.from_model_config(config, word_tokenizer(), max_seconds=5, audio_token="<sound>")
    assert processor.feature_extractor.chunk_frames == 32 and processor.feature_extractor.max_seconds == 5
    assert processor.prompt_length == 3 and processor.adapter_stride == 2 and processor.audio_token == "<sound>"
    assert processor.output_sampling_rate == 24000
    assert processor.num_audio_vectors(1) == 3 + 4
    config.adapter_config.adapter_type = "linear"
    assert FreezeOmniProcessor.from_model_config(config, word_tokenizer()).num_audio_vectors(1) == 3 + 8


def test_model_input_names(processor):
    assert processor.model_input_names == [
        "input_ids",
        "attention_mask",
        "input_features",
        "feature_attention_mask",
        "task_ids",
    ]

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Random checkpoints in the released layout, with chosen sizes and options.

Weights preserve variance, so that nothing vanishes or explodes on the way; text ids that are not printable are
out of reach, and both the end of the text and the end of speech are reachable.
"""

import json
import math
import shutil
from pathlib import Path

import torch
import yaml
from torch import Tensor
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM


TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<audio><|im_end|>\n"
    "<|im_start|>assistant\n"
)
# Every option with the value of the second reference set's description.
OPTIONS = {
    "seed": 0,
    # LLM
    "llm": {"hidden": 128, "layers": 2, "heads": 4, "kv_heads": 1, "tied": True},
    # encoder
    "width": 24,
    "encoder_layers": 3,
    "encoder_heads": 3,
    "chunk": 8,
    "left": 2,
    "transformer": {
        "transformer-concat-after": True,
        "transformer-normalize-before": True,
        "transformer-input-layer": "linear",
    },
    "layer_config": "subsampling-transformer",
    "underscores": False,
    "json_cmvn": False,
    "cmvn_in_weights": True,
    # adapter, prompts and states
    "adapter": {"kernel_size": 3, "norm": "batch", "activation_func": "relu"},
    "prompt_num": 3,
    "prompts": {"prompt_finetune": True, "add_prompt_before": True},
    "states": 5,
    "dtype": torch.float32,
    "llm_aliases": True,
    # speech decoder
    "decoder_width": 32,
    "decoder_layers": 4,
    "decoder_heads": 4,
    "codes": 48,
    "nested": False,
    "end_bias": 1.0,
    # codec
    "resblock": "2",
    "rates": [5, 4, 6, 5],
    "kernels": [11, 8, 12, 11],
    "channels": 256,
    "block_kernels": [3, 7],
    "dilations": [[1, 3], [1, 5]],
    "voices": 4,
    "voice_conv": [5, 2],
    "server": {
        "decoder_first_chunk_size": 12,
        "decoder_chunk_size": 24,
        "decoder_chunk_overlap_size": 6,
        "decoder_top_k": 1,
        "decoder_penalty_window_size": 5,
        "decoder_penalty": 1.2,
        "decoder_N": 1201,
        "decoder_seg_threshold_first_pack": 0.1,
        "decoder_seg_threshold": 0.015,
    },
}


class Dice:
    """Seeded random tensors."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=self.generator) * scale

    def linear(self, w: dict, name: str, out: int, inputs: int, bias: bool = True, gain: float = 1.0) -> None:
        w[f"{name}.weight"] = self.normal(out, inputs, scale=gain / math.sqrt(inputs))
        if bias:
            w[f"{name}.bias"] = self.normal(out, scale=0.1)

    def conv(self, w: dict, name: str, *shape: int, bias: bool = True) -> None:
        w[f"{name}.weight"] = self.normal(*shape, scale=math.sqrt(2 / math.prod(shape[1:])))
        if bias:
            w[f"{name}.bias"] = self.normal(shape[0], scale=0.1)

    def norm(self, w: dict, name: str, width: int, bias: bool = True) -> None:
        w[f"{name}.weight"] = 1 + self.normal(width, scale=0.1)
        if bias:
            w[f"{name}.bias"] = self.normal(width, scale=0.1)

    def batch_norm(self, w: dict, name: str, width: int) -> None:
        self.norm(w, name, width)
        w[f"{name}.running_mean"] = self.normal(width, scale=0.3)
        w[f"{name}.running_var"] = 0.5 + self.normal(width).abs()
        w[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def weight_norm(self, w: dict, name: str, *shape: int, gain: float, outputs: int) -> None:
        w[f"{name}.weight_v"] = self.views(*shape)
        w[f"{name}.weight_g"] = gain * (1 + self.normal(shape[0], 1, 1, scale=0.1))
        w[f"{name}.bias"] = self.normal(outputs, scale=0.05)

    def views(self, *shape: int) -> Tensor:
        """Large tensors as overlapping views of a small storage: small files, as released tests have them."""
        size = math.prod(shape)
        if size < 4096:
            return self.normal(*shape)
        steps, storage = [1009, 31, 1], self.normal(60000)
        need = sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        while need >= len(storage):
            steps[0] -= 2 * steps[1]
            need = sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
            if steps[0] < 60:
                return self.normal(*shape)
        return storage.as_strided(shape, steps)


def make(folder: Path, tokenizer: Path, **changes) -> tuple[Path, Path]:
    """Writes ``folder/checkpoints`` and ``folder/llm`` and returns the two paths.

    Args:
        tokenizer: Folder whose tokenizer files are copied.
        changes: Options that differ from ``OPTIONS``; dictionaries are merged.
    """
    o = {k: {**v, **changes.get(k, {})} if isinstance(v, dict) else changes.get(k, v) for k, v in OPTIONS.items()}
    assert not set(changes) - set(o), set(changes) - set(o)
    checkpoints, llm = folder / "checkpoints", folder / "llm"
    dice = Dice(o["seed"])
    for part in ("audiollm", "decoder", "codec"):
        (checkpoints / part).mkdir(parents=True)
    language = _language_model(dice, o, tokenizer, llm)
    _audio(dice, o, checkpoints, language)
    _decoder(dice, o, checkpoints)
    _codec(dice, o, checkpoints)
    (checkpoints / "server.json").write_text(json.dumps(o["server"]))
    return checkpoints, llm


def _language_model(dice: Dice, o: dict, tokenizer: Path, folder: Path) -> Qwen2ForCausalLM:
    size = o["llm"]
    config = Qwen2Config(
        vocab_size=320,
        hidden_size=size["hidden"],
        intermediate_size=2 * size["hidden"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv_heads"],
        tie_word_embeddings=size["tied"],
        max_position_embeddings=4096,
        eos_token_id=317,
        bos_token_id=318,
        use_sliding_window=False,
    )
    model = Qwen2ForCausalLM(config)
    reachable = _reachable(tokenizer)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(1 + dice.normal(*weight.shape, scale=0.1))
            elif "embed_tokens" in name or "lm_head" in name:
                # Neither does the last token's own row win every time, nor any row that is no printable text.
                weight.copy_(dice.normal(*weight.shape, scale=0.3) * reachable[:, None])
            elif weight.dim() == 2:
                weight.copy_(dice.normal(*weight.shape, scale=1.5 / math.sqrt(weight.shape[1])))
            else:
                weight.copy_(dice.normal(*weight.shape, scale=0.1))
    model.save_pretrained(folder)
    for file in tokenizer.iterdir():
        if "token" in file.name or file.name in ("merges.txt", "vocab.json"):
            shutil.copy(file, folder)
    return model


def _reachable(folder: Path) -> Tensor:
    """How large each id's row is: ends of sentences and the end of the answer a little larger than letters."""
    tokenizer, scale = AutoTokenizer.from_pretrained(folder), torch.full((320,), 0.2)
    for index in range(320):
        text = tokenizer.decode([index])
        if text.isascii() and text.isprintable() and text.strip() and index < 317:
            scale[index] = 1.4 if text[-1] in ".?!" else 1.0
    scale[tokenizer.eos_token_id] = 1.0
    return scale


def _audio(dice: Dice, o: dict, checkpoints: Path, language: Qwen2ForCausalLM) -> None:
    d, heads, size, w = o["width"], o["encoder_heads"], o["llm"]["hidden"], {}
    options = o["transformer"]
    dice.conv(w, "encoder.enc.0.core.conv.0", d, 1, 3, 3)
    dice.conv(w, "encoder.enc.0.core.conv.2", d, d, 3, 3)
    dice.linear(w, "encoder.enc.0.core.out.0", d, d * 19)
    if options.get("transformer-input-layer", "linear") == "linear":
        dice.linear(w, "encoder.enc.1.embed.0", d, d)
        dice.norm(w, "encoder.enc.1.embed.1", d)
    for i in range(o["encoder_layers"]):
        name = f"encoder.enc.1.encoders.{i}."
        for bias in "uv":
            w[f"{name}self_attn.pos_bias_{bias}"] = dice.normal(heads, d // heads, scale=0.5)
        for part in ("q", "k", "v", "out"):
            dice.linear(w, f"{name}self_attn.linear_{part}", d, d, gain=1.5)
        dice.linear(w, name + "self_attn.linear_pos", d, d, bias=False, gain=1.5)
        dice.linear(w, name + "feed_forward.w_1", 2 * d, d, gain=1.4)
        dice.linear(w, name + "feed_forward.w_2", d, 2 * d, gain=1.4)
        dice.norm(w, name + "norm1", d)
        dice.norm(w, name + "norm2", d)
        if options.get("transformer-concat-after"):
            dice.linear(w, name + "concat_linear", d, 2 * d)
    if options.get("transformer-normalize-before", True):
        dice.norm(w, "encoder.enc.1.after_norm", d)

    kernel, norm = o["adapter"]["kernel_size"], o["adapter"]["norm"]
    if 4 * d < size:
        dice.conv(w, "adpter.conv1d1", 2 * d, d, kernel)
        dice.batch_norm(w, "adpter.bn1", 2 * d)
        dice.conv(w, "adpter.conv1d2", 4 * d, 2 * d, kernel)
        dice.batch_norm(w, "adpter.bn2", 4 * d)
    else:
        dice.conv(w, "adpter.conv1d2", 2 * d, d, kernel)
        (dice.norm if norm == "layer" else dice.batch_norm)(w, "adpter.bn2", 2 * d)
    dice.linear(w, "adpter.project", size, 4 * d if 4 * d < size else 2 * d, gain=0.5)
    w["task_embeddings.weight"] = dice.normal(4, size)
    if o["prompts"]["prompt_finetune"]:
        w["prompt_embeddings.weight"] = dice.normal(o["prompt_num"], size, scale=0.3)
    dice.linear(w, "predictor_head", o["states"], size, gain=2.0)

    mean, deviation, frames = 10 + dice.normal(80), 3 + dice.normal(80).abs(), 1000
    total = (mean.double() * frames).tolist()
    squares = ((mean.double() ** 2 + deviation.double() ** 2) * frames).tolist()
    file = checkpoints / "audiollm/global_cmvn"
    if o["json_cmvn"]:
        file.write_text(json.dumps({"mean_stat": total, "var_stat": squares, "frame_num": frames}))
    else:
        first, second = " ".join(map(repr, total)), " ".join(map(repr, squares))
        file.write_text(f" [\n  {first} {frames} \n  {second} 0 ]\n")
    w = {name: value.to(o["dtype"]) if value.is_floating_point() else value for name, value in w.items()}
    if o["cmvn_in_weights"]:  # these win over the file
        w["encoder.global_cmvn.mean"], w["encoder.global_cmvn.istd"] = mean + 0.5, 1 / deviation
    if o["llm_aliases"]:
        for name, value in language.state_dict().items():
            w[f"llm_decoder.{name}"] = value
            if name.startswith("model."):
                other = name.replace("embed_tokens", "wte").replace("layers.", "h.", 1)
                for alias in (other, *(n.replace("model.", "transformer.", 1) for n in (name, other))):
                    w[f"llm_decoder.{alias}"] = value
    torch.save(w, checkpoints / "audiollm/final.pt")
    (checkpoints / "audiollm/train.yaml").write_text(yaml.safe_dump(_train_settings(o)))


def _train_settings(o: dict) -> dict:
    d, size = o["width"], o["llm"]
    subsampling, transformer = o["layer_config"].split("-")
    overview = {
        "encoder-input-dim": 80,
        "encoder-layer-config": o["layer_config"],
        "encoder-output-dim": d,
    }
    parts = {
        subsampling: {"subsampling-rate": 4, "subsampling-input-dim": 80, "subsampling-output-dim": d},
        transformer: {
            "transformer-input-dim": d,
            "transformer-output-dim": d,
            "transformer-attention-dim": d,
            "transformer-attention-heads": o["encoder_heads"],
            "transformer-chunk_size": o["chunk"],
            "transformer-left_chunks": o["left"],
            "transformer-linear-units": 2 * d,
            "transformer-num-blocks": o["encoder_layers"],
            "transformer-pos-enc-class": "rel-enc",
            "transformer-dynamic-chunks": False,
            **o["transformer"],
        },
    }
    if o["underscores"]:
        overview = {k.replace("-", "_"): v for k, v in overview.items()}
        parts = {name: {k.replace("-", "_"): v for k, v in part.items()} for name, part in parts.items()}
    return {
        "input_dim": 80,
        "output_dim": 100,
        "is_json_cmvn": o["json_cmvn"],
        "cmvn_file": None,
        "encoder_conf": {"overview_conf": overview, "para_conf": parts},
        "model_conf": {
            "adpter_type": "subsampling",
            **o["adapter"],
            **o["prompts"],
            "prompt_num": o["prompt_num"],
            "predict_usr_state": o["states"],
            "enc_out_dim": d,
            "llm_embed_dim": size["hidden"],
            "llm_head_num": size["heads"],
            "num_key_value_heads": size["kv_heads"],
            "task_num": 4,
            "chat_template": TEMPLATE,
        },
    }


def _decoder(dice: Dice, o: dict, checkpoints: Path) -> None:
    d, layers, codes, w = o["decoder_width"], o["decoder_layers"], o["codes"], {}
    w["embedding.weight"] = dice.normal(codes + 4, d)
    for stack, count in (("layers", layers), ("layers_prefix", layers), ("layers_pre_nn", layers // 2)):
        for i in range(count):
            name = f"{stack}.{i}."
            for part in "qkvo":
                dice.linear(w, f"{name}self_attn.{part}_proj", d, d, bias=False, gain=1.5)
            dice.linear(w, name + "mlp.gate_proj", 3 * d, d, bias=False, gain=1.5)
            dice.linear(w, name + "mlp.up_proj", 3 * d, d, bias=False, gain=1.5)
            dice.linear(w, name + "mlp.down_proj", d, 3 * d, bias=False, gain=1.5)
            dice.norm(w, name + "input_layernorm", d, bias=False)
            dice.norm(w, name + "post_attention_layernorm", d, bias=False)
    dice.norm(w, "norm", d, bias=False)
    dice.linear(w, "out_fnn", codes + 4, d, gain=3.0)
    bias = w["out_fnn.bias"]
    bias[[codes, codes + 1, codes + 3]] = -30.0  # the codec has no sound for these
    bias[codes + 2] = o["end_bias"]
    torch.save({"model": w, "epoch": 3} if o["nested"] else w, checkpoints / "decoder/final.pt")
    options = {
        "idim": d,
        "odim": codes,
        "encoder_output_dim": d,
        "kv_cache_prefix_finetune": 1,
        "transformer_attention_dim": d,
        "transformer_attention_heads": o["decoder_heads"],
        "transformer_linear_units": 3 * d,
        "transformer_num_blocks": layers,
    }
    (checkpoints / "decoder/model.json").write_text(json.dumps([d, codes, options]))


def _codec(dice: Dice, o: dict, checkpoints: Path) -> None:
    generator, encoder, quantizer = {}, {}, {}
    kernels, width = o["block_kernels"], o["channels"]
    pairs = list(zip(o["rates"], o["kernels"], strict=True))
    dice.weight_norm(generator, "conv_pre", width, 512, 7, gain=1.0, outputs=width)
    for i, (rate, kernel) in enumerate(pairs):
        gain, width = math.sqrt(rate), width // 2
        dice.weight_norm(generator, f"ups.{i}", 2 * width, width, kernel, gain=gain, outputs=width)
        for j, size in enumerate(kernels):
            _residual_block(dice, o, generator, f"resblocks.{i * len(kernels) + j}", width, size)
    dice.weight_norm(generator, "conv_post", 1, width, 7, gain=0.2, outputs=1)

    width = 32
    dice.weight_norm(encoder, "conv_pre", width, 1, 7, gain=1.0, outputs=width)
    for i, (_, kernel) in enumerate(pairs[::-1]):
        dice.weight_norm(encoder, f"ups.{i}", 2 * width, width, kernel, gain=1.4, outputs=2 * width)
        width *= 2
        for j, size in enumerate(kernels[::-1]):
            _residual_block(dice, o, encoder, f"resblocks.{i * len(kernels) + j}", width, size)
            dice.norm(encoder, f"normalize.{i * len(kernels) + j}", width)
    encoder["conv_post.weight"] = dice.views(512, 512, 3) / 30
    encoder["conv_post.bias"] = dice.normal(512, scale=0.1)
    dice.linear(encoder, "linear.0", 128, 128)
    kernel, stride = o["voice_conv"]
    for j, (out, inputs) in enumerate(((16, 128), (16, 16), (128, 16))):
        dice.conv(encoder, f"GlobalTokenEncoder.conv.{2 * j}", out, inputs, kernel, bias=False)
    dice.linear(encoder, "GlobalTokenEncoder.fn.0", 128, 128)
    dice.batch_norm(encoder, "GlobalTokenEncoder.fn.2", 128)

    quantizer["quantizer_modules.0.embedding.weight"] = dice.normal(o["codes"], 512)
    for j in range(o["voices"]):
        name = f"quantizer_modules_globaltokens.{j}.embedding.weight"
        quantizer[name] = dice.normal(o["codes"], 128 // o["voices"])
    weights = {"generator": generator, "quantizer": quantizer, "encoder": encoder}
    torch.save({**weights, "steps": 5}, checkpoints / "codec/final.pt")
    settings = {
        "resblock": o["resblock"],
        "upsample_rates": o["rates"],
        "upsample_kernel_sizes": o["kernels"],
        "upsample_initial_channel": o["channels"],
        "resblock_kernel_sizes": kernels,
        "resblock_dilation_sizes": o["dilations"],
        "n_code_groups": 1,
        "residul_layer": 1,
        "n_codes": o["codes"],
        "codebook_loss_lambda": 1.0,
        "commitment_loss_lambda": 0.25,
        "global_code_num": o["voices"],
        "global_feature_conv": [128, 16, 128, kernel, stride],
        "global_tokens": [(7 * j + 3) % o["codes"] for j in range(o["voices"])],
        "sampling_rate": 24000,
    }
    (checkpoints / "codec/model.json").write_text(json.dumps(settings))


def _residual_block(dice: Dice, o: dict, w: dict, name: str, width: int, kernel: int) -> None:
    for part in ("convs1", "convs2") if o["resblock"] == "1" else ("convs",):
        for k in range(3 if o["resblock"] == "1" else 2):
            dice.weight_norm(w, f"{name}.{part}.{k}", width, width, kernel, gain=0.7, outputs=width)

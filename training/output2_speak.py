# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Output stage 2: the speech decoder learns to say text, from the LLM's embeddings of it alone.

Run as: accelerate launch training/output2_speak.py --config training/recipes/smollm2-135m/output2.yaml
"""

from transformers import TrainingArguments
from trl import TrlParser

from freeze_omni_hf.training.through_decoder import SpeakingArguments, VoiceArguments, train_decoder


def main() -> None:
    parser = TrlParser((SpeakingArguments, VoiceArguments, TrainingArguments))
    stage, voice, arguments = parser.parse_args_and_config()
    train_decoder("Output stage 2", stage, voice, arguments, conversation=False)


if __name__ == "__main__":
    main()

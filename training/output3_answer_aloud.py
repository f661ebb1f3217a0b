# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Output stage 3: the prefix layers learn to read the LLM's hidden states behind what it says.

The paper trains the prefix layers (and the pre-network) and leaves the autoregressive layers as they are; ``parts``
names others.

Run as: accelerate launch training/output3_answer_aloud.py --config training/recipes/smollm2-135m/output3.yaml
"""

from transformers import TrainingArguments
from trl import TrlParser

from freeze_omni_hf.training.through_decoder import SpeakingArguments, VoiceArguments, train_decoder


def main() -> None:
    parser = TrlParser((SpeakingArguments, VoiceArguments, TrainingArguments))
    stage, voice, arguments = parser.parse_args_and_config()
    train_decoder("Output stage 3", stage, voice, arguments, conversation=True)


if __name__ == "__main__":
    main()

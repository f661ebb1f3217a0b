# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
from .metrics import answer_accuracy, contains_answer, error_rates, module_path, normalise


__all__ = ["answer_accuracy", "contains_answer", "error_rates", "module_path", "normalise"]

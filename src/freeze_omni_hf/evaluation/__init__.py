# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
from .metrics import contains_answer, error_rates, normalise


__all__ = ["contains_answer", "error_rates", "normalise"]

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
from .convert import ConversionReport, convert
from .released import ConversionError


__all__ = ["ConversionError", "ConversionReport", "convert"]

# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Training data: voices and texts, resumable shards, any data set by a column map, augmentation on the fly.

Needs ``pip install "freeze-omni-hf[train]"``. Import from the modules; nothing heavy is loaded here.
"""

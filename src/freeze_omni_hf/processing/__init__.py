# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.

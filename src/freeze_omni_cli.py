# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Entry point of the ``freeze-omni`` command.

Importing `freeze_omni_hf` imports transformers, which fails where torchaudio is broken. The command reads its own
arguments, and looks for what is broken, before that: so ``cli.py`` is loaded here from its file.
"""

import importlib.util
import sys
from pathlib import Path


def main() -> int:
    """Runs the command; returns the exit code."""
    package = importlib.util.find_spec("freeze_omni_hf")  # finds the package without importing it
    if package is None or package.origin is None:
        print("error: the package freeze_omni_hf is not installed in this Python; install it again.", file=sys.stderr)
        return 1
    spec = importlib.util.spec_from_file_location("_freeze_omni_cli", Path(package.origin).with_name("cli.py"))
    cli = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cli)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env bash
# Makes a virtual environment with everything that the demo, the tests and training need.
# Run as: scripts/setup.sh [FOLDER]        (PYTHON and TORCH may name another interpreter or torch requirement)
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${1:-.venv}"
python="${PYTHON:-python3}"
torch="${TORCH:-torch==2.13.0}"

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: Python 3.11 or newer is needed; name one with PYTHON=python3.11." >&2
    exit 1
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"

# torch first and by version; what follows must not replace it by another build.
"$venv/bin/python" -m pip install "$torch"
constraints="$(mktemp)"
trap 'rm -f "$constraints"' EXIT
"$venv/bin/python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))' > "$constraints"
"$venv/bin/python" -m pip install --constraint "$constraints" --editable ".[dev]"

# torchaudio from PyPI is linked to CUDA; --fix removes its native libraries where they cannot be loaded.
"$venv/bin/freeze-omni" env --fix

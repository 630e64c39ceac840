#!/usr/bin/env bash
# PyTorch and Tenon read each other's full-size checkpoints and their networks give the same outputs (within 1e-5).
#
# Installs PyTorch into a folder of its own that is removed at the end: about 3 GB to fetch, 8 GB on the disk.
# TENON_TORCH_VENV=DIR keeps it there between runs, or uses a virtual environment that has PyTorch already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

packages=(torch==2.8.0 numpy==2.4.6 safetensors==0.8.0)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf 'interop: %s\n' "$*" >&2; }

venv=${TENON_TORCH_VENV:-$work/venv}
python=$venv/bin/python
if ! [ -x "$python" ] || ! "$python" -c 'import torch, numpy, safetensors' 2>/dev/null; then
    say "installing ${packages[*]} into $venv"
    python3 -m venv "$venv"
    "$python" -m pip install --quiet --no-cache-dir "${packages[@]}"
fi
say "$("$python" -c 'import torch; print("PyTorch", torch.__version__)')"

"$python" tests/interop/checkpoints.py write "$work/checkpoints"
TENON_INTEROP=$work/checkpoints ${CARGO:-cargo} test ${BUILD_FLAGS:---release --workspace} --test import -- \
    interop --nocapture
"$python" tests/interop/checkpoints.py check "$work/checkpoints"
say "both directions agree"

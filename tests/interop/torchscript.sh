#!/usr/bin/env bash
# Polymetis controllers: PyTorch loads Tenon's archives and 10 000 steps of each agree with our evaluator and with the
# laws in Rust; controllers that PyTorch scripted and saved run in our evaluator and agree too (1e-5).
#
# Installs PyTorch into a folder of its own that is removed at the end: about 3 GB to fetch, 8 GB on the disk.
# TENON_TORCH_VENV=DIR keeps it there between runs, or uses a virtual environment that has PyTorch (1.13 or later).
# Wants g++: the server's custom class for robot models is C++.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

packages=(torch==2.8.0 numpy==2.4.6 safetensors==0.8.0)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf 'interop: %s\n' "$*" >&2; }

command -v g++ >/dev/null || { say "g++ is missing (Debian: apt-get install g++)"; exit 1; }
venv=${TENON_TORCH_VENV:-$work/venv}
python=$venv/bin/python
if ! [ -x "$python" ] || ! "$python" -c 'import torch, numpy' 2>/dev/null; then
    say "installing ${packages[*]} into $venv"
    python3 -m venv "$venv"
    "$python" -m pip install --quiet --no-cache-dir "${packages[@]}"
fi
say "$("$python" -c 'import torch; print("PyTorch", torch.__version__)')"

"$python" tests/interop/torchscript.py write "$work/controllers"
TENON_TORCHSCRIPT=$work/controllers ${CARGO:-cargo} test ${BUILD_FLAGS:---release --workspace} --test torchscript -- \
    interop --nocapture
"$python" tests/interop/torchscript.py check "$work/controllers"
say "controllers agree"

#!/usr/bin/env bash
# Tenon's exact pictures equal those of MuJoCo's Python renderer, byte for byte, on this machine's OpenGL library.
#
# Installs MuJoCo's wheel into a folder of its own that is removed at the end (100 MB). TENON_MUJOCO_VENV=DIR keeps it
# there between runs, or uses a virtual environment that has it already; with robosuite 1.4.1 in it, robosuite's scenes
# are compared too. TENON_GL=osmesa compares through OSMesa instead of EGL.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

packages=("mujoco==3.3.7" "numpy<2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf 'interop: %s\n' "$*" >&2; }

venv=${TENON_MUJOCO_VENV:-$work/venv}
python=$venv/bin/python
if ! [ -x "$python" ] || ! "$python" -c 'import mujoco, numpy' 2>/dev/null; then
    say "installing ${packages[*]} into $venv"
    python3 -m venv "$venv"
    "$python" -m pip install --quiet --no-cache-dir "${packages[@]}"
fi
say "$("$python" -c 'import mujoco; print("MuJoCo", mujoco.__version__)')"

export MUJOCO_GL=${TENON_GL:-egl} PYOPENGL_PLATFORM=${TENON_GL:-egl}
"$python" tests/interop/pictures.py "$work/pictures"
# shellcheck disable=SC2086  # the flags are a list of words
TENON_PICTURES=$work/pictures TENON_GL=$MUJOCO_GL ${CARGO:-cargo} test ${BUILD_FLAGS:---release --workspace} \
    --test picture_interop -- --nocapture
say "pictures agree"

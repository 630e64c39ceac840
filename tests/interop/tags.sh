#!/usr/bin/env bash
# Our search for tags beside pupil-apriltags (the C library from Python) on the same pictures, which `tenon bench vision`
# renders: ids, recall, corners against the truth, time.
#
# Installs pupil-apriltags and NumPy (about 25 MB) into a folder of its own that is removed at the end.
# TENON_TAGS_VENV=DIR keeps it there between runs. TENON=PATH names the program; QUICK=1 takes fewer pictures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

packages=(pupil-apriltags==1.0.4.post11 numpy==2.4.6)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf 'interop: %s\n' "$*" >&2; }

tenon=${TENON:-${CARGO_TARGET_DIR:-target}/release/tenon}
[ -x "$tenon" ] || { say "no program $tenon: build it first (make build), or name it with TENON=PATH"; exit 1; }
venv=${TENON_TAGS_VENV:-$work/venv}
python=$venv/bin/python
if ! [ -x "$python" ] || ! "$python" -c 'import pupil_apriltags, numpy' 2>/dev/null; then
    say "installing ${packages[*]} into $venv"
    python3 -m venv "$venv"
    "$python" -m pip install --quiet --no-cache-dir "${packages[@]}"
fi

flags=()
case ${QUICK:-0} in 0) ;; *) flags+=(--quick) ;; esac
"$tenon" bench vision --pictures "$work/pictures" "${flags[@]}"
"$python" tests/interop/tags.py "$work/pictures"

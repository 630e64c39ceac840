#!/usr/bin/env bash
# Puts the Python packages of a bench's peer into a throw-away environment (git-ignored); only when missing.
#
#   trainer/peer/setup.sh [FOLDER [REQUIREMENTS]]     default .deps/venv-bench trainer/peer/requirements.txt (PyTorch)
#
# PyPI has PyTorch for Linux x86_64 only together with the CUDA libraries that it is linked to: about 3.6 GB to fetch and
# 7 GB on disk, although nothing here uses a GPU. BENCH_PIP_FLAGS goes to pip: with the index of CPU-only wheels that
# PyTorch publishes (--extra-index-url …) it is a tenth of that. Delete the folder when the bench has run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'peer: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

folder=${1:-.deps/venv-bench}
requirements=${2:-trainer/peer/requirements.txt}
# Written last, so a folder that was left half-way is made again.
stamp=$folder/installed-requirements.txt
if cmp -s "$requirements" "$stamp"; then exit 0; fi

command -v python3 >/dev/null || die "python3 was not found: install Python 3.9 to 3.13, e.g. 'apt-get install python3'"
python3 -m pip --version >/dev/null 2>&1 || die "pip was not found: e.g. 'apt-get install python3-pip'"
rm -rf "$folder"
# Without ensurepip, which Debian packages apart; the pip outside installs into the environment.
python3 -m venv --without-pip "$folder" || die "the environment $folder could not be made: free disk space there"
size=$(grep -q '^torch' "$requirements" && echo "about 7 GB" || echo "about 1 GB")
say "fetching the packages of $requirements into $folder from the Python package index (minutes; $size on disk)"
# shellcheck disable=SC2086  # the flags are a list of words
python3 -m pip --python "$folder/bin/python" install --quiet --no-input --only-binary=:all: --retries 2 \
    ${BENCH_PIP_FLAGS:-} $(sed -n 's/^# pip: //p' "$requirements") --requirement "$requirements" </dev/null ||
    die "the packages of $requirements could not be installed (pip's message stands above); mend that, then make again"
cp "$requirements" "$stamp"

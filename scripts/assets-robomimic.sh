#!/usr/bin/env bash
# Puts the scenes of the Robomimic tasks (Lift, Can, Square, Transport) into .deps/robomimic (git-ignored): four MJCF
# files and the 45 MB of meshes and pictures that they name, out of the wheel robosuite 1.4.1 (MIT). A second run changes
# nothing and takes half a second.
#
#   scripts/assets-robomimic.sh           what is missing or damaged
#   scripts/assets-robomimic.sh --check   only say whether they are there (exit code 1: no)
#
# TENON_ROBOMIMIC=DIR is where the scenes go, and where the simulation looks for them, instead of .deps/robomimic. Installed
# programs look in ../share/tenon/robomimic by themselves: TENON_ROBOMIMIC=/usr/local/share/tenon/robomimic, say.
# TENON_DEPS=DIR is where the wheels are kept between checkouts (default ~/.cache/tenon, 210 MB): with both of them in it
# no network is needed. Whatever lies there is used only if its SHA-256 is the pinned one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'assets: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
temporary=""
trap '[ -z "$temporary" ] || rm -rf "$temporary"' EXIT
trap 'die "interrupted; run it again, wheels that were fetched are kept"' INT TERM

# Raised when what the exporter writes changes.
edition="robosuite 1.4.1, edition 1"
robosuite="robosuite==1.4.1 robosuite-1.4.1-py3-none-any.whl 62587cd5888d9d3d813f3ffcc7017f6f77efa618952527a0b9bb139ffd0a3741"

# numpy for each version of Python: requirement, file, SHA-256. Its newer line writes the same scenes.
numpy_for() {
    case "$1" in
        3.9) echo numpy==1.26.4 numpy-1.26.4-cp39-cp39-manylinux_2_17_x86_64.manylinux2014_x86_64.whl f870204a840a60da0b12273ef34f7051e98c3b5961b61b0c2c1be6dfd64fbcd3 ;;
        3.10) echo numpy==1.26.4 numpy-1.26.4-cp310-cp310-manylinux_2_17_x86_64.manylinux2014_x86_64.whl ffa75af20b44f8dba823498024771d5ac50620e6915abac414251bd971b4529f ;;
        3.11) echo numpy==1.26.4 numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl 666dbfb6ec68962c033a450943ded891bed2d54e6755e35e5835d63f4f6931d5 ;;
        3.12) echo numpy==1.26.4 numpy-1.26.4-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl 675d61ffbfa78604709862923189bad94014bef562cc35cf61d3a07bba02a7ed ;;
        3.13) echo numpy==2.3.5 numpy-2.3.5-cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl 11e06aa0af8c0f05104d56450d6093ee639e15f24ecf62d417329d06e522e017 ;;
        3.14) echo numpy==2.3.5 numpy-2.3.5-cp314-cp314-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl fffe29a1ef00883599d1dc2c51aa2e5d80afe49523c261a74933df395c15c520 ;;
        *) return 1 ;;
    esac
}

# has_sha256 SHA256 FILE
has_sha256() { [ -f "$2" ] && [ "$(sha256sum <"$2" | cut -d' ' -f1)" = "$1" ]; }

# Every run reads all of them, so a damaged one never reaches a training run.
scenes_are_whole() {
    [ "$(cat "$target/EDITION" 2>/dev/null)" = "$edition" ] &&
        (cd "$target" && sha256sum --check --status MANIFEST.sha256 2>/dev/null)
}

why_pip_failed() {
    if grep -qiE 'no space left' "$1"; then
        echo "no space left on the disk"
    elif grep -qiE 'connection|name resolution|unreachable|timed out|proxy' "$1"; then
        echo "no connection to the Python package index"
    else
        grep -i error "$1" | tail -n1 | cut -c1-160
    fi
}

# fetch_wheel REQUIREMENT FILE SHA256: leaves the checked wheel in $wheels.
fetch_wheel() {
    if has_sha256 "$3" "$wheels/$2"; then return 0; fi
    [ ! -e "$wheels/$2" ] || say "$wheels/$2 is damaged (SHA-256 differs); fetching it again"
    say "fetching $1 from the Python package index"
    mkdir -p "$temporary/fetched"
    # Unpacked beside the scenes, for /tmp is often too small for a wheel of this size.
    TMPDIR="$temporary" python3 -m pip download --quiet --no-deps --no-input --no-cache-dir --only-binary=:all: \
        --retries 2 --timeout 30 --dest "$temporary/fetched" "$1" >"$temporary/pip.log" 2>&1 </dev/null ||
        die "$1 could not be fetched ($(why_pip_failed "$temporary/pip.log")): mend that, or put $2 into $wheels, then" \
            "run it again"
    has_sha256 "$3" "$temporary/fetched/$2" ||
        die "$1 came with another SHA-256 than the pinned one and was thrown away:" \
            "check the index and proxy that pip uses ('python3 -m pip config list')"
    mkdir -p "$wheels" && mv -f "$temporary/fetched/$2" "$wheels/$2" ||
        die "cannot write to $wheels: name a folder that can be written with TENON_DEPS=DIR"
}

target=${TENON_ROBOMIMIC:-$PWD/.deps/robomimic}
case "$target" in /*) ;; *) target=$PWD/$target ;; esac
wheels=${TENON_DEPS:-${XDG_CACHE_HOME:-${HOME:-$PWD/.deps}/.cache}/tenon}
case "${1-}" in
    "") if scenes_are_whole; then exit 0; fi ;;
    --check)
        if scenes_are_whole; then exit 0; fi
        die "the Robomimic scenes are not in $target, or not whole: run 'make assets-robomimic'"
        ;;
    *) die "unknown argument '$1': none, or --check" ;;
esac

# Only what this script wrote is replaced: TENON_ROBOMIMIC may name any folder.
if [ -e "$target" ] && [ ! -e "$target/EDITION" ] && [ -n "$(ls -A "$target" 2>/dev/null)" ]; then
    die "$target holds something else than Robomimic scenes: name an empty or a new folder with TENON_ROBOMIMIC=DIR"
fi
command -v python3 >/dev/null || die "python3 was not found: install it ('apt-get install python3 python3-pip')"
python3 -m pip --version >/dev/null 2>&1 || die "pip was not found: install it ('apt-get install python3-pip')"
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
numpy=$(numpy_for "$version") ||
    die "python3 is $version: composing the scenes needs 3.9 to 3.14; put such a python3 first in PATH"
parent=$(dirname "$target")
mkdir -p "$parent" && temporary=$(mktemp -d "$parent/robomimic.XXXXXX") ||
    die "cannot write to $parent: mend its permissions, or name another folder with TENON_ROBOMIMIC=DIR"
temporary=$(realpath "$temporary")
free_mb=$(df --output=avail -BM "$temporary" | tail -n1 | tr -dc 0-9)
[ "$free_mb" -ge 700 ] || die "only $free_mb MB are free in $parent: 700 MB are needed, 45 MB of them to stay"
[ ! -e "$target" ] || say "something in $target is missing, damaged or from another version; making it again"

# shellcheck disable=SC2086  # requirement, file and SHA-256 are three words
fetch_wheel $robosuite
# shellcheck disable=SC2086
fetch_wheel $numpy
# The environment that is thrown away: numpy alone, in a folder; see assets_robomimic.py for the rest.
TMPDIR="$temporary" python3 -m pip install --quiet --no-deps --no-input --no-index --disable-pip-version-check \
    --target "$temporary/python" "$wheels/$(cut -d' ' -f2 <<<"$numpy")" >"$temporary/pip.log" 2>&1 </dev/null ||
    die "numpy could not be unpacked: $(why_pip_failed "$temporary/pip.log")"
mkdir "$temporary/scenes"
PYTHONPATH="$temporary/python" PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 \
    python3 scripts/assets_robomimic.py "$wheels/$(cut -d' ' -f2 <<<"$robosuite")" "$temporary/scenes" \
    >"$temporary/export.log" 2>&1 </dev/null ||
    die "the scenes could not be composed: $(tail -n1 "$temporary/export.log" | cut -c1-200)"
echo "$edition" >"$temporary/scenes/EDITION"
(cd "$temporary/scenes" && find . -type f ! -name MANIFEST.sha256 | LC_ALL=C sort | xargs -d '\n' sha256sum >MANIFEST.sha256) ||
    die "the manifest of $target could not be written: free disk space there"
# In place in one step: a run that is cut short leaves what was there before.
[ ! -e "$target" ] || mv "$target" "$temporary/replaced"
mv "$temporary/scenes" "$target"
chmod 755 "$target"
say "$(tail -n1 "$temporary/export.log") of robosuite 1.4.1 are in $target"

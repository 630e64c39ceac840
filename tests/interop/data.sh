#!/usr/bin/env bash
# LeRobot's and robomimic's own loaders open what `tenon-train data convert` writes, and see the same values; LeRobot's
# video is read as it was written.
#
# Installs lerobot, robomimic and PyTorch into a folder of its own that is removed at the end: about 3 GB to fetch, 9 GB
# on the disk. TENON_DATA_VENV=DIR keeps it there between runs, or uses one that has them already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf 'interop: %s\n' "$*" >&2; }

train=${TENON_TRAIN:-${CARGO_TARGET_DIR:-target}/release/tenon-train}
[ -x "$train" ] || { say "no program $train: build it first (make build), or name it with TENON_TRAIN=PATH"; exit 1; }
venv=${TENON_DATA_VENV:-$work/venv}
python=$venv/bin/python
if ! [ -x "$python" ] || ! "$python" -c 'import lerobot, robomimic, h5py' 2>/dev/null; then
    say "installing lerobot and robomimic into $venv"
    python3 -m venv "$venv"
    "$python" -m pip install --quiet --no-cache-dir torch==2.8.0 torchvision==0.23.0 lerobot==0.4.4 h5py==3.16.0
    # Its loader needs none of its simulators; the requirements of the whole package would build one.
    "$python" -m pip install --quiet --no-cache-dir --no-deps robomimic==0.3.0
    "$python" -m pip install --quiet --no-cache-dir psutil tqdm termcolor imageio tensorboardX matplotlib six
fi

files=trainer/data/tests/data
"$train" data convert "$files/robomimic.hdf5" "$work/again.hdf5"
"$train" data convert "$files/lerobot" "$work/from_lerobot.hdf5"
"$train" data convert "$files/robomimic.hdf5" "$work/from_robomimic" --to lerobot --task "lift the cube"
"$train" data convert "$files/lerobot" "$work/again_lerobot" --to lerobot
"$train" data convert "$files/d4rl.hdf5" "$work/npz"
export HF_HUB_OFFLINE=1
"$python" tests/interop/data.py video "$work/video"
mkdir "$work/bin"
ln -s "$("$python" -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')" "$work/bin/ffmpeg"
PATH="$work/bin:$PATH" "$train" data convert "$work/video" "$work/video.hdf5"
"$python" tests/interop/data.py "$work" "$files"
say "lerobot, robomimic, h5py and NumPy open what was written and see the same values"

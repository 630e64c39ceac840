"""Small files in other people's formats, written by their own libraries; the tests of tenon-data read them.

    python3 -m venv venv && venv/bin/pip install numpy==2.4.6 h5py==3.16.0 pandas==2.3.3 pyarrow==26.0.1 \\
        zarr==2.18.7 numcodecs==0.13.1
    venv/bin/python make.py [lerobot]

Every value is a formula of episode t and frame (`value`), which the tests know too. `lerobot`: also writes `lerobot/`,
with LeRobot's own writer (lerobot==0.4.4).
"""

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
LENGTHS = [5, 3, 4]


def value(episode, frame, column):
    """What stands in every float array."""
    return episode + 0.25 * frame - 0.125 * column


def floats(episode, frames, width, kind=np.float64):
    return np.array([[value(episode, t, c) for c in range(width)] for t in range(frames)], dtype=kind)


def pictures(episode, frames, side=4):
    shape = (frames, side, side, 3)
    return ((np.arange(np.prod(shape)) + episode) % 251).astype(np.uint8).reshape(shape)


def robomimic(path, libver=None):
    """As robomimic's dataset_states_to_obs.py writes it."""
    import h5py

    with h5py.File(path, "w", libver=libver) as f:
        data = f.create_group("data")
        # Made in an order that is neither that of numbers nor that of letters.
        for k in (2, 0, 1):
            n = LENGTHS[k]
            name = "demo_10" if k == 2 else f"demo_{k + 1}"
            demo = data.create_group(name)
            demo.create_dataset("actions", data=floats(k, n, 7) / 10)
            demo.create_dataset("states", data=floats(k, n, 9))
            demo.create_dataset("rewards", data=np.array([0.0] * (n - 1) + [float(k != 1)]))
            demo.create_dataset("dones", data=np.array([0] * (n - 1) + [1]))
            demo.create_dataset("obs/robot0_eef_pos", data=floats(k, n, 3))
            demo.create_dataset("obs/robot0_eef_quat", data=floats(k, n, 4), compression="gzip", shuffle=True)
            demo.create_dataset("obs/robot0_gripper_qpos", data=floats(k, n, 2, np.float32), compression="lzf")
            demo.create_dataset("obs/object", data=floats(k, n, 5), chunks=(2, 3), fletcher32=True)
            demo.create_dataset("obs/agentview_image", data=pictures(k, n), compression="gzip", chunks=(1, 4, 4, 3))
            demo.create_dataset("next_obs/object", data=floats(k, n, 5))
            demo.create_dataset("device/clutch", data=np.arange(3 * n))
            demo.create_dataset("flags", data=np.arange(n) % 2 == 0)
            demo.attrs["num_samples"] = n
            demo.attrs["model_file"] = "<mujoco>" + "x" * 500 + "</mujoco>"
        data.attrs["total"] = sum(LENGTHS)
        data.attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "env_version": "1.4.1", "type": 1, "env_kwargs": {"control_freq": 20}}
        )
        f.create_dataset("mask/train", data=np.array(["demo_1", "demo_10"], dtype="S"))
        f.create_dataset("mask/valid", data=np.array(["demo_2"], dtype="S"))


def d4rl(path):
    """Three episodes, ended by a terminal, a time-out and a terminal, and two frames of one that does not end."""
    import h5py

    ends, frames = np.cumsum(LENGTHS) - 1, sum(LENGTHS) + 2
    episode = lambda i: int(np.searchsorted(ends, i))
    start = lambda i: 0 if episode(i) == 0 else ends[episode(i) - 1] + 1
    rows = lambda width: np.array(
        [[value(episode(i), i - start(i), c) for c in range(width)] for i in range(frames)], dtype=np.float32
    )
    with h5py.File(path, "w") as f:
        compression = dict(compression="gzip", chunks=True)
        f.create_dataset("observations", data=rows(11), **compression)
        f.create_dataset("actions", data=rows(3) / 10, **compression)
        f.create_dataset("rewards", data=rows(1)[:, 0], **compression)
        f.create_dataset("terminals", data=np.isin(np.arange(frames), ends[[0, 2]]), **compression)
        f.create_dataset("timeouts", data=np.arange(frames) == ends[1], **compression)
        f.create_dataset("infos/qpos", data=rows(6), **compression)


def zarr_store(path):
    """An array for each codec; as many rows as Blosc needs to split its blocks."""
    import numcodecs
    import zarr

    rows, ends = 300, [100, 180, 300]
    store = zarr.ZipStore(str(path), mode="w")
    root = zarr.group(store=store)
    blosc = lambda name, shuffle: numcodecs.Blosc(cname=name, clevel=5, shuffle=shuffle)
    codecs = {
        "blosc_lz4_shuffle": blosc("lz4", 1),
        "blosc_lz4_plain": blosc("lz4", 0),
        "blosc_lz4hc_bits": blosc("lz4hc", 2),
        "blosc_zstd_bits": blosc("zstd", 2),
        "blosc_zstd_shuffle": blosc("zstd", 1),
        "blosc_blosclz_shuffle": blosc("blosclz", 1),
        "blosc_zlib_shuffle": blosc("zlib", 1),
        "zlib": numcodecs.Zlib(1),
        "gzip": numcodecs.GZip(1),
        "zstd": numcodecs.Zstd(1),
        "lz4": numcodecs.LZ4(),
        "raw": None,
    }
    table = np.array([[np.float32(0.01 * (i // 3) - c) for c in range(2)] for i in range(rows)], dtype=np.float32)
    for name, codec in codecs.items():
        # Blosc shuffles bits only where the elements are a multiple of 8.
        chunks = (160, 2) if "bits" in name else (161, 2)
        root.create_dataset(f"data/{name}", data=table, chunks=chunks, compressor=codec)
    root.create_dataset("data/action", data=table, chunks=(161, 2), compressor=blosc("lz4", 1))
    root.create_dataset("data/doubles", data=table.astype(np.float64), chunks=(256, 1), compressor=blosc("lz4", 1))
    root.create_dataset("data/fortran", data=table, chunks=(64, 2), compressor=None, order="F")
    root.create_dataset("data/img", data=np.zeros((rows, 2, 2, 3), np.uint8), chunks=(100, 2, 2, 3), compressor=blosc("lz4", 1))
    root.create_dataset("data/filtered", data=table.astype(np.int32), filters=[numcodecs.Delta("i4")], compressor=None)
    root.create_dataset("meta/episode_ends", data=np.array(ends, dtype=np.int64), compressor=None)
    store.close()


def avoid(path):
    """One episode of D3IL Avoid."""
    n = 6
    robot = {name: floats(0, n, width) / 10 for name, width in [("des_c_pos", 3), ("c_pos", 3), ("j_pos", 7), ("c_quat", 4)]}
    robot["time_stamp"] = 0.035 * np.arange(n)
    with open(path, "wb") as f:
        pickle.dump({"robot": robot}, f, protocol=4)


def furniture(path, episode, success):
    """One episode of FurnitureBench: in simulation, one observation more than actions."""
    n = LENGTHS[episode]
    turn = 0.05
    observation = lambda t: {
        "color_image1": pictures(episode, 1)[0],
        "robot_state": {
            "ee_pos": np.array([value(episode, t, c) for c in range(3)], np.float32),
            "ee_quat": np.array([0, 0, np.sin(0.1 * t), np.cos(0.1 * t)], np.float32),
            "ee_pos_vel": np.zeros(3, np.float32),
            "ee_ori_vel": np.zeros(3, np.float32),
            "gripper_width": np.array([0.065], np.float32),
        },
        "parts_poses": np.array([value(episode, t, c) for c in range(14)], np.float32),
    }
    action = lambda t: np.array([0.1, -0.01, 0, 0, 0, np.sin(turn / 2), np.cos(turn / 2), 1 if t % 2 else -1], np.float32)
    data = {
        "observations": [observation(t) for t in range(n + 1)],
        "actions": [action(t) for t in range(n)],
        "rewards": [0] * (n - 1) + [np.float32(1.0)],
        "skills": [0] * n,
        "success": success,
        "furniture": "one_leg",
        "error": False,
        "error_description": "",
        "metadata": {"scale": 1.5},
    }
    with open(path, "wb") as f:
        pickle.dump(data, f)


def lerobot(path):
    """Three episodes without pictures, by LeRobot's own writer."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    shutil.rmtree(path, ignore_errors=True)
    features = {
        "observation.state": {"dtype": "float32", "shape": (4,), "names": ["a", "b", "c", "d"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    }
    data = LeRobotDataset.create("tenon/test", fps=10, features=features, root=path, robot_type="panda", use_videos=False)
    for k, n in enumerate(LENGTHS):
        for t in range(n):
            data.add_frame(
                {
                    "observation.state": floats(k, n, 4, np.float32)[t],
                    "action": floats(k, n, 2, np.float32)[t],
                    "next.reward": np.array([float(t)], np.float32),
                    "next.success": np.array([k != 1 and t == n - 1]),
                    "task": "push" if k == 1 else "pull",
                }
            )
        data.save_episode()
    data.finalize()


if __name__ == "__main__":
    robomimic(HERE / "robomimic.hdf5")
    robomimic(HERE / "robomimic_latest.hdf5", libver="latest")
    d4rl(HERE / "d4rl.hdf5")
    zarr_store(HERE / "store.zarr.zip")
    avoid(HERE / "avoid.pkl")
    (HERE / "furniture").mkdir(exist_ok=True)
    furniture(HERE / "furniture" / "2023-01-01T10:00:00.pkl", 0, True)
    furniture(HERE / "furniture" / "2023-01-01T10:05:00.pkl", 1, False)
    if "lerobot" in sys.argv[1:]:
        lerobot(HERE / "lerobot")

"""The original loaders open what Tenon wrote; tests/interop/data.sh calls this.

    data.py video DIR        LeRobot writes a data set with video
    data.py WRITTEN FILES    folder of what `tenon-train data convert` wrote, folder of the files it was made from
"""

import sys
from pathlib import Path

import h5py
import numpy as np

WRITTEN, FILES = Path(sys.argv[1]), Path(sys.argv[2])
CAMERA = "observation.images.front"
LENGTHS = [5, 3, 4]


def value(episode, frame, column):
    """The formula of make.py."""
    return episode + 0.25 * frame - 0.125 * column


def rows(episode, width, scale=1.0):
    return scale * np.array([[value(episode, t, c) for c in range(width)] for t in range(LENGTHS[episode])])


def same_hdf5():
    """h5py sees every data set and attribute that was in the original."""
    with h5py.File(FILES / "robomimic.hdf5") as a, h5py.File(WRITTEN / "again.hdf5") as b:
        names = []
        a.visit(names.append)
        # Recorded at a rate of its own, and so left out.
        names = [name for name in names if "device" not in name]
        for name in names:
            if isinstance(a[name], h5py.Dataset):
                assert np.array_equal(a[name][()], b[name][()]), name
            for key, attribute in a[name].attrs.items():
                assert b[name].attrs[key] == attribute, (name, key)
        print(f"h5py: {len(names)} members equal")


def robomimic_loads(path, keys, episodes):
    from robomimic.utils.dataset import SequenceDataset
    import robomimic.utils.file_utils as FileUtils
    import robomimic.utils.obs_utils as ObsUtils

    ObsUtils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": list(keys)}})
    meta = FileUtils.get_env_metadata_from_dataset(str(path))
    data = SequenceDataset(
        hdf5_path=str(path),
        obs_keys=tuple(keys),
        dataset_keys=("actions", "rewards", "dones"),
        frame_stack=1,
        seq_length=1,
        hdf5_cache_mode=None,
        load_next_obs=False,
    )
    assert len(data) == sum(LENGTHS), len(data)
    actions = np.concatenate([data[i]["actions"] for i in range(len(data))])
    assert np.allclose(actions, episodes, atol=1e-6)
    print(f"robomimic: {path.name}: environment {meta['env_name']}, {len(data)} samples")


def lerobot_loads(path, state, actions, tasks):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset("tenon/interop", root=path)
    assert data.num_episodes == 3 and data.num_frames == sum(LENGTHS), (data.num_episodes, data.num_frames)
    items = [data[i] for i in range(len(data))]
    assert np.allclose(np.stack([i["observation.state"].numpy() for i in items]), state, atol=1e-6)
    assert np.allclose(np.stack([i["action"].numpy() for i in items]), actions, atol=1e-6)
    assert [int(i["episode_index"]) for i in items] == [k for k, n in enumerate(LENGTHS) for _ in range(n)]
    assert [i["task"] for i in items] == [tasks[k] for k, n in enumerate(LENGTHS) for _ in range(n)]
    stats = data.meta.stats["action"]
    assert np.allclose(stats["min"], actions.min(0), atol=1e-6) and np.allclose(stats["std"], actions.std(0), atol=1e-6)
    # Windows over time are what policies are trained on; they cross no end of an episode.
    window = LeRobotDataset("tenon/interop", root=path, delta_timestamps={"action": [0.0, 1.0 / data.fps]})
    item = window[LENGTHS[0] - 1]
    assert item["action"].shape[0] == 2 and bool(item["action_is_pad"][1])
    print(f"lerobot: {path.name}: {data.num_episodes} episodes, {data.num_frames} frames, {data.fps} Hz")


def npz_holds():
    """The authors' loader is `numpy.load` and these names."""
    data, limits = np.load(WRITTEN / "npz/train.npz"), np.load(WRITTEN / "npz/normalization.npz")
    states = np.concatenate([rows(k, 11) for k in range(3)])
    low, high = states.min(0), states.max(0)
    assert np.allclose(limits["obs_min"], low) and np.allclose(limits["obs_max"], high)
    assert np.allclose(data["states"], 2 * (states - low) / (high - low + 1e-6) - 1, atol=1e-5)
    assert data["states"].dtype == np.float32 and data["traj_lengths"].tolist() == LENGTHS
    assert data["terminals"].dtype == bool and data["rewards"].shape == (sum(LENGTHS),)
    print("numpy: train.npz and normalization.npz agree")


def write_video(root):
    """Episodes one behind the other in one file: the left half grows lighter, the right one tells the episode."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    vector = lambda *names: {"dtype": "float32", "shape": (len(names),), "names": list(names)}
    picture = {"dtype": "video", "shape": (96, 128, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector("k", "t"), "action": vector("t", "k"), CAMERA: picture}
    data = LeRobotDataset.create("tenon/video", fps=10, features=features, root=root, use_videos=True)
    for k, n in enumerate(LENGTHS):
        for t in range(n):
            image = np.full((96, 128, 3), 60 * k + 20, np.uint8)
            image[:, :64] = 20 * t + 10
            state = np.array([k, t], np.float32)
            data.add_frame({"observation.state": state, "action": state[::-1].copy(), CAMERA: image, "task": "look"})
        data.save_episode()
    data.finalize()


def video_was_decoded():
    with h5py.File(WRITTEN / "video.hdf5") as f:
        for k, n in enumerate(LENGTHS):
            frames = f[f"data/demo_{k}/obs/images.front"][()].astype(int)
            assert frames.shape == (n, 96, 128, 3), frames.shape
            assert all(abs(frames[t, 48, 30] - (20 * t + 10)).max() <= 3 for t in range(n)), frames[:, 48, 30]
            assert all(abs(frames[t, 48, 100] - (60 * k + 20)).max() <= 3 for t in range(n)), frames[:, 48, 100]
    print("ffmpeg: every frame of the video is in its place")


if __name__ == "__main__":
    if sys.argv[1] == "video":
        sys.exit(write_video(sys.argv[2]))
    join = lambda parts: np.concatenate(parts)
    same_hdf5()
    npz_holds()
    video_was_decoded()
    keys = ["robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object"]
    robomimic_loads(WRITTEN / "again.hdf5", keys, join([rows(k, 7, 0.1) for k in range(3)]))
    robomimic_loads(WRITTEN / "from_lerobot.hdf5", ["state"], join([rows(k, 2) for k in range(3)]))
    state = join([np.concatenate([rows(k, w) for w in (3, 4, 2, 5)], axis=1) for k in range(3)])
    lerobot_loads(
        WRITTEN / "from_robomimic", state, join([rows(k, 7, 0.1) for k in range(3)]), ["lift the cube"] * 3
    )
    lerobot_loads(
        WRITTEN / "again_lerobot",
        join([rows(k, 4) for k in range(3)]),
        join([rows(k, 2) for k in range(3)]),
        ["pull", "push", "pull"],
    )

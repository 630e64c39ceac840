#!/usr/bin/env python3
"""Draws scenes with MuJoCo's Python renderer for a comparison with Tenon's: `pictures.py FOLDER [SCENE.xml CAMERA]…`.

Each case is a JSON file beside its scene and its picture (raw bytes, row 0 at the top); see
runtime/sim/tests/picture_interop.rs. With robosuite in the environment its own scenes (Lift, Can, Square, Transport) are drawn too,
once more by robosuite's own off-screen rendering where that works.
"""

import json
import os
import sys
from xml.etree import ElementTree

import mujoco
import numpy as np

# Shadows, a mirror, textures, a mesh, something transparent, a spot and a directional light.
SCENE = """<mujoco>
<visual><quality shadowsize="1024"/><headlight ambient="0.2 0.2 0.2" diffuse="0.3 0.3 0.3"/></visual>
<asset>
<texture type="skybox" builtin="gradient" rgb1="0.4 0.6 0.8" rgb2="0 0 0" width="64" height="64"/>
<texture name="checks" type="2d" builtin="checker" rgb1="0.1 0.2 0.3" rgb2="0.8 0.8 0.7" width="128" height="128"/>
<texture name="cube" type="cube" builtin="flat" mark="cross" rgb1="0.7 0.3 0.2" rgb2="0.2 0.7 0.3" markrgb="1 1 1" width="64" height="64"/>
<material name="floor" texture="checks" texrepeat="4 4" reflectance="0.3"/>
<material name="cube" texture="cube" specular="0.8" shininess="0.6"/>
<mesh name="wedge" vertex="0 0 0  0.4 0 0  0 0.4 0  0.4 0.4 0  0 0 0.3  0 0.4 0.3"/>
</asset>
<worldbody>
<light pos="0.5 -0.5 2" dir="-0.2 0.2 -1" directional="false" cutoff="60" diffuse="0.7 0.7 0.7"/>
<light pos="-1 1 2" dir="0.5 -0.5 -1" directional="true" diffuse="0.3 0.3 0.4"/>
<camera name="front" pos="0 -1.8 0.9" xyaxes="1 0 0 0 0.45 0.9"/>
<camera name="above" pos="0.1 -0.1 2.2" xyaxes="1 0 0 0 1 0" fovy="60"/>
<geom type="plane" size="2 2 0.1" material="floor"/>
<geom type="mesh" mesh="wedge" pos="-0.7 0.1 0" rgba="0.8 0.7 0.2 1"/>
<geom type="sphere" size="0.15" pos="0.5 -0.3 0.15" rgba="0.3 0.5 0.9 0.5"/>
<geom type="capsule" size="0.06" fromto="-0.2 -0.4 0.1 0.1 -0.5 0.4" rgba="0.2 0.8 0.4 1"/>
<geom type="box" size="0.5 0.01 0.5" pos="0 -1 0.5" rgba="1 0 0 1" group="3"/>
<body pos="0.1 0.2 0.4"><freejoint/><geom type="box" size="0.15 0.1 0.2" material="cube"/></body>
</worldbody>
</mujoco>
"""

USUAL = [True, True, True, False, False, False]
VISUALS = [False, True, False, False, False, False]


def draw(model, data, camera, width, height, groups):
    option = mujoco.MjvOption()
    option.geomgroup[:] = groups
    option.sitegroup[:] = 0
    # The renderer wants an off-screen buffer that is at least as large.
    model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
    model.vis.global_.offheight = max(height, model.vis.global_.offheight)
    renderer = mujoco.Renderer(model, height, width)
    renderer.update_scene(data, camera, option)
    picture = renderer.render().copy()
    renderer.close()
    return picture


def write(folder, name, model_file, picture, camera, groups, qpos, fast_difference):
    height, width, _ = picture.shape
    picture.tofile(os.path.join(folder, name + ".rgb"))
    case = {
        "model": model_file,
        "camera": camera,
        "width": width,
        "height": height,
        "geom_groups": [bool(group) for group in groups],
        "qpos": [float(value) for value in qpos],
        "picture": name + ".rgb",
        "fast_difference": fast_difference,
    }
    with open(os.path.join(folder, name + ".json"), "w") as file:
        json.dump(case, file)
    print(f"{name}: {width}x{height} through {camera}, mean {picture.mean():.1f}")


def own_scene(folder):
    with open(os.path.join(folder, "effects.xml"), "w") as file:
        file.write(SCENE)
    model = mujoco.MjModel.from_xml_path(os.path.join(folder, "effects.xml"))
    data = mujoco.MjData(model)
    for steps, camera, size in [(0, "front", (96, 96)), (60, "front", (321, 200)), (200, "above", (96, 96))]:
        mujoco.mj_resetData(model, data)
        for _ in range(steps):
            mujoco.mj_step(model, data)
        qpos = data.qpos.copy()
        # A world whose warm start or clock does not matter: as the other side sets it up.
        data = mujoco.MjData(model)
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        picture = draw(model, data, camera, *size, USUAL)
        write(folder, f"effects-{camera}-{steps}", "effects.xml", picture, camera, USUAL, qpos, 60.0)


def other_scene(folder, path, camera):
    model = mujoco.MjModel.from_xml_path(path)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    name = os.path.splitext(os.path.basename(path))[0] + "-" + camera
    picture = draw(model, data, camera, 96, 96, VISUALS)
    write(folder, name, os.path.abspath(path), picture, camera, VISUALS, data.qpos, 60.0)


def with_moved_bodies(env):
    """The scene's text with bodies where the reset put them: the targets of Can are moved in the compiled model."""
    scene = ElementTree.fromstring(env.model.get_xml())
    compiled = mujoco.MjModel.from_xml_string(env.model.get_xml())
    for body in scene.iter("body"):
        place = mujoco.mj_name2id(compiled, mujoco.mjtObj.mjOBJ_BODY, body.get("name"))
        moved = env.sim.model.body_pos[place]
        if np.any(moved != compiled.body_pos[place]):
            body.set("pos", " ".join(repr(float(value)) for value in moved))
    return ElementTree.tostring(scene, encoding="unicode")


def robosuite_scenes(folder):
    try:
        import robosuite
    except ImportError:
        print("robosuite is not in this environment: its scenes are left out")
        return
    one, two = "Panda", ["Panda", "Panda"]
    tasks = [
        ("Lift", one, ["robot0_eye_in_hand"]),
        ("PickPlaceCan", one, ["robot0_eye_in_hand"]),
        ("NutAssemblySquare", one, ["agentview"]),
        ("TwoArmTransport", two, ["shouldercamera0", "shouldercamera1"]),
    ]
    for task, robots, cameras in tasks:
        np.random.seed(0)
        by_itself = os.environ.get("MUJOCO_GL") == "osmesa"
        env = robosuite.make(
            task, robots=robots, has_renderer=False, has_offscreen_renderer=by_itself, use_camera_obs=by_itself,
            camera_names=cameras, camera_heights=96, camera_widths=96, control_freq=20)
        observation = env.reset()
        model_file = os.path.join(folder, task + ".xml")
        with open(model_file, "w") as file:
            file.write(with_moved_bodies(env))
        qpos = np.array(env.sim.data.qpos)
        model = mujoco.MjModel.from_xml_path(model_file)
        data = mujoco.MjData(model)
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        for camera in cameras:
            name = f"{task}-{camera}"
            if by_itself:
                # robosuite gives pictures bottom row first.
                picture = np.ascontiguousarray(observation[camera + "_image"][::-1])
                write(folder, name + "-robosuite", task + ".xml", picture, camera, VISUALS, qpos, 60.0)
            picture = draw(model, data, camera, 96, 96, VISUALS)
            write(folder, name + "-renderer", task + ".xml", picture, camera, VISUALS, qpos, 60.0)
        env.close()


def main():
    folder, scenes = sys.argv[1], sys.argv[2:]
    os.makedirs(folder, exist_ok=True)
    own_scene(folder)
    for path, camera in zip(scenes[::2], scenes[1::2]):
        other_scene(folder, path, camera)
    robosuite_scenes(folder)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The peer of `tenon-train bench-render`: draws one model with mujoco.Renderer and says what each picture took.

    python trainer/peer/render.py '{"model": "lift.xml", "camera": "frontview", "geom_groups": [false, true, …],
                                    "width": 96, "height": 96, "repetitions": 50, "physics_steps": 25}'

prints {"peer": "mujoco.Renderer 3.3.7", "cpu": [seconds of the processor for each picture]}. MUJOCO_GL chooses the
platform; without it and without a display EGL is taken.
"""

import json
import os
import sys
import time

os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco  # noqa: E402  (after the platform is chosen)

WARM_UP = 3


def main():
    request = json.loads(sys.argv[1])
    model = mujoco.MjModel.from_xml_path(request["model"])
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    option = mujoco.MjvOption()
    option.geomgroup[:] = request["geom_groups"]
    option.sitegroup[:] = 0
    renderer = mujoco.Renderer(model, request["height"], request["width"])
    camera = request["camera"] if request["camera"] is not None else -1
    seconds = []
    for repetition in range(WARM_UP + request["repetitions"]):
        begun = time.process_time()
        for _ in range(request["physics_steps"]):
            mujoco.mj_step(model, data)
        renderer.update_scene(data, camera, option)
        renderer.render()
        if repetition >= WARM_UP:
            seconds.append(time.process_time() - begun)
    print(json.dumps({"peer": "mujoco.Renderer " + mujoco.__version__, "cpu": seconds}))
    renderer.close()


if __name__ == "__main__":
    main()

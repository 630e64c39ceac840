#!/usr/bin/env python3
"""The environment bench's peer: steps the same rows of control steps as Tenon does, on request.

A request is one JSON object a line on standard input, its answer one on standard output:

    {"what": "rollout", "trace": "FOLDER", "threads": 1}
        mujoco.rollout over every row of the trace: physics alone, with the controls that Tenon's environments gave.
        The folder has model.mjb, states.f64 (rows, size of mjSTATE_INTEGRATION), controls.f64 (rows, physics steps, nu),
        actions.f64 (rows, control steps, action values), and their shapes in trace.json.
    {"what": "python", "task": "lift", "trace": "FOLDER", "frame": null}
        gymnasium or robosuite 1.4.1 step one environment with the actions, row after row, each after a reset that is not
        timed. With "frame": 96 robosuite renders its camera off screen too.

    {"name": "mujoco.rollout 3.3.7", "steps": 4000, "wall": 1.02, "cpu": 1.01}

steps: control steps of "python", physics steps of "rollout"; wall and cpu in seconds; or {"error": "…"}. The process ends
with its input.
"""

import argparse
import json
import os
import sys
import time
import types
import warnings

# Read when mujoco and robosuite are loaded: without a card their usual back end, GLFW, wants a display.
os.environ.setdefault("MUJOCO_GL", "osmesa")
# One environment has one thread; the libraries' own would only count as time.
for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np

GYM = {"hopper": "Hopper-v4", "walker2d": "Walker2d-v4", "half_cheetah": "HalfCheetah-v4"}
ROBOSUITE = {"lift": "Lift", "can": "PickPlaceCan", "square": "NutAssemblySquare", "transport": "TwoArmTransport"}


def load(folder, name):
    with open(os.path.join(folder, "trace.json")) as file:
        shape = json.load(file)[name]
    return np.fromfile(os.path.join(folder, f"{name}.f64"), dtype="<f8").reshape(shape)


class Rollout:
    """The physics of a trace, as mujoco.rollout steps them. Prepared once, so only the stepping is timed."""

    def __init__(self, request):
        import mujoco
        import mujoco.rollout

        self.name = f"mujoco.rollout {mujoco.__version__}"
        self.model = mujoco.MjModel.from_binary_path(os.path.join(request["trace"], "model.mjb"))
        self.controls = load(request["trace"], "controls")
        full, rows = mujoco.mjtState.mjSTATE_FULLPHYSICS, len(self.controls)
        self.states = np.empty((rows, mujoco.mj_stateSize(self.model, full)))
        self.warm_starts = np.empty((rows, self.model.nv))
        data = mujoco.MjData(self.model)
        for row, state in enumerate(load(request["trace"], "states")):
            mujoco.mj_setState(self.model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
            mujoco.mj_getState(self.model, data, self.states[row], full)
            self.warm_starts[row] = data.qacc_warmstart
        steps = self.controls.shape[1]
        self.out = np.empty((rows, steps, self.states.shape[1]))
        self.sensors = np.empty((rows, steps, self.model.nsensordata))
        self.steps = rows * steps
        threads = int(request["threads"])
        self.data = [mujoco.MjData(self.model) for _ in range(threads)]
        # 0: the calling thread.
        self.pool = mujoco.rollout.Rollout(nthread=threads if threads > 1 else 0)

    def run(self):
        self.pool.rollout(
            self.model,
            self.data,
            self.states,
            self.controls,
            initial_warmstart=self.warm_starts,
            state=self.out,
            sensordata=self.sensors,
        )
        return self.steps


class Python:
    """One environment of gymnasium or robosuite, a row after the other."""

    def __init__(self, request):
        self.actions = load(request["trace"], "actions")
        task, frame = request["task"], request.get("frame")
        if task in GYM:
            # Only for videos.
            sys.modules.setdefault("imageio", types.ModuleType("imageio"))
            import gymnasium

            self.name = f"gymnasium {gymnasium.__version__}"
            with warnings.catch_warnings():
                # v4 has the formulas of the paper's v2; gymnasium recommends v5, which pays another reward.
                warnings.simplefilter("ignore")
                self.env = gymnasium.make(GYM[task], disable_env_checker=True).unwrapped
            self.reset, self.step = (lambda: self.env.reset(seed=0)), self.env.step
        else:
            # Only for keyboards, and it wants kernel headers: a stand-in.
            keyboard = types.ModuleType("pynput.keyboard")
            keyboard.Controller = keyboard.Key = keyboard.Listener = object
            sys.modules.setdefault("pynput", types.ModuleType("pynput")).keyboard = keyboard
            sys.modules.setdefault("pynput.keyboard", keyboard)
            import robosuite

            self.name = f"robosuite {robosuite.__version__}"
            robots = ["Panda", "Panda"] if task == "transport" else "Panda"
            camera = {"lift": "robot0_eye_in_hand", "can": "robot0_eye_in_hand", "square": "agentview"}.get(task, "shouldercamera0")
            pixels = {"has_offscreen_renderer": False, "use_camera_obs": False}
            if frame:
                pixels = {
                    "has_offscreen_renderer": True,
                    "use_camera_obs": True,
                    "camera_names": camera,
                    "camera_heights": int(frame),
                    "camera_widths": int(frame),
                }
            self.env = robosuite.make(
                ROBOSUITE[task],
                robots=robots,
                controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
                has_renderer=False,
                use_object_obs=True,
                control_freq=20,
                hard_reset=False,
                ignore_done=True,
                **pixels,
            )
            self.reset, self.step = self.env.reset, self.env.step

    def run(self):
        """Times itself: resets do not count."""
        watch = Watch()
        for row in self.actions:
            self.reset()
            watch.start()
            for action in row:
                self.step(action)
            watch.stop()
        return self.actions.shape[0] * self.actions.shape[1], watch


class Watch:
    def __init__(self):
        self.wall, self.cpu = 0.0, 0.0

    def start(self):
        self.began = time.perf_counter(), time.process_time()

    def stop(self):
        self.wall += time.perf_counter() - self.began[0]
        self.cpu += time.process_time() - self.began[1]


def answer(request, prepared):
    key = json.dumps(request, sort_keys=True)
    if key not in prepared:
        prepared[key] = {"rollout": Rollout, "python": Python}[request["what"]](request)
        if request["what"] == "rollout":
            prepared[key].run()
    case = prepared[key]
    if request["what"] == "python":
        steps, watch = case.run()
    else:
        watch = Watch()
        watch.start()
        steps = case.run()
        watch.stop()
    return {"name": case.name, "steps": steps, "wall": watch.wall, "cpu": watch.cpu}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    # Answers go to the pipe; whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    prepared = {}
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line), prepared)
        except Exception as e:  # Every failure is the bench's to report, with its cause.
            reply = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

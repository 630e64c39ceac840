"""Polymetis controllers under PyTorch: Tenon's archives are loaded and run, and archives scripted here are written.

    torchscript.py write FOLDER   scripts laws built like Polymetis' own and runs them       -> FOLDER/made
    torchscript.py check FOLDER   runs Tenon's archives and compares 10 000 steps of each    <- FOLDER/ours
"""

import pathlib
import subprocess
import sys
import tempfile
from typing import Dict, List

import numpy as np
import torch

STEPS = 10_000
TOLERANCE = 1e-5
NAMES = ["joint_positions", "joint_velocities", "motor_torques_measured", "motor_torques_external"]

# The server's custom class, with the formulas of runtime/polymetis/tests/common/bench.rs for a robot.
MODEL = r"""
#include <torch/script.h>
#include <cmath>
struct Model : torch::CustomClassHolder {
  std::string urdf;
  explicit Model(std::string text) : urdf(std::move(text)) {}
  torch::Tensor compute_jacobian(torch::Tensor q, int64_t frame) {
    auto x = q.to(torch::kFloat64).contiguous();
    auto out = torch::zeros({6, 7}, torch::kFloat64);
    for (int r = 0; r < 6; r++)
      for (int i = 0; i < 7; i++)
        out[r][i] = 0.5 * std::sin(x.data_ptr<double>()[i] + 0.7 * r + 0.3 * i + 0.01 * frame);
    return out;
  }
  torch::Tensor inverse_dynamics(torch::Tensor q, torch::Tensor v, torch::Tensor a) {
    auto x = q.to(torch::kFloat64).contiguous(), y = v.to(torch::kFloat64).contiguous(), z = a.to(torch::kFloat64).contiguous();
    const double *p = x.data_ptr<double>(), *w = y.data_ptr<double>(), *b = z.data_ptr<double>();
    auto out = torch::zeros({7}, torch::kFloat64);
    for (int i = 0; i < 7; i++)
      out.data_ptr<double>()[i] = 10.0 * std::sin(p[i]) + 0.4 * w[i] * w[(i + 1) % 7] * std::cos(p[i]) + b[i];
    return out;
  }
  int64_t get_link_idx_from_name(std::string name) { return 17; }
};
static auto registered = torch::class_<Model>("torchscript_pinocchio", "RobotModelPinocchio")
  .def(torch::init<std::string>())
  .def("compute_jacobian", &Model::compute_jacobian)
  .def("inverse_dynamics", &Model::inverse_dynamics)
  .def("get_link_idx_from_name", &Model::get_link_idx_from_name)
  .def_pickle([](const c10::intrusive_ptr<Model>& m) -> std::string { return m->urdf; },
              [](std::string text) -> c10::intrusive_ptr<Model> { return c10::make_intrusive<Model>(std::move(text)); });
"""


def load_model_class():
    root = pathlib.Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        source, library = pathlib.Path(folder, "model.cpp"), pathlib.Path(folder, "model.so")
        source.write_text(MODEL)
        standard = "c++17" if int(torch.__version__.split(".")[0]) >= 2 else "c++14"
        subprocess.run(
            ["g++", "-shared", "-fPIC", "-O1", "-w", f"-std={standard}", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
             f"-I{root}/include", f"-I{root}/include/torch/csrc/api/include", str(source), "-o", str(library),
             f"-L{root}/lib", "-ltorch", "-ltorch_cpu", "-lc10"], check=True)
        torch.classes.load_library(str(library))


def state_of(row: torch.Tensor) -> Dict[str, torch.Tensor]:
    state = {name: row[i] for i, name in enumerate(NAMES)}
    state["timestamp"] = torch.tensor([0, 0], dtype=torch.int32)
    return state


# Laws built like Polymetis' own: parameters in a dict that update writes into, gains in sub-modules, a wrapped robot model.


class Feedback(torch.nn.Module):
    def __init__(self, kp: List[float], kd: List[float]):
        super().__init__()
        self.Kp = torch.nn.Parameter(torch.diag(torch.tensor(kp)))
        self.Kd = torch.nn.Parameter(torch.diag(torch.tensor(kd)))

    def forward(self, q: torch.Tensor, v: torch.Tensor, q_d: torch.Tensor, v_d: torch.Tensor) -> torch.Tensor:
        return self.Kp @ (q_d - q) + self.Kd @ (v_d - v)


class Robot(torch.nn.Module):
    def __init__(self, urdf: str):
        super().__init__()
        self.model = torch.classes.torchscript_pinocchio.RobotModelPinocchio(urdf)
        self.link: str = "panda_link8"
        self.link_index: int = self.model.get_link_idx_from_name("panda_link8")

    def jacobian(self, q: torch.Tensor) -> torch.Tensor:
        return self.model.compute_jacobian(q, self.link_index).to(q)

    def dynamics(self, q: torch.Tensor, v: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return self.model.inverse_dynamics(q, v, a).to(q)


class Feedforward(torch.nn.Module):
    def __init__(self, robot: Robot, ignore_gravity: bool):
        super().__init__()
        self.robot = robot
        self.ignore_gravity = ignore_gravity

    def forward(self, q: torch.Tensor, v: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        torque = self.robot.dynamics(q, v, a)
        if self.ignore_gravity:
            torque = torque - self.robot.dynamics(q, torch.zeros_like(v), torch.zeros_like(a))
        return torque


class Base(torch.nn.Module):
    param_dict: Dict[str, torch.Tensor]

    def __init__(self):
        super().__init__()
        self._terminated: bool = False
        self.q_d = torch.nn.Parameter(torch.zeros(7))
        self.v_d = torch.nn.Parameter(torch.zeros(7))
        self.param_dict = {"_": torch.zeros(0), "joint_pos_desired": self.q_d}

    @torch.jit.export
    def update(self, values: Dict[str, torch.Tensor]) -> None:
        for key in values.keys():
            if key in self.param_dict:
                self.param_dict[key].data.copy_(values[key])
            else:
                raise KeyError("unknown parameter")

    @torch.jit.export
    def is_terminated(self) -> bool:
        return self._terminated


class Impedance(Base):
    def __init__(self, kp: List[float], kd: List[float]):
        super().__init__()
        self.robot = Robot("<robot/>")
        self.feedback = Feedback(kp, kd)
        self.feedforward = Feedforward(self.robot, True)

    def forward(self, state: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        q, v = state["joint_positions"], state["joint_velocities"]
        torque = self.feedback(q, v, self.q_d, self.v_d) + self.feedforward(q, v, torch.zeros_like(q))
        return {"joint_torques": torque}


class Adaptive(Base):
    def __init__(self, kq: List[float], kqd: List[float], kx: List[float], kxd: List[float]):
        super().__init__()
        self.robot = Robot("<robot/>")
        self.joints = Feedback(kq, kqd)
        self.Kx = torch.nn.Parameter(torch.diag(torch.tensor(kx)))
        self.Kxd = torch.nn.Parameter(torch.diag(torch.tensor(kxd)))
        self.feedforward = Feedforward(self.robot, True)

    def forward(self, state: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        q, v = state["joint_positions"], state["joint_velocities"]
        J = self.robot.jacobian(q)
        Kp = J.transpose(0, 1) @ self.Kx @ J + self.joints.Kp
        Kd = J.t() @ self.Kxd @ J + self.joints.Kd
        torque = Kp @ (self.q_d - q) + Kd @ (self.v_d - v) + self.feedforward(q, v, torch.zeros_like(v))
        return {"joint_torques": torque}


class Executor(Base):
    """A stored trajectory, one row a step; ends itself."""

    def __init__(self, positions: torch.Tensor, velocities: torch.Tensor, kp: List[float], kd: List[float]):
        super().__init__()
        self.positions = positions
        self.velocities = velocities
        self.feedback = Feedback(kp, kd)
        self.i = 0
        self.N = positions.shape[0]

    def forward(self, state: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        row = self.feedback(state["joint_positions"], state["joint_velocities"], self.positions[self.i, :], self.velocities[self.i])
        self.i += 1
        if self.i == self.N:
            self._terminated = True
        return {"joint_torques": row}


class Integrator(Base):
    """Velocity control: the target moves on every step; limits and a low-pass besides, to use more operators."""

    def __init__(self, kp: List[float], kd: List[float]):
        super().__init__()
        self.feedback = Feedback(kp, kd)
        self.i: int = 0
        self.q_i = torch.zeros(7)
        self.smooth = torch.zeros(7)

    @torch.jit.export
    def reset(self) -> None:
        self.i = 0

    def forward(self, state: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        q, v = state["joint_positions"], state["joint_velocities"]
        if self.i == 0:
            self.q_i = q.clone()
        self.q_i += self.q_d / 1000.0
        self.q_i = torch.max(torch.min(self.q_i, q + 0.2), q - 0.2)
        self.i += 1
        gains = [0.9, 0.1]
        a, b = gains[0], gains[-1]
        self.smooth = self.smooth * a + state["motor_torques_external"].clamp(-0.5, 0.5) * b
        torque = self.feedback(q, v, self.q_i, self.q_d)
        for j in range(7):
            if bool(torch.abs(torque[j]) > 30.0):
                torque[j] = torch.sign(torque[j]) * 30.0
        scale = 1.0 if float(torch.sqrt(torch.sum(torch.square(v)))) < 1.0 else 0.5
        parts = torch.cat([torque[:3] * scale, torque[3:7]], 0)
        return {"joint_torques": torch.where(parts.isnan(), torch.zeros_like(parts), parts) - self.smooth}


class Container(torch.nn.Module):
    param_dict: Dict[str, torch.Tensor]

    def __init__(self, values: Dict[str, torch.Tensor]):
        super().__init__()
        self.param_dict = values

    def forward(self) -> Dict[str, torch.Tensor]:
        return self.param_dict


def write(folder: pathlib.Path):
    kq, kqd = [40.0, 30.0, 50.0, 25.0, 35.0, 25.0, 10.0], [4.0, 6.0, 5.0, 5.0, 3.0, 2.0, 1.0]
    kx, kxd = [750.0, 750.0, 750.0, 15.0, 15.0, 15.0], [37.0, 37.0, 37.0, 2.0, 2.0, 2.0]
    random = np.random.default_rng(5)
    middle = np.array([0.0, 0.3, 0.1, -2.0, 0.0, 2.4, 0.5])
    trajectory = torch.tensor(middle + 0.1 * np.sin(np.arange(3000)[:, None] * 1e-3 * np.arange(1, 8)), dtype=torch.float32)
    laws = {
        "impedance": Impedance(kq, kqd),
        "adaptive": Adaptive(kq, kqd, kx, kxd),
        "executor": Executor(trajectory, trajectory * 0.1, kq, kqd),
        "integrator": Integrator(kq, kqd),
    }
    for name, law in laws.items():
        here = folder / "made" / name
        (here / "updates").mkdir(parents=True)
        with torch.no_grad():
            torch.jit.script(law).save(str(here / "controller.pt"))
            running = torch.jit.load(str(here / "controller.pt"))
            states = np.zeros((STEPS, 4, 7), dtype=np.float32)
            states[:, 0] = middle + 0.1 * random.uniform(-1, 1, (STEPS, 7))
            states[:, 1] = 0.5 * random.uniform(-1, 1, (STEPS, 7))
            states[:, 2:] = random.uniform(-1, 1, (STEPS, 2, 7))
            torques, lines = [], []
            for step in range(STEPS):
                if step % 97 == 3 and name != "executor":
                    values = torch.tensor(middle + 0.1 * random.uniform(-1, 1, 7), dtype=torch.float32)
                    file = here / "updates" / f"{len(lines)}.pt"
                    torch.jit.script(Container({"joint_pos_desired": values})).save(str(file))
                    running.update(torch.jit.load(str(file))())
                    lines.append(f"{step} {len(lines)}\n")
                torques.append(running(state_of(torch.from_numpy(states[step])))["joint_torques"].numpy().copy())
                if running.is_terminated():
                    break
        (here / "updates.txt").write_text("".join(lines))
        (here / "states.f32").write_bytes(states.tobytes())
        (here / "torques.f32").write_bytes(np.array(torques, dtype=np.float32).tobytes())
        print(f"scripted {name}: {len(torques)} steps")


def check(folder: pathlib.Path):
    names = sorted(path.name for path in (folder / "ours").iterdir())
    assert len(names) >= 6, names
    for name in names:
        here = folder / "ours" / name
        states = np.fromfile(here / "states.f32", dtype=np.float32).reshape(-1, 4, 7)
        evaluator, law = (np.fromfile(here / file, dtype=np.float32).reshape(-1, 7) for file in ("evaluator.f32", "law.f32"))
        updates: Dict[int, list] = {}
        for line in (here / "updates.txt").read_text().splitlines():
            step, file, accepted = (int(word) for word in line.split())
            updates.setdefault(step, []).append((file, bool(accepted)))
        controller = torch.jit.load(str(here / "controller.pt"))
        torques, refused = np.zeros_like(law), 0
        with torch.no_grad():
            for step in range(len(states)):
                for file, accepted in updates.get(step, []):
                    values = torch.jit.load(str(here / "updates" / f"{file}.pt"))()
                    try:
                        controller.update(values)
                        ok = True
                    except RuntimeError as error:
                        ok = False
                        refused += 1
                        if name.startswith("waypoints"):
                            assert "plan: " in str(error), error
                    except Exception as error:  # torch.jit.Error is no RuntimeError in every version
                        assert type(error).__name__ == "Error" and "plan: " in str(error), error
                        ok = False
                        refused += 1
                    assert ok == accepted, f"{name}, step {step}: PyTorch says {ok}"
                torques[step] = controller.forward(state_of(torch.from_numpy(states[step])))["joint_torques"].numpy()
                assert not controller.is_terminated()
        scale = np.maximum(1.0, np.abs(torques).max(axis=1, keepdims=True))
        worst = [float((np.abs(torques - other) / scale).max()) for other in (evaluator, law)]
        print(f"{name}: {len(states)} steps, {sum(map(len, updates.values()))} updates ({refused} refused), "
              f"PyTorch against evaluator {worst[0]:.1e}, against the law {worst[1]:.1e}")
        assert max(worst) <= TOLERANCE, name


if __name__ == "__main__":
    torch.set_num_threads(1)
    load_model_class()
    {"write": write, "check": check}[sys.argv[1]](pathlib.Path(sys.argv[2]))

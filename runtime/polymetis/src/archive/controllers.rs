//! Writes controller archives: the stock laws (spec `polymetis.md` §5, §6.4). Tenon's own is in
//! [`waypoints`](crate::waypoints).
//!
//! Notation in the class text: `q`, `v` measured joint positions and velocities, `J` the 6×7 Jacobian
//! at the end-effector frame, `c` the Coriolis torque.

use super::parameters::write_module;
use super::pickle::PickleBuilder;
use super::{ArchiveError, FormatError, MAX_ARCHIVE_BYTES, TensorValue};

/// Index of the frame `panda_link8` in the robot model that the server builds from the Panda's URDF.
pub const PANDA_LINK8_FRAME: i64 = 17;

/// `kp·(qd − q) − kd·v`, element by element.
const PD_TEXT: &str = r#"class C(Module):
  qd : Tensor
  kp : Tensor
  kd : Tensor
  def forward(self: __torch__.C,
    s: Dict[str, Tensor]) -> Dict[str, Tensor]:
    e = torch.mul(self.kp, torch.sub(self.qd, s["joint_positions"]))
    d = torch.mul(self.kd, s["joint_velocities"])
    return {"joint_torques": torch.sub(e, d)}
  def is_terminated(self: __torch__.C) -> bool:
    return False
  def update(self: __torch__.C,
    u: Dict[str, Tensor]) -> NoneType:
    _0 = torch.copy_(self.qd, u["joint_pos_desired"])
    return None
"#;

/// `(JᵀKxJ + Kq)(qd − q) − (JᵀKxdJ + Kqd)v + c`.
const HYBRID_TEXT: &str = r#"class C(Module):
  qd : Tensor
  kq : Tensor
  kqd : Tensor
  kx : Tensor
  kxd : Tensor
  ee : int
  model : __torch__.torch.classes.torchscript_pinocchio.RobotModelPinocchio
  def forward(self: __torch__.C,
    s: Dict[str, Tensor]) -> Dict[str, Tensor]:
    q = s["joint_positions"]
    v = s["joint_velocities"]
    z = torch.zeros_like(q)
    m = self.model
    J = torch.to((m).compute_jacobian(q, self.ee), q)
    Jt = torch.t(J)
    P = torch.add(torch.matmul(torch.matmul(Jt, torch.diag(self.kx)), J), torch.diag(self.kq))
    D = torch.add(torch.matmul(torch.matmul(Jt, torch.diag(self.kxd)), J), torch.diag(self.kqd))
    f = torch.sub(torch.matmul(P, torch.sub(self.qd, q)), torch.matmul(D, v))
    c = torch.sub((m).inverse_dynamics(q, v, z), (m).inverse_dynamics(q, z, z))
    return {"joint_torques": torch.add(f, torch.to(c, q))}
  def is_terminated(self: __torch__.C) -> bool:
    return False
  def update(self: __torch__.C,
    u: Dict[str, Tensor]) -> NoneType:
    _0 = torch.copy_(self.qd, u["joint_pos_desired"])
    return None
"#;

/// `kp·(qd − q) − kd·v + c`, element by element.
const JOINT_IMPEDANCE_TEXT: &str = r#"class C(Module):
  qd : Tensor
  kp : Tensor
  kd : Tensor
  model : __torch__.torch.classes.torchscript_pinocchio.RobotModelPinocchio
  def forward(self: __torch__.C,
    s: Dict[str, Tensor]) -> Dict[str, Tensor]:
    q = s["joint_positions"]
    v = s["joint_velocities"]
    z = torch.zeros_like(q)
    m = self.model
    f = torch.sub(torch.mul(self.kp, torch.sub(self.qd, q)), torch.mul(self.kd, v))
    c = torch.sub((m).inverse_dynamics(q, v, z), (m).inverse_dynamics(q, z, z))
    return {"joint_torques": torch.add(f, torch.to(c, q))}
  def is_terminated(self: __torch__.C) -> bool:
    return False
  def update(self: __torch__.C,
    u: Dict[str, Tensor]) -> NoneType:
    _0 = torch.copy_(self.qd, u["joint_pos_desired"])
    return None
"#;

/// `kq·(q_hold − q) − kqd·v`; `q_hold` is the first state after loading or `reset`.
const DEFAULT_TEXT: &str = r#"class C(Module):
  kq : Tensor
  kqd : Tensor
  hold : Tensor
  holds : bool
  def forward(self: __torch__.C,
    s: Dict[str, Tensor]) -> Dict[str, Tensor]:
    q = s["joint_positions"]
    if self.holds:
      pass
    else:
      self.hold = torch.clone(q)
      self.holds = True
    e = torch.mul(self.kq, torch.sub(self.hold, q))
    d = torch.mul(self.kqd, s["joint_velocities"])
    return {"joint_torques": torch.sub(e, d)}
  def is_terminated(self: __torch__.C) -> bool:
    return False
  def reset(self: __torch__.C) -> NoneType:
    self.holds = False
    return None
"#;

/// A controller archive under construction: one class `C`, whose attributes come in the order that its text declares.
#[derive(Debug)]
pub(crate) struct ControllerArchiveBuilder {
    pickle: PickleBuilder,
}

impl ControllerArchiveBuilder {
    pub fn new() -> Self {
        Self { pickle: PickleBuilder::module("C") }
    }

    /// A float32 vector; `name` is what an error calls it.
    pub fn f32_vector(&mut self, attribute: &str, name: &'static str, values: &[f32]) -> Result<(), ArchiveError> {
        finite(name, values.iter().map(|&x| f64::from(x)))?;
        self.pickle.tensor_attribute(attribute, &TensorValue::f32_vector(values));
        Ok(())
    }

    /// A float64 vector.
    pub fn f64_vector(&mut self, attribute: &str, name: &'static str, values: &[f64]) -> Result<(), ArchiveError> {
        finite(name, values.iter().copied())?;
        self.pickle.tensor_attribute(attribute, &TensorValue::f64_vector(values));
        Ok(())
    }

    pub fn tensor(&mut self, attribute: &str, tensor: &TensorValue) {
        self.pickle.tensor_attribute(attribute, tensor);
    }

    pub fn int(&mut self, attribute: &str, value: i64) {
        self.pickle.int_attribute(attribute, value);
    }

    pub fn float(&mut self, attribute: &str, value: f64) {
        self.pickle.float_attribute(attribute, value);
    }

    pub fn bool(&mut self, attribute: &str, value: bool) {
        self.pickle.bool_attribute(attribute, value);
    }

    /// The robot model that the server makes of a URDF.
    pub fn robot_model(&mut self, attribute: &str, urdf_text: &str) -> Result<(), ArchiveError> {
        if urdf_text.len() > MAX_ARCHIVE_BYTES {
            let size = urdf_text.len();
            return Err(FormatError::TooLarge { what: "URDF text", size, limit: MAX_ARCHIVE_BYTES }.into());
        }
        if urdf_text.trim().is_empty() {
            return Err(ArchiveError::Class {
                class: "__torch__.C".into(),
                reason: "the URDF text is empty; take it from the robot client's metadata".into(),
            });
        }
        self.pickle.robot_model_attribute(attribute, urdf_text);
        Ok(())
    }

    pub fn finish(self, class_text: &str) -> Result<Vec<u8>, ArchiveError> {
        self.finish_in("a", class_text)
    }

    fn finish_in(self, top_folder: &str, class_text: &str) -> Result<Vec<u8>, ArchiveError> {
        Ok(write_module(top_folder, self.pickle, class_text)?.0)
    }
}

fn finite(name: &'static str, values: impl Iterator<Item = f64>) -> Result<(), ArchiveError> {
    for (index, value) in values.enumerate() {
        if !value.is_finite() {
            return Err(ArchiveError::NotFinite { name, index, value: value.to_string() });
        }
    }
    Ok(())
}

/// A joint PD controller: torque `kp·(q_desired − q) − kd·v` (N·m), accepting `joint_pos_desired`.
///
/// `q_desired` in rad, `kp` in N·m/rad, `kd` in N·m·s/rad.
///
/// # Errors
/// [`ArchiveError::NotFinite`] for a NaN or infinite value: the server would turn it into torques.
pub fn pd_controller(q_desired: &[f32; 7], kp: &[f32; 7], kd: &[f32; 7]) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = ControllerArchiveBuilder::new();
    archive.f32_vector("qd", "q_desired", q_desired)?;
    archive.f32_vector("kp", "kp", kp)?;
    archive.f32_vector("kd", "kd", kd)?;
    archive.finish(PD_TEXT)
}

/// Polymetis' plain joint impedance law: torque `kp·(q_desired − q) − kd·v + c(q, v)`, accepting `joint_pos_desired`.
///
/// As [`pd_controller`], with the Coriolis torque of the server's robot model, made of `urdf_text`.
///
/// # Errors
/// As [`hybrid_controller`].
pub fn joint_impedance_controller(
    q_desired: &[f32; 7],
    kp: &[f32; 7],
    kd: &[f32; 7],
    urdf_text: &str,
) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = ControllerArchiveBuilder::new();
    archive.f32_vector("qd", "q_desired", q_desired)?;
    archive.f32_vector("kp", "kp", kp)?;
    archive.f32_vector("kd", "kd", kd)?;
    archive.robot_model("model", urdf_text)?;
    archive.finish(JOINT_IMPEDANCE_TEXT)
}

/// The controller that a robot client brings along for every state without an uploaded one: it holds the first joints
/// that it sees after loading or `reset` (spec §4.1).
///
/// # Errors
/// [`ArchiveError::NotFinite`]
pub fn default_controller(kq: &[f32; 7], kqd: &[f32; 7]) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = ControllerArchiveBuilder::new();
    archive.f32_vector("kq", "kq", kq)?;
    archive.f32_vector("kqd", "kqd", kqd)?;
    archive.f32_vector("hold", "hold", &[0.0; 7])?;
    archive.bool("holds", false);
    archive.finish(DEFAULT_TEXT)
}

/// A controller of a text of one's own: class `C` with these tensors, in the order in which the text declares them.
///
/// For whoever tries out a server; nothing is checked, so a server may well refuse it, or its arm move.
///
/// # Errors
/// [`FormatError::TooLarge`] for what no archive holds.
pub fn controller_of_text(attributes: &[(&str, &TensorValue)], class_text: &str) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = ControllerArchiveBuilder::new();
    for (name, tensor) in attributes {
        archive.tensor(name, tensor);
    }
    archive.finish(class_text)
}

/// The hybrid joint impedance controller, the one that Polymetis' own joint impedance starts:
/// torque `(JᵀKxJ + Kq)(q_desired − q) − (JᵀKxdJ + Kqd)v + c(q, v)`, accepting `joint_pos_desired`.
///
/// `q_desired` in rad; `kq`, `kqd` diagonals in N·m/rad and N·m·s/rad; `kx`, `kxd` diagonals, linear
/// (N/m, N·s/m) then angular (N·m/rad, N·m·s/rad), at `panda_link8`. `urdf_text` is the Panda's URDF,
/// as `RobotClientMetadata.urdf_file` carries it. The gains are fixed once uploaded.
///
/// # Errors
/// [`ArchiveError::NotFinite`] for a NaN or infinite value, [`FormatError::TooLarge`] for a URDF that
/// no archive holds, [`ArchiveError::Class`] for an empty one.
pub fn hybrid_controller(
    q_desired: &[f32; 7],
    kq: &[f32; 7],
    kqd: &[f32; 7],
    kx: &[f32; 6],
    kxd: &[f32; 6],
    urdf_text: &str,
) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = ControllerArchiveBuilder::new();
    archive.f32_vector("qd", "q_desired", q_desired)?;
    archive.f32_vector("kq", "kq", kq)?;
    archive.f32_vector("kqd", "kqd", kqd)?;
    archive.f32_vector("kx", "kx", kx)?;
    archive.f32_vector("kxd", "kxd", kxd)?;
    archive.int("ee", PANDA_LINK8_FRAME);
    archive.robot_model("model", urdf_text)?;
    archive.finish_in("archive", HYBRID_TEXT)
}

//! Writes controller archives: the joint PD law and the hybrid joint impedance law
//! (spec `polymetis.md` §5, §6.4).
//!
//! Notation in the class text: `q`, `v` measured joint positions and velocities, `J` the 6×7 Jacobian
//! at the end-effector frame, `c` the Coriolis torque.

use super::parameters::write_module;
use super::pickle::PickleBuilder;
use super::{ArchiveError, FormatError, MAX_ARCHIVE_BYTES, TensorValue};

/// Index of the frame `panda_link8` in the robot model that the server builds from the Panda's URDF.
pub const PANDA_LINK8_FRAME: i64 = 17;

/// `kp·(qd − q) − kd·v`, element by element.
pub(super) const PD_TEXT: &str = r#"class C(Module):
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
pub(super) const HYBRID_TEXT: &str = r#"class C(Module):
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

/// A joint PD controller: torque `kp·(q_desired − q) − kd·v` (N·m), accepting `joint_pos_desired`.
///
/// `q_desired` in rad, `kp` in N·m/rad, `kd` in N·m·s/rad.
///
/// # Errors
/// [`ArchiveError::NotFinite`] for a NaN or infinite value: the server would turn it into torques.
pub fn pd_controller(q_desired: &[f32; 7], kp: &[f32; 7], kd: &[f32; 7]) -> Result<Vec<u8>, ArchiveError> {
    let mut pickle = PickleBuilder::module("C");
    finite_attribute(&mut pickle, "qd", "q_desired", q_desired)?;
    finite_attribute(&mut pickle, "kp", "kp", kp)?;
    finite_attribute(&mut pickle, "kd", "kd", kd)?;
    Ok(write_module("a", pickle, PD_TEXT)?.0)
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
    let mut pickle = PickleBuilder::module("C");
    finite_attribute(&mut pickle, "qd", "q_desired", q_desired)?;
    finite_attribute(&mut pickle, "kq", "kq", kq)?;
    finite_attribute(&mut pickle, "kqd", "kqd", kqd)?;
    finite_attribute(&mut pickle, "kx", "kx", kx)?;
    finite_attribute(&mut pickle, "kxd", "kxd", kxd)?;
    pickle.int_attribute("ee", PANDA_LINK8_FRAME);
    pickle.robot_model_attribute("model", urdf_text);
    Ok(write_module("archive", pickle, HYBRID_TEXT)?.0)
}

fn finite_attribute(
    pickle: &mut PickleBuilder,
    attribute: &str,
    name: &'static str,
    values: &[f32],
) -> Result<(), ArchiveError> {
    if let Some(index) = values.iter().position(|x| !x.is_finite()) {
        let value = values[index].to_string();
        return Err(ArchiveError::NotFinite { name, index, value });
    }
    pickle.tensor_attribute(attribute, &TensorValue::f32_vector(values));
    Ok(())
}

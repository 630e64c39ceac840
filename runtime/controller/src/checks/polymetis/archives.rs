//! Archives that the suite uploads: laws that hold the measured joints, parameters, and what a server has to refuse.

use tenon_bridge::BridgeOptions;
use tenon_polymetis::archive::zip::{ZipArchive, ZipWriter};
use tenon_polymetis::archive::{
    ArchiveError, JOINT_POS_DESIRED, LIMITS, TensorData, TensorValue, controller_of_text, hybrid_controller,
    joint_impedance_controller, pd_controller, write_parameters,
};
use tenon_polymetis::proto::RobotClientMetadata;
use tenon_polymetis::waypoints::waypoint_controller;

use super::rig::vector;
use super::verdict::{Outcome, skip};

/// A law that holds joints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// Joint PD with the metadata's gains: what the default controller does, as an upload.
    Pd,
    /// Polymetis' plain joint impedance, the metadata's gains.
    JointImpedance,
    /// What `RobotInterface` starts: joint and Cartesian gains of the metadata.
    Hybrid,
    /// Tenon's waypoints, gains and limits of the configuration.
    Tenon,
}

/// Steps after which [`ending`] ends itself.
pub const ENDING_STEPS: i32 = 50;
/// Steps after which [`raising`] raises.
pub const RAISING_STEPS: i32 = 30;

/// PD with places for what counts its steps.
const COUNTING_TEXT: &str = r#"class C(Module):
  qd : Tensor
  kp : Tensor
  kd : Tensor
  n : Tensor
  def forward(self: __torch__.C,
    s: Dict[str, Tensor]) -> Dict[str, Tensor]:
    self.n = torch.add(self.n, 1)
@CHECK@    e = torch.mul(self.kp, torch.sub(self.qd, s["joint_positions"]))
    d = torch.mul(self.kd, s["joint_velocities"])
    return {"joint_torques": torch.sub(e, d)}
  def is_terminated(self: __torch__.C) -> bool:
    return @ENDED@
  def update(self: __torch__.C,
    u: Dict[str, Tensor]) -> NoneType:
    _0 = torch.copy_(self.qd, u["joint_pos_desired"])
    return None
"#;

/// Raises after some steps.
const RAISE: &str = r#"    if bool(torch.gt(torch.select(self.n, 0, 0), @STEPS@.)):
      ops.prim.RaiseException("as asked for")
    else:
      pass
"#;

/// Raises unless the state has the fields and shapes that controllers are promised.
const INPUTS: &str = r#"    t = s["timestamp"]
    a = s["motor_torques_measured"]
    b = s["motor_torques_external"]
    sound = torch.__and__(torch.eq(torch.size(a, 0), 7), torch.eq(torch.size(b, 0), 7))
    if torch.__and__(torch.eq(torch.size(t, 0), 2), sound):
      pass
    else:
      ops.prim.RaiseException("state: wrong shapes")
"#;

fn built(archive: Result<Vec<u8>, ArchiveError>) -> Outcome<Vec<u8>> {
    archive.or_else(|e| skip(format!("the archive cannot be written: {e}")))
}

/// Gains of the robot client.
pub fn default_gains(metadata: &RobotClientMetadata) -> Outcome<([f32; 7], [f32; 7])> {
    Ok((vector("default_Kq", &metadata.default_kq)?, vector("default_Kqd", &metadata.default_kqd)?))
}

/// A law at these joints.
pub fn of_law(
    law: Law,
    target: &[f32; 7],
    metadata: &RobotClientMetadata,
    bridge: &BridgeOptions,
    session: u32,
) -> Outcome<Vec<u8>> {
    if law == Law::Tenon {
        let Some(hz) = u32::try_from(metadata.hz).ok().filter(|hz| *hz > 0) else {
            return skip(format!("the robot client says {} Hz", metadata.hz));
        };
        let settings = bridge.waypoint_settings(hz, session);
        return built(waypoint_controller(&settings, &bridge.gains(), &metadata.urdf_file));
    }
    let (kq, kqd) = default_gains(metadata)?;
    built(match law {
        Law::Pd | Law::Tenon => pd_controller(target, &kq, &kqd),
        Law::JointImpedance => joint_impedance_controller(target, &kq, &kqd, &metadata.urdf_file),
        Law::Hybrid => {
            let six = |values: &[f32]| <[f32; 6]>::try_from(values).ok();
            let (Some(kx), Some(kxd)) = (six(&metadata.default_kx), six(&metadata.default_kxd)) else {
                return skip("the robot client's metadata have no default_Kx, default_Kxd of 6 values");
            };
            hybrid_controller(target, &kq, &kqd, &kx, &kxd, &metadata.urdf_file)
        }
    })
}

fn counting(target: &[f32; 7], metadata: &RobotClientMetadata, check: &str, ended: &str) -> Outcome<Vec<u8>> {
    let (kq, kqd) = default_gains(metadata)?;
    let text = COUNTING_TEXT.replace("@CHECK@", check).replace("@ENDED@", ended);
    let [qd, kp, kd] = [target, &kq, &kqd].map(|values| TensorValue::f32_vector(values));
    let n = TensorValue::f32_vector(&[0.0]);
    built(controller_of_text(&[("qd", &qd), ("kp", &kp), ("kd", &kd), ("n", &n)], &text))
}

/// PD that ends itself after [`ENDING_STEPS`] steps.
pub fn ending(target: &[f32; 7], metadata: &RobotClientMetadata) -> Outcome<Vec<u8>> {
    let ended = format!("bool(torch.gt(torch.select(self.n, 0, 0), {}.5))", ENDING_STEPS - 1);
    counting(target, metadata, "", &ended)
}

/// PD that raises after [`RAISING_STEPS`] steps.
pub fn raising(target: &[f32; 7], metadata: &RobotClientMetadata) -> Outcome<Vec<u8>> {
    counting(target, metadata, &RAISE.replace("@STEPS@", &RAISING_STEPS.to_string()), "False")
}

/// PD that raises at its first step, and so in the warm-up.
pub fn raising_at_once(target: &[f32; 7], metadata: &RobotClientMetadata) -> Outcome<Vec<u8>> {
    counting(target, metadata, &RAISE.replace("@STEPS@", "0"), "False")
}

/// PD that looks at all it is given.
pub fn looking_at_inputs(target: &[f32; 7], metadata: &RobotClientMetadata) -> Outcome<Vec<u8>> {
    counting(target, metadata, INPUTS, "False")
}

/// PD without stiffness: its target moves nothing.
pub fn limp(target: &[f32; 7], metadata: &RobotClientMetadata) -> Outcome<Vec<u8>> {
    let (_, kqd) = default_gains(metadata)?;
    built(pd_controller(target, &[0.0; 7], &kqd))
}

/// The hybrid law with so long a comment behind the URDF that the archive passes 1 MiB.
pub fn large(target: &[f32; 7], metadata: &RobotClientMetadata, bridge: &BridgeOptions) -> Outcome<Vec<u8>> {
    let mut padded = metadata.clone();
    padded.urdf_file.push_str(&format!("\n<!-- {} -->\n", "tenon test polymetis ".repeat(56_000)));
    of_law(Law::Hybrid, target, &padded, bridge, 0)
}

/// Parameters for the target of the stock laws, any shape.
pub fn target(shape: &[usize], data: TensorData) -> Outcome<Vec<u8>> {
    named(JOINT_POS_DESIRED, shape, data)
}

/// Joint targets as clients send them, rad.
pub fn joints(target: &[f32; 7]) -> Outcome<Vec<u8>> {
    named(JOINT_POS_DESIRED, &[7], TensorData::F32(target.to_vec()))
}

/// Parameters under any name.
pub fn named(name: &str, shape: &[usize], data: TensorData) -> Outcome<Vec<u8>> {
    let tensor = TensorValue::new(shape.to_vec(), data).or_else(|e| skip(format!("the tensor cannot be made: {e}")))?;
    built(write_parameters(&[(name, &tensor)]))
}

/// An archive with one entry (its name inside the top folder) changed.
pub fn with_entry(archive: &[u8], entry: &str, change: impl Fn(&[u8]) -> Vec<u8>) -> Outcome<Vec<u8>> {
    let rewrite = || -> Result<Vec<u8>, ArchiveError> {
        let zip = ZipArchive::open(archive, &LIMITS)?;
        let mut out = ZipWriter::new(&LIMITS);
        for (name, data) in zip.entries() {
            let data = if name == entry { change(data) } else { data.to_vec() };
            out.add(&format!("{}/{name}", zip.top_folder()), &data)?;
        }
        Ok(out.finish().0)
    };
    built(rewrite())
}

/// Parameters whose `forward` wants an argument.
pub fn wanting_arguments(target: &[f32; 7]) -> Outcome<Vec<u8>> {
    with_entry(&joints(target)?, "code/__torch__.py", |text| {
        String::from_utf8_lossy(text).replace("self: __torch__.P", "self: __torch__.P, x: int").into_bytes()
    })
}

/// Joint targets in a dict that does not say what type it has.
pub fn untagged(target: &[f32; 7]) -> Outcome<Vec<u8>> {
    let begin: &[u8] = b"ctorch.jit._pickle\nrestore_type_tag\n";
    // BINUNICODE with the tag, TUPLE2, REDUCE.
    let end: &[u8] = b"X\x11\0\0\0Dict[str, Tensor]\x86R";
    with_entry(&joints(target)?, "data.pkl", |pickle| {
        let mut pickle = pickle.to_vec();
        for piece in [begin, end] {
            if let Some(at) = pickle.windows(piece.len()).position(|window| window == piece) {
                pickle.drain(at..at + piece.len());
            }
        }
        pickle
    })
}

/// Replaces the seven float32 `from` by `to` in an archive of stored entries, wherever they stand, and their checksums.
/// `None` where they are not there.
pub fn with_joints(archive: &[u8], from: &[f32; 7], to: &[f32; 7]) -> Option<Vec<u8>> {
    let bytes = |values: &[f32; 7]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (old, new) = (bytes(from), bytes(to));
    let mut changed = archive.to_vec();
    let at = changed.windows(old.len()).position(|window| window == old)?;
    changed[at..at + new.len()].copy_from_slice(&new);
    let (old, new) = (crc32(&old).to_le_bytes(), crc32(&new).to_le_bytes());
    let places: Vec<usize> = (0..changed.len() - 3).filter(|at| changed[*at..*at + 4] == old).collect();
    for at in places {
        changed[at..at + 4].copy_from_slice(&new);
    }
    Some(changed)
}

/// CRC-32 of ZIP files, bit by bit: 28 bytes at a time are not worth a table.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_polymetis::archive::{read_controller, read_parameters};

    const Q: [f32; 7] = [0.1, 0.2, 0.3, -1.4, 0.5, 1.6, 0.7];

    #[test]
    fn joints_are_replaced_with_their_checksum() {
        let mut other = Q;
        other[6] = 0.25;
        let changed = with_joints(&joints(&Q).unwrap(), &Q, &other).unwrap();
        // The reader checks the CRC.
        assert_eq!(read_parameters(&changed).unwrap()[0].1.as_f32_array(), Some(other));
        assert_eq!(changed, joints(&other).unwrap());
        assert!(with_joints(&changed, &Q, &other).is_none());
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn every_law_of_the_suite_is_a_controller() {
        let metadata = RobotClientMetadata {
            default_kq: vec![40.0; 7],
            default_kqd: vec![4.0; 7],
            ..RobotClientMetadata::default()
        };
        for archive in [ending, raising, raising_at_once, looking_at_inputs, limp].map(|make| make(&Q, &metadata)) {
            assert!(read_controller(&archive.unwrap()).unwrap().accepts_updates());
        }
        assert!(read_parameters(&wanting_arguments(&Q).unwrap()).is_err());
        assert!(matches!(read_parameters(&untagged(&Q).unwrap()), Err(ArchiveError::UntaggedDict { .. })));
    }
}

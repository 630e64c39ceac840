//! The laws of uploaded controllers (spec `polymetis.md` §5).
//!
//! They are evaluated in double precision on the single-precision state that a controller gets.

use nalgebra::{SMatrix, SVector};
use tenon_core::arm::{Arm, Joints};
use tenon_core::geometry::Pose;
use tenon_polymetis::archive::{
    ArchiveError, ControllerLaw, JOINT_POS_DESIRED, PANDA_LINK8_FRAME, TensorValue, read_controller,
};

type JointVector = SVector<f64, 7>;
type JointMatrix = SMatrix<f64, 7, 7>;

/// What a controller sees of one step, plus what the robot model in it would compute.
#[derive(Debug, Clone, Copy)]
pub struct LawInput {
    pub q: [f32; 7],
    pub dq: [f32; 7],
    /// c(q, dq): what velocity adds to the inverse dynamics, N·m.
    pub coriolis_nm: Joints,
}

/// A controller that is ready to run.
#[derive(Debug, Clone)]
pub struct Law {
    law: ControllerLaw,
    flange: Arm,
}

impl Law {
    /// Loads an uploaded archive.
    ///
    /// # Errors
    /// The text of the server's answer.
    pub fn load(archive: &[u8]) -> Result<Self, String> {
        let law = read_controller(archive).and_then(|controller| controller.law()).map_err(|e| e.to_string())?;
        if let ControllerLaw::HybridJointImpedance { frame, .. } = &law
            && *frame != PANDA_LINK8_FRAME
        {
            return Err(format!(
                "the law's Jacobian is at frame {frame}; only {PANDA_LINK8_FRAME} (panda_link8) is modelled"
            ));
        }
        Ok(Self { law, flange: Arm::new(Pose::identity()) })
    }

    /// Joint torque, N·m, without gravity.
    ///
    /// PD: `kp(qd − q) − kd·dq`. Hybrid: `(JᵀKxJ + Kq)(qd − q) + (JᵀKxdJ + Kqd)(0 − dq) + c`, J the Jacobian at the flange in
    /// base axes, linear rows first (LOCAL_WORLD_ALIGNED).
    pub fn torque(&self, input: &LawInput) -> [f32; 7] {
        let q = widen(&input.q);
        let dq = widen(&input.dq);
        let torque = match &self.law {
            ControllerLaw::JointPd { q_desired, kp, kd } => {
                widen(kp).component_mul(&(widen(q_desired) - q)) - widen(kd).component_mul(&dq)
            }
            ControllerLaw::HybridJointImpedance { q_desired, kq, kqd, kx, kxd, .. } => {
                let (_, J) = self.flange.flange_jacobian(&q.into());
                let joint_gain = |cartesian: &[f32; 6], joint: &[f32; 7]| {
                    let K = SMatrix::<f64, 6, 6>::from_diagonal(&SVector::from(cartesian.map(f64::from)));
                    J.transpose() * K * J + JointMatrix::from_diagonal(&widen(joint))
                };
                joint_gain(kx, kq) * (widen(q_desired) - q) - joint_gain(kxd, kqd) * dq
                    + JointVector::from(input.coriolis_nm)
            }
        };
        std::array::from_fn(|i| torque[i] as f32)
    }

    /// What the controller's `update` does: copies `joint_pos_desired` in place, as `torch.copy_` broadcasts.
    ///
    /// # Errors
    /// The text behind "Failed to update controller: ".
    pub fn update(&mut self, parameters: &[(String, TensorValue)]) -> Result<(), String> {
        let Some((_, tensor)) = parameters.iter().find(|(name, _)| name == JOINT_POS_DESIRED) else {
            let names: Vec<_> = parameters.iter().map(|(name, _)| name.as_str()).collect();
            return Err(format!("Argument passed to at() was not in the map. (got {names:?})"));
        };
        let values = tensor.to_f32_vec();
        let target: [f32; 7] = match (tensor.shape(), values.as_slice()) {
            ([7], values) => values.try_into().map_err(|_| "tensor data do not fill its shape".to_string())?,
            ([] | [1], [value]) => [*value; 7],
            (shape, _) => {
                return Err(format!(
                    "The size of tensor a (7) must match the size of tensor b (shape {shape:?}) at non-singleton \
                     dimension 0"
                ));
            }
        };
        match &mut self.law {
            ControllerLaw::JointPd { q_desired, .. } | ControllerLaw::HybridJointImpedance { q_desired, .. } => {
                *q_desired = target;
            }
        }
        Ok(())
    }
}

/// Loads the parameters of an update.
///
/// # Errors
/// As [`tenon_polymetis::archive::read_parameters`].
pub fn load_parameters(archive: &[u8]) -> Result<Vec<(String, TensorValue)>, ArchiveError> {
    tenon_polymetis::archive::read_parameters(archive)
}

fn widen(joints: &[f32; 7]) -> JointVector {
    JointVector::from(joints.map(f64::from))
}

/// The controller that runs in every state but RUNNING: `Kq(hold − q) − Kqd·dq`.
#[derive(Debug, Clone)]
pub struct HoldLaw {
    pub kq: [f32; 7],
    pub kqd: [f32; 7],
    /// Latched at the first state after start or hand-over.
    hold: Option<[f32; 7]>,
}

impl HoldLaw {
    pub fn new(kq: [f32; 7], kqd: [f32; 7]) -> Self {
        Self { kq, kqd, hold: None }
    }

    /// The next state is the one to hold.
    pub fn reset(&mut self) {
        self.hold = None;
    }

    pub fn torque(&mut self, q: &[f32; 7], dq: &[f32; 7]) -> [f32; 7] {
        let hold = *self.hold.get_or_insert(*q);
        std::array::from_fn(|i| self.kq[i] * (hold[i] - q[i]) - self.kqd[i] * dq[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_polymetis::archive::{hybrid_controller, pd_controller};

    const Q: [f32; 7] = [0.1, 0.2, 0.3, -1.4, 0.5, 1.6, 0.7];

    #[test]
    fn at_its_target_and_at_rest_a_controller_asks_for_the_coriolis_term_only() {
        let pd = Law::load(&pd_controller(&Q, &[40.0; 7], &[4.0; 7]).unwrap()).unwrap();
        let archive = hybrid_controller(&Q, &[40.0; 7], &[4.0; 7], &[750.0; 6], &[37.0; 6], "<robot/>").unwrap();
        let hybrid = Law::load(&archive).unwrap();
        let input = LawInput { q: Q, dq: [0.0; 7], coriolis_nm: [0.5; 7] };
        assert_eq!(pd.torque(&input), [0.0; 7]);
        assert_eq!(hybrid.torque(&input), [0.5; 7]);
    }

    #[test]
    fn cartesian_gains_stiffen_the_joint_law() {
        let archive = hybrid_controller(&Q, &[40.0; 7], &[4.0; 7], &[750.0; 6], &[37.0; 6], "<robot/>").unwrap();
        let mut law = Law::load(&archive).unwrap();
        let mut target = Q;
        target[0] += 0.1;
        law.update(&[(JOINT_POS_DESIRED.to_string(), TensorValue::f32_vector(&target))]).unwrap();
        let torque = law.torque(&LawInput { q: Q, dq: [0.0; 7], coriolis_nm: [0.0; 7] });
        assert!(torque[0] > 4.0 * 1.5, "{torque:?}");
    }

    #[test]
    fn updates_are_accepted_and_refused_as_by_the_real_server() {
        let mut law = Law::load(&pd_controller(&Q, &[40.0; 7], &[4.0; 7]).unwrap()).unwrap();
        let named = |values: &[f32]| vec![(JOINT_POS_DESIRED.to_string(), TensorValue::f32_vector(values))];
        law.update(&named(&[0.5])).unwrap();
        let at_zero = LawInput { q: [0.0; 7], dq: [0.0; 7], coriolis_nm: [0.0; 7] };
        assert_eq!(law.torque(&at_zero), [20.0; 7], "one value goes to all joints");
        assert!(law.update(&named(&[0.5; 6])).is_err());
        assert!(law.update(&[("ee_pos_desired".to_string(), TensorValue::f32_vector(&Q))]).is_err());
        let doubles = vec![(JOINT_POS_DESIRED.to_string(), TensorValue::f64_vector(&[0.25; 7]))];
        law.update(&doubles).unwrap();
        assert_eq!(law.torque(&at_zero), [10.0; 7]);
        law.update(&named(&[f32::NAN; 7])).unwrap();
        assert!(law.torque(&at_zero)[0].is_nan(), "nothing is checked, as on the real server");
    }
}

//! Uploaded controllers over the simulated arm: what runs is the text that was uploaded (`tenon_polymetis::script`).
//!
//! Only the robot model that a text may ask for is ours: the flange's Jacobian from the arm's geometry, the inverse
//! dynamics from MuJoCo. Of the latter the present state is known, which is all that impedance laws ask.

use tenon_core::arm::{Arm, Joints};
use tenon_core::geometry::Pose;
use tenon_polymetis::archive::{PANDA_LINK8_FRAME, TensorData, TensorValue};
use tenon_polymetis::script::{ControllerState, RobotModel, ScriptedController};

use super::plane::Reading;

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
    controller: ScriptedController,
    flange: Arm,
}

impl Law {
    /// Loads an uploaded archive.
    ///
    /// # Errors
    /// The text of the server's answer.
    pub fn load(archive: &[u8]) -> Result<Self, String> {
        let controller = ScriptedController::load(archive).map_err(|e| e.to_string())?;
        Ok(Self { controller, flange: Arm::new(Pose::identity()) })
    }

    /// Runs a copy for a few steps at the present state, as the server tries an upload before it takes it.
    ///
    /// # Errors
    /// The text of the server's answer.
    pub fn warm_up(&self, reading: &Reading) -> Result<(), String> {
        let mut model = PresentModel::new(self.flange, reading);
        self.controller.warm_up(&state(reading), &mut model).map_err(|e| e.to_string())
    }

    /// Joint torque, N·m, without gravity, as the text computes it.
    ///
    /// # Errors
    /// The text behind "Failed to run controller forward function: ".
    pub fn forward(&mut self, reading: &Reading) -> Result<[f32; 7], String> {
        let mut model = PresentModel::new(self.flange, reading);
        self.controller.forward(&state(reading), &mut model).map_err(|e| e.to_string())
    }

    /// [`forward`](Self::forward) without a server around it. Where the text fails the torques are NaN, which no arm
    /// takes.
    pub fn torque(&mut self, input: &LawInput) -> [f32; 7] {
        let mut reading = Reading { coriolis_nm: input.coriolis_nm, ..Reading::default() };
        reading.record.joint_positions = input.q;
        reading.record.joint_velocities = input.dq;
        self.forward(&reading).unwrap_or([f32::NAN; 7])
    }

    /// Whether the controller has ended itself.
    ///
    /// # Errors
    /// The text of the exception.
    pub fn is_terminated(&mut self) -> Result<bool, String> {
        self.controller.is_terminated().map_err(|e| e.to_string())
    }

    /// The controller's `update`.
    ///
    /// # Errors
    /// The text behind "Failed to update controller: ".
    pub fn update(&mut self, parameters: &[(String, TensorValue)]) -> Result<(), String> {
        self.controller.update(parameters).map_err(|e| e.to_string())
    }

    /// The attribute `vs` of Tenon's law: the joint velocities that it commands, rad/s.
    pub fn commanded_velocities_rad_s(&self) -> Option<[f64; 7]> {
        match self.controller.attribute("vs")?.data() {
            TensorData::F64(values) => values.as_slice().try_into().ok(),
            _ => None,
        }
    }

    /// The controller's `reset`, which default controllers have.
    ///
    /// # Errors
    /// The text of the exception.
    pub fn reset(&mut self) -> Result<(), String> {
        self.controller.reset().map_err(|e| e.to_string())
    }
}

fn state(reading: &Reading) -> ControllerState {
    let record = &reading.record;
    ControllerState {
        timestamp: [i32::try_from(record.seconds).unwrap_or(i32::MAX), record.nanos],
        joint_positions: record.joint_positions,
        joint_velocities: record.joint_velocities,
        motor_torques_measured: record.motor_torques_measured,
        motor_torques_external: record.motor_torques_external,
    }
}

/// The server's custom class for robot models, at one state of the arm.
struct PresentModel {
    flange: Arm,
    q: Joints,
    dq: Joints,
    gravity_nm: Joints,
    coriolis_nm: Joints,
}

impl PresentModel {
    fn new(flange: Arm, reading: &Reading) -> Self {
        Self {
            flange,
            q: reading.record.joint_positions.map(f64::from),
            dq: reading.record.joint_velocities.map(f64::from),
            gravity_nm: reading.gravity_nm,
            coriolis_nm: reading.coriolis_nm,
        }
    }
}

impl RobotModel for PresentModel {
    fn jacobian(&mut self, q: &[f64; 7], frame: i64) -> Result<[[f64; 7]; 6], String> {
        if frame != PANDA_LINK8_FRAME {
            return Err(format!("the Jacobian at frame {frame}; only {PANDA_LINK8_FRAME} (panda_link8) is modelled"));
        }
        let (_, J) = self.flange.flange_jacobian(q);
        Ok(std::array::from_fn(|row| std::array::from_fn(|joint| J[(row, joint)])))
    }

    fn inverse_dynamics(&mut self, q: &[f64; 7], v: &[f64; 7], a: &[f64; 7]) -> Result<[f64; 7], String> {
        // NaN is not equal to itself, and must pass as on the real server.
        let same = |a: &[f64; 7], b: &[f64; 7]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
        let resting = v.iter().all(|&v| v == 0.0);
        if !same(q, &self.q) || !(resting || same(v, &self.dq)) || a.iter().any(|&a| a != 0.0) {
            return Err("inverse dynamics are modelled at the present state, unaccelerated, only".to_owned());
        }
        let moving = if resting { 0.0 } else { 1.0 };
        Ok(std::array::from_fn(|i| self.gravity_nm[i] + moving * self.coriolis_nm[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_polymetis::archive::{JOINT_POS_DESIRED, hybrid_controller, joint_impedance_controller, pd_controller};

    const Q: [f32; 7] = [0.1, 0.2, 0.3, -1.4, 0.5, 1.6, 0.7];

    fn named(values: &[f32]) -> Vec<(String, TensorValue)> {
        vec![(JOINT_POS_DESIRED.to_string(), TensorValue::f32_vector(values))]
    }

    #[test]
    fn at_its_target_a_controller_asks_for_the_coriolis_term_only() {
        let mut pd = Law::load(&pd_controller(&Q, &[40.0; 7], &[0.0; 7]).unwrap()).unwrap();
        let archive = hybrid_controller(&Q, &[40.0; 7], &[0.0; 7], &[750.0; 6], &[0.0; 6], "<robot/>").unwrap();
        let mut hybrid = Law::load(&archive).unwrap();
        let archive = joint_impedance_controller(&Q, &[40.0; 7], &[0.0; 7], "<robot/>").unwrap();
        let mut impedance = Law::load(&archive).unwrap();
        let mut reading = Reading { coriolis_nm: [0.5; 7], gravity_nm: [8.0; 7], ..Reading::default() };
        reading.record.joint_positions = Q;
        reading.record.joint_velocities = [0.25; 7];
        assert_eq!(pd.forward(&reading), Ok([0.0; 7]));
        assert_eq!(hybrid.forward(&reading), Ok([0.5; 7]));
        assert_eq!(impedance.forward(&reading), Ok([0.5; 7]));
    }

    #[test]
    fn cartesian_gains_stiffen_the_joint_law() {
        let archive = hybrid_controller(&Q, &[40.0; 7], &[4.0; 7], &[750.0; 6], &[37.0; 6], "<robot/>").unwrap();
        let mut law = Law::load(&archive).unwrap();
        let mut target = Q;
        target[0] += 0.1;
        law.update(&named(&target)).unwrap();
        let torque = law.torque(&LawInput { q: Q, dq: [0.0; 7], coriolis_nm: [0.0; 7] });
        assert!(torque[0] > 4.0 * 1.5, "{torque:?}");
    }

    #[test]
    fn updates_are_accepted_and_refused_as_by_the_real_server() {
        let mut law = Law::load(&pd_controller(&Q, &[40.0; 7], &[4.0; 7]).unwrap()).unwrap();
        law.update(&named(&[0.5])).unwrap();
        let at_zero = LawInput { q: [0.0; 7], dq: [0.0; 7], coriolis_nm: [0.0; 7] };
        assert_eq!(law.torque(&at_zero), [20.0; 7], "one value goes to all joints");
        assert!(law.update(&named(&[0.5; 6])).unwrap_err().contains("must match the size"));
        let row = TensorValue::new(vec![1, 7], tenon_polymetis::archive::TensorData::F32(vec![0.5; 7])).unwrap();
        assert!(law.update(&[(JOINT_POS_DESIRED.to_string(), row)]).is_err());
        let unknown = law.update(&[("ee_pos_desired".to_string(), TensorValue::f32_vector(&Q))]);
        assert!(unknown.unwrap_err().contains("KeyError"));
        let doubles = vec![(JOINT_POS_DESIRED.to_string(), TensorValue::f64_vector(&[0.25; 7]))];
        law.update(&doubles).unwrap();
        assert_eq!(law.torque(&at_zero), [10.0; 7]);
        law.update(&named(&[f32::NAN; 7])).unwrap();
        assert!(law.torque(&at_zero)[0].is_nan(), "nothing is checked, as on the real server");
    }

    #[test]
    fn what_the_simulation_does_not_model_is_an_exception() {
        let mut reading = Reading { coriolis_nm: [0.5; 7], gravity_nm: [8.0; 7], ..Reading::default() };
        reading.record.joint_velocities = [0.25; 7];
        let mut model = PresentModel::new(Arm::new(Pose::identity()), &reading);
        let (zero, v) = ([0.0; 7], [0.25; 7]);
        assert_eq!(model.inverse_dynamics(&zero, &v, &zero), Ok([8.5; 7]));
        assert_eq!(model.inverse_dynamics(&zero, &zero, &zero), Ok([8.0; 7]));
        assert!(model.inverse_dynamics(&[0.1; 7], &v, &zero).is_err());
        assert!(model.inverse_dynamics(&zero, &v, &[1.0; 7]).is_err());
        assert!(model.jacobian(&zero, 17).is_ok() && model.jacobian(&zero, 7).is_err());
    }
}

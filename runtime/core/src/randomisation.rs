//! Domain randomisation: noise on what a policy sees and does while it is trained (spec robot_control.md §9.1).
//!
//! The *table* holds the standard deviation of each part's pose at rest, as `tenon-calibrate noise` measured it on a rig
//! ([`NoiseRecord`]) or as [`default_table`] assumes it. Its variance is split in two: a *bias*, drawn once an episode, and a
//! *jitter*, drawn anew for every observation, so that together they have the table's standard deviation. Noise on the robot's
//! own fields is split the same way.
//!
//! A part is displaced as the calibration measures it: `[v; ω]` in april axes, p + v and exp(ω) R about the part's origin,
//! written with the quaternion's w ≥ 0 as [`crate::fusion::PartBoard`] does. The noise goes onto observations in physical units,
//! before they are normalised. Parts without an entry stay as they are to the bit: so do those that the robot writes as constants.

use nalgebra::{Quaternion, UnitQuaternion, Vector3};
use thiserror::Error;

use crate::config::rig::{NoiseRecord, RigCalibration};
use crate::config::{FieldNoise, NoiseOrigin, PartNoise, RandomisationConfig};
use crate::fusion::{Furniture, quat_xyzw};
use crate::geometry::{rotation_from_6d, rotation_to_6d};
use crate::noise::NoiseSource;
use crate::spec::{ObservationField, PART_NUMBERS};
use crate::task::TaskName;

/// What `noise` says for [`default_table`].
pub const DEFAULT: &str = "default";
/// Of a part's position where nothing was measured: 2 mm in the board's plane, 3 mm in height (spec robot_control.md §9.1, its
/// start values read as standard deviations).
pub const DEFAULT_POSITION_STD_M: [f64; 3] = [0.002, 0.002, 0.003];
/// Of a part's rotation about each axis where nothing was measured: 2°.
pub const DEFAULT_ROTATION_STD_RAD: f64 = 2.0 * std::f64::consts::PI / 180.0;
/// Share of the variance that is bias, where the configuration says nothing: half.
pub const DEFAULT_BIAS_SHARE: f64 = 0.5;

/// Numbers of a displacement `[v; ω]`.
const TWIST: usize = 6;

/// What is wrong with a randomisation.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RandomisationError {
    #[error(
        "the observation shows no part `{part}` (its parts are {known}): measure, or list, the parts of this task only"
    )]
    UnknownPart { part: String, known: String },
    #[error("the observation shows no parts, so `{noise}` has nothing to go onto: leave it out")]
    NoParts { noise: String },
    #[error("the observation has no field `{field}` (it has {known})")]
    UnknownField { field: String, known: String },
    #[error("the poses of parts have a table of their own: give `noise` or [[randomisation.part]]")]
    PartsAsField,
    #[error("`{name}` is listed twice")]
    ListedTwice { key: &'static str, name: String },
    #[error("`{field}` takes one standard deviation for all of its values or {wanted}, not {found}")]
    Width { field: String, wanted: usize, found: usize },
    #[error("{name}{value} must be finite and not negative")]
    NotAStd { key: &'static str, name: String, value: f64 },
    #[error("{value} must be between 0 and 1")]
    BiasShare { value: f64 },
    #[error(
        "give `noise` or [[randomisation.part]], not both: the entries are what `noise` stands for once it has been read"
    )]
    TwoTables,
    #[error("says where the entries of [[randomisation.part]] come from, and there are none")]
    OriginOfNothing,
    #[error("the table `{noise}` has not been read yet")]
    Unread { noise: String },
    #[error("the calibration of rig `{rig}` has no [[noise]]: run `tenon-calibrate noise`, or say \"{DEFAULT}\"")]
    NotMeasured { rig: String },
}

impl RandomisationError {
    /// The configuration's key that it is about.
    pub fn key(&self) -> &'static str {
        match self {
            Self::UnknownPart { .. } => "randomisation.part",
            Self::NoParts { .. } | Self::TwoTables | Self::Unread { .. } | Self::NotMeasured { .. } => {
                "randomisation.noise"
            }
            Self::UnknownField { .. } | Self::PartsAsField | Self::Width { .. } => "randomisation.field",
            Self::ListedTwice { key, .. } | Self::NotAStd { key, .. } => key,
            Self::BiasShare { .. } => "randomisation.bias_share",
            Self::OriginOfNothing => "randomisation.origin",
        }
    }
}

/// The table where nothing was measured: every part of the task but the fixture's bar, which the robot writes as a constant.
pub fn default_table(part_names: &[&str]) -> Vec<PartNoise> {
    // The bar is last.
    let seen = part_names.split_last().map_or(&[][..], |(_bar, seen)| seen);
    let noise = |part: &&str| PartNoise {
        part: (*part).to_owned(),
        position_std_m: DEFAULT_POSITION_STD_M,
        rotation_std_rad: [DEFAULT_ROTATION_STD_RAD; 3],
    };
    seen.iter().map(noise).collect()
}

/// The table that was measured on a rig.
pub fn measured_table(rig: &RigCalibration) -> Result<Vec<PartNoise>, RandomisationError> {
    if rig.noise.is_empty() {
        return Err(RandomisationError::NotMeasured { rig: rig.rig.clone() });
    }
    let noise = |record: &NoiseRecord| PartNoise {
        part: record.part.clone(),
        position_std_m: record.position_std_m,
        rotation_std_rad: record.rotation_std_rad,
    };
    Ok(rig.noise.iter().map(noise).collect())
}

/// Names of the parts that a task's observation shows, in its order.
pub fn parts_of(task: TaskName) -> &'static [&'static str] {
    Furniture::of_task(task).map_or(&[], Furniture::part_names)
}

impl RandomisationConfig {
    /// The file that has to be read for the table; none where there is nothing to read.
    pub fn file(&self) -> Option<&str> {
        self.noise.as_deref().filter(|noise| *noise != DEFAULT)
    }

    /// Puts the default table in the place of `noise`, where it asks for it.
    pub fn take_default(&mut self, task: TaskName) {
        if let Some(noise) = self.noise.take_if(|noise| noise == DEFAULT) {
            self.part = default_table(parts_of(task));
            self.origin = Some(NoiseOrigin { noise, sha256: None, rig: None, written: None });
        }
    }

    /// Puts the table of the rig's file that [`file`](Self::file) names in the place of `noise`. `sha256`: of the file.
    pub fn take_measured(&mut self, rig: &RigCalibration, sha256: String) -> Result<(), RandomisationError> {
        let part = measured_table(rig)?;
        if let Some(noise) = self.noise.take() {
            let (name, written) = (rig.rig.clone(), rig.written.clone());
            self.origin = Some(NoiseOrigin { noise, sha256: Some(sha256), rig: Some(name), written: Some(written) });
            self.part = part;
        }
        Ok(())
    }

    /// Says what is wrong, a table that has not been read aside.
    pub fn check(&self, task: TaskName) -> Result<(), RandomisationError> {
        let parts = parts_of(task);
        match &self.noise {
            Some(_) if !self.part.is_empty() => Err(RandomisationError::TwoTables),
            Some(noise) if parts.is_empty() => Err(RandomisationError::NoParts { noise: noise.clone() }),
            _ if self.origin.is_some() && self.part.is_empty() => Err(RandomisationError::OriginOfNothing),
            _ => Randomisation::assemble(self, &task.observation(), parts).map(drop),
        }
    }
}

/// Noise of training, checked against what the policy sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Randomisation {
    pub observation: ObservationNoise,
    /// σ on each value of the sampled actions that are executed, normalised.
    pub action_std: f32,
    /// σ on each value of what pre-training sees, normalised.
    pub cloning_std: f32,
    /// Whether evaluations have the noise of rollouts too.
    pub evaluation: bool,
}

impl Randomisation {
    /// `fields`: of the policy's observation. `part_names`: the parts of its [`ObservationField::PartPoses`], in order.
    pub fn new(
        config: &RandomisationConfig,
        fields: &[ObservationField],
        part_names: &[&str],
    ) -> Result<Self, RandomisationError> {
        match &config.noise {
            Some(noise) => Err(RandomisationError::Unread { noise: noise.clone() }),
            None => Self::assemble(config, fields, part_names),
        }
    }

    fn assemble(
        config: &RandomisationConfig,
        fields: &[ObservationField],
        part_names: &[&str],
    ) -> Result<Self, RandomisationError> {
        for (key, value) in
            [("randomisation.action_std", config.action_std), ("randomisation.cloning_std", config.cloning_std)]
        {
            check_std(key, String::new, value)?;
        }
        Ok(Self {
            observation: ObservationNoise::new(fields, part_names, &config.part, &config.field, config.bias_share)?,
            action_std: config.action_std as f32,
            cloning_std: config.cloning_std as f32,
            evaluation: config.evaluation,
        })
    }

    /// Whether rollouts are as they would be without it.
    pub fn leaves_rollouts(&self) -> bool {
        self.observation.is_none() && self.action_std == 0.0
    }

    /// Whether pre-training is as it would be without it.
    pub fn leaves_cloning(&self) -> bool {
        self.observation.is_none() && self.cloning_std == 0.0
    }
}

fn check_std(key: &'static str, name: impl Fn() -> String, value: f64) -> Result<(), RandomisationError> {
    let sound = value.is_finite() && value >= 0.0;
    if sound { Ok(()) } else { Err(RandomisationError::NotAStd { key, name: name(), value }) }
}

/// Noise on some values of an observation.
#[derive(Debug, Clone, PartialEq)]
struct Block {
    /// Where its values begin.
    at: usize,
    kind: Kind,
    /// Of each number of the displacement.
    std: Vec<f64>,
}

/// How values are displaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Each by a number of its own.
    Values,
    /// x, y, z and quaternion x, y, z, w by `[v; ω]`.
    PartPose,
    /// Two rows of a rotation matrix by ω.
    Rotation6d,
}

/// Noise on an observation in physical units.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservationNoise {
    blocks: Vec<Block>,
    /// What a standard normal draw of the bias and one of the jitter are worth: √share, √(1 − share).
    weights: [f64; 2],
}

impl ObservationNoise {
    /// `fields`: of the observation. `part_names`: the parts of its block, in order. `bias_share`: of the variance.
    ///
    /// # Errors
    /// A part or field that the observation lacks, by name; a standard deviation that is none.
    pub fn new(
        fields: &[ObservationField],
        part_names: &[&str],
        parts: &[PartNoise],
        values: &[FieldNoise],
        bias_share: f64,
    ) -> Result<Self, RandomisationError> {
        if !(0.0..=1.0).contains(&bias_share) {
            return Err(RandomisationError::BiasShare { value: bias_share });
        }
        check_names("randomisation.part", parts.iter().map(|noise| noise.part.as_str()))?;
        check_names("randomisation.field", values.iter().map(|noise| noise.name.as_str()))?;
        let places = places(fields);
        let shown = places.iter().find_map(|&(field, at)| match field {
            ObservationField::PartPoses(parts) => Some((usize::from(parts), at)),
            _ => None,
        });
        let part_names = &part_names[..shown.map_or(0, |(parts, _)| parts).min(part_names.len())];
        let mut blocks = Vec::new();
        for noise in parts {
            let index = part_names.iter().position(|name| *name == noise.part);
            let (Some((_, at)), Some(index)) = (shown, index) else {
                let known = if part_names.is_empty() { "none".into() } else { part_names.join(", ") };
                return Err(RandomisationError::UnknownPart { part: noise.part.clone(), known });
            };
            let std = [noise.position_std_m, noise.rotation_std_rad].concat();
            for &value in &std {
                check_std("randomisation.part", || format!("{}: ", noise.part), value)?;
            }
            blocks.push(Block { at: at + index * PART_NUMBERS, kind: Kind::PartPose, std });
        }
        for noise in values {
            blocks.extend(field_blocks(noise, &places)?);
        }
        blocks.retain(|block| block.std.iter().any(|&std| std > 0.0));
        // Draws follow the observation's order, not the configuration's.
        blocks.sort_by_key(|block| block.at);
        Ok(Self { blocks, weights: [bias_share.sqrt(), (1.0 - bias_share).sqrt()] })
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Number of draws that make up the bias of an episode.
    pub fn bias_len(&self) -> usize {
        self.blocks.iter().map(|block| block.std.len()).sum()
    }

    /// Draws the bias of an episode: `bias_len` standard normal numbers.
    pub fn draw_bias(&self, noise: &mut impl NoiseSource, bias: &mut [f32]) {
        noise.fill_standard_normal(bias);
    }

    /// Displaces one observation in place by the episode's bias and a jitter of its own, `bias_len` draws of `noise`.
    ///
    /// # Panics
    /// If the observation is shorter than the fields, or `bias` is not of [`Self::bias_len`].
    pub fn disturb(&self, bias: &[f32], noise: &mut impl NoiseSource, observation: &mut [f64]) {
        assert_eq!(bias.len(), self.bias_len(), "draws of the bias");
        let mut rest = bias;
        for block in &self.blocks {
            let (bias, later) = rest.split_at(block.std.len());
            rest = later;
            let mut displacement = block.std.iter().zip(bias).map(|(std, &bias)| {
                let mut jitter = [0.0];
                noise.fill_standard_normal(&mut jitter);
                std * (self.weights[0] * f64::from(bias) + self.weights[1] * f64::from(jitter[0]))
            });
            let values = &mut observation[block.at..];
            match block.kind {
                Kind::Values => values.iter_mut().zip(displacement).for_each(|(x, d)| *x += d),
                Kind::PartPose => {
                    let twist: [f64; TWIST] = std::array::from_fn(|_| displacement.next().unwrap_or_default());
                    displace_part(&twist, values);
                }
                Kind::Rotation6d => {
                    let turn: [f64; 3] = std::array::from_fn(|_| displacement.next().unwrap_or_default());
                    let rows: [f64; 6] = std::array::from_fn(|i| values[i]);
                    // Rows that are no rotation stay what they are.
                    if let Some(rotation) = rotation_from_6d(&rows) {
                        let turned = UnitQuaternion::from_scaled_axis(Vector3::from(turn)) * rotation;
                        values[..6].copy_from_slice(&rotation_to_6d(&turned));
                    }
                }
            }
        }
    }
}

/// p + v, exp(ω) R about the part's origin, quaternion with w ≥ 0. One of no length stays what it is.
fn displace_part([vx, vy, vz, wx, wy, wz]: &[f64; TWIST], values: &mut [f64]) {
    for (x, v) in values.iter_mut().zip([vx, vy, vz]) {
        *x += v;
    }
    let q = Quaternion::new(values[6], values[3], values[4], values[5]);
    let turn = Vector3::new(*wx, *wy, *wz);
    if turn != Vector3::zeros()
        && let Some(rotation) = UnitQuaternion::try_new(q, 1e-9)
    {
        let turned = UnitQuaternion::from_scaled_axis(turn) * rotation;
        values[3..PART_NUMBERS].copy_from_slice(&quat_xyzw(&turned));
    }
}

/// The fields with the place where each begins.
fn places(fields: &[ObservationField]) -> Vec<(ObservationField, usize)> {
    let mut at = 0;
    let place = |&field: &ObservationField| {
        let begin = at;
        at += field.dim();
        (field, begin)
    };
    fields.iter().map(place).collect()
}

/// What a field is called in the configuration: as in a policy's definition.
fn name_of(field: ObservationField) -> &'static str {
    match field {
        ObservationField::CommandedPosition2 => "commanded_position2",
        ObservationField::TcpPosition2 => "tcp_position2",
        ObservationField::TcpPosition => "tcp_position",
        ObservationField::TcpRotation6d => "tcp_rotation6d",
        ObservationField::TcpLinearVelocity => "tcp_linear_velocity",
        ObservationField::TcpAngularVelocity => "tcp_angular_velocity",
        ObservationField::GripperWidth => "gripper_width",
        ObservationField::PartPoses(_) => "part_poses",
        ObservationField::Task(_) => "task",
    }
}

/// The noise of every field of that name.
fn field_blocks(noise: &FieldNoise, places: &[(ObservationField, usize)]) -> Result<Vec<Block>, RandomisationError> {
    let field = || noise.name.clone();
    let mut blocks = Vec::new();
    for &(shown, at) in places.iter().filter(|(shown, _)| name_of(*shown) == noise.name) {
        let (kind, wanted) = match shown {
            ObservationField::PartPoses(_) => return Err(RandomisationError::PartsAsField),
            ObservationField::TcpRotation6d => (Kind::Rotation6d, 3),
            _ => (Kind::Values, shown.dim()),
        };
        for &value in &noise.std {
            check_std("randomisation.field", || format!("{}: ", noise.name), value)?;
        }
        let std = match noise.std[..] {
            [one] => vec![one; wanted],
            _ if noise.std.len() == wanted => noise.std.clone(),
            _ => return Err(RandomisationError::Width { field: field(), wanted, found: noise.std.len() }),
        };
        blocks.push(Block { at, kind, std });
    }
    if blocks.is_empty() {
        let known = places.iter().map(|(field, _)| name_of(*field)).collect::<Vec<_>>().join(", ");
        return Err(RandomisationError::UnknownField { field: field(), known });
    }
    Ok(blocks)
}

fn check_names<'a>(key: &'static str, names: impl Iterator<Item = &'a str> + Clone) -> Result<(), RandomisationError> {
    for (i, name) in names.clone().enumerate() {
        if names.clone().take(i).any(|other| other == name) {
            return Err(RandomisationError::ListedTwice { key, name: name.to_owned() });
        }
    }
    Ok(())
}

//! What results are held against: the `[calibration]` table of `robot.toml`.

use std::path::Path;

use tenon_core::config::{CalibrationConfig, RobotConfig, parse};

use super::StepError;
use crate::measure::drift::DriftLimits;
use crate::measure::proof;

/// Where the file lies in a clone and beside an installed program's working folder.
const USUAL: &str = "configs/robot.toml";
const SHIPPED: &str = include_str!("../../../configs/robot.toml");

/// The robot's whole configuration, of the file that is named or of `configs/robot.toml`. Its tool and model are facts of this
/// hardware, so those that Tenon ships do not stand in for them.
pub fn robot(file: Option<&Path>) -> Result<RobotConfig, StepError> {
    let path = file.unwrap_or(Path::new(USUAL));
    let text = std::fs::read_to_string(path).map_err(|e| {
        let reason = format!("{e}; model, tool and link of the robot stand in it: name it with --robot FILE");
        StepError::Read { path: path.to_owned(), reason }
    })?;
    Ok(parse(&path.display().to_string(), &text)?)
}

/// Limits and where they come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub origin: String,
    pub config: CalibrationConfig,
}

impl Limits {
    /// Of the file that is named; else of `configs/robot.toml` where there is one; else those that Tenon ships. `origin` says which,
    /// and every report repeats it.
    pub fn load(file: Option<&Path>) -> Result<Self, StepError> {
        let path = file.unwrap_or(Path::new(USUAL));
        if file.is_none() && !path.is_file() {
            return Self::shipped();
        }
        let text = std::fs::read_to_string(path)
            .map_err(|e| StepError::Read { path: path.to_owned(), reason: e.to_string() })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Those of the `configs/robot.toml` that Tenon ships.
    pub fn shipped() -> Result<Self, StepError> {
        Self::parse("the shipped configs/robot.toml", SHIPPED)
    }

    fn parse(origin: &str, text: &str) -> Result<Self, StepError> {
        let robot: RobotConfig = parse(origin, text)?;
        Ok(Self { origin: origin.to_owned(), config: robot.calibration })
    }

    pub fn proof(&self) -> proof::Limits {
        let of = &self.config.proof;
        proof::Limits {
            position_m: of.position_m,
            rotation_rad: of.rotation_deg.to_radians(),
            min_views: of.min_views,
            min_extent_m: of.min_extent_m,
        }
    }

    pub fn drift(&self) -> DriftLimits {
        let of = &self.config.drift;
        DriftLimits {
            warn_m: of.warn_m,
            warn_rad: of.warn_deg.to_radians(),
            stop_m: of.stop_m,
            stop_rad: of.stop_deg.to_radians(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_robot_that_is_not_described_is_not_invented() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("robot.toml");
        let said = robot(Some(&file)).unwrap_err().to_string();
        assert!(said.contains("robot.toml") && said.contains("--robot FILE"), "{said}");
        std::fs::write(&file, SHIPPED).unwrap();
        assert_eq!(robot(Some(&file)).unwrap().link.endpoint, "tcp/127.0.0.1:7447");
    }

    #[test]
    fn the_shipped_limits_of_drift_are_those_of_the_library() {
        assert_eq!(Limits::shipped().unwrap().drift(), DriftLimits::default());
    }

    #[test]
    fn a_file_that_is_named_must_be_there_and_right() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("robot.toml");
        assert!(matches!(Limits::load(Some(&file)), Err(StepError::Read { .. })));
        std::fs::write(&file, SHIPPED.replace("position_m = 0.003", "position_m = 0.002")).unwrap();
        let limits = Limits::load(Some(&file)).unwrap();
        assert_eq!((limits.proof().position_m, limits.origin), (0.002, file.display().to_string()));
        std::fs::write(&file, SHIPPED.replace("min_extent_m", "min_extend_m")).unwrap();
        assert!(Limits::load(Some(&file)).unwrap_err().to_string().contains("min_extent_m"));
    }
}

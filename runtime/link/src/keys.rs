//! Key expressions of one robot.

use crate::codec::MessageKind;
use crate::error::LinkError;

/// Name of the robot where there is only one.
pub const DEFAULT_ROBOT: &str = "robot";

/// The four keys `tenon/<robot>/state|target|request|status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RobotKeys {
    robot: String,
}

impl RobotKeys {
    /// Keys of the robot of this name.
    ///
    /// # Errors
    /// [`LinkError::RobotName`] for anything but letters, digits, `_` and `-`: `*`, `$`, `/` mean something in a key.
    pub fn new(robot: &str) -> Result<Self, LinkError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if robot.is_empty() || robot.len() > 64 || !robot.chars().all(plain) {
            return Err(LinkError::RobotName { name: robot.to_owned() });
        }
        Ok(Self { robot: robot.to_owned() })
    }

    /// The robot's name.
    pub fn robot(&self) -> &str {
        &self.robot
    }

    /// Key of one kind of message.
    pub fn key(&self, kind: MessageKind) -> String {
        format!("tenon/{}/{}", self.robot, kind.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_specification() {
        let keys = RobotKeys::new(DEFAULT_ROBOT).unwrap();
        let all = MessageKind::ALL.map(|kind| keys.key(kind));
        assert_eq!(all, ["tenon/robot/state", "tenon/robot/target", "tenon/robot/request", "tenon/robot/status"]);
    }

    #[test]
    fn a_name_that_would_widen_a_key_is_refused() {
        for name in ["", "*", "a/b", "**", "ä", "a b", "$*"] {
            assert!(matches!(RobotKeys::new(name), Err(LinkError::RobotName { .. })), "{name}");
        }
    }
}

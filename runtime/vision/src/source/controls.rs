//! A camera's controls that change what a picture looks like or when it is taken: wanted, set, read back, watched.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A control, with V4L2's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// 1: manual, 3: by the camera (aperture priority, what UVC calls automatic).
    AutoExposure,
    /// 1: automatic exposure may lower the frame rate.
    AutoExposurePriority,
    /// In 100 µs.
    Exposure,
    /// The camera's own unit.
    Gain,
    /// 1: the camera focuses by itself.
    AutoFocus,
    /// The camera's own unit.
    Focus,
    /// 1: the camera balances colour by itself.
    AutoWhiteBalance,
    /// In kelvin.
    WhiteBalance,
    /// 0 off, 1: 50 Hz, 2: 60 Hz.
    PowerLine,
}

impl Control {
    /// In the order in which they must be set: what is automatic first, since it refuses or overrules the value.
    pub const ALL: [Self; 9] = [
        Self::AutoExposure,
        Self::AutoExposurePriority,
        Self::AutoFocus,
        Self::AutoWhiteBalance,
        Self::PowerLine,
        Self::Exposure,
        Self::Gain,
        Self::Focus,
        Self::WhiteBalance,
    ];
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AutoExposure => "auto_exposure",
            Self::AutoExposurePriority => "auto_exposure_priority",
            Self::Exposure => "exposure (100 µs)",
            Self::Gain => "gain",
            Self::AutoFocus => "auto_focus",
            Self::Focus => "focus",
            Self::AutoWhiteBalance => "auto_white_balance",
            Self::WhiteBalance => "white_balance (K)",
            Self::PowerLine => "power_line",
        })
    }
}

/// A value for some of the controls; `None` for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControlValues([Option<i64>; Control::ALL.len()]);

impl ControlValues {
    /// Exposure fixed in 100 µs with everything automatic switched off: what poses need (perception.md §3).
    pub fn fixed_exposure(exposure_100us: i64, gain: Option<i64>) -> Self {
        let mut values = Self::default();
        values.set(Control::AutoExposure, Some(1));
        values.set(Control::AutoExposurePriority, Some(0));
        values.set(Control::Exposure, Some(exposure_100us));
        values.set(Control::Gain, gain);
        values
    }

    pub fn get(&self, control: Control) -> Option<i64> {
        self.0[control as usize]
    }

    pub fn set(&mut self, control: Control, value: Option<i64>) {
        self.0[control as usize] = value;
    }

    /// Those that have a value, in setting order.
    pub fn iter(&self) -> impl Iterator<Item = (Control, i64)> + '_ {
        Control::ALL.into_iter().filter_map(|control| Some((control, self.get(control)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_has_its_own_place_and_automatic_ones_come_first() {
        let mut values = ControlValues::default();
        for (i, control) in Control::ALL.into_iter().enumerate() {
            values.set(control, Some(i as i64));
        }
        assert!(values.iter().map(|(_, value)| value).eq(0..9));
        let order: Vec<_> = ControlValues::fixed_exposure(60, Some(32)).iter().map(|(control, _)| control).collect();
        assert_eq!(order, [Control::AutoExposure, Control::AutoExposurePriority, Control::Exposure, Control::Gain]);
    }
}

//! The gripper as policy and bridge see it (spec robot_control.md §7).
//!
//! A policy's action carries a number, −1 open … +1 close; [`GripperToggle`] makes commands of it. A hand that was given a
//! command says only where its fingers stand and whether they move; [`GripperMonitor`] makes a
//! [`GripperPhase`](crate::message::GripperPhase) of that, and bounds how long anybody waits.

mod monitor;
mod toggle;

pub use monitor::{Admission, EMPTY_WIDTH_M, GripperMonitor, GripperReading, MonitorSettings, SILENT_AFTER};
pub use toggle::{GripperToggle, ToggleSettings};

//! The real-time controller: state machine, tick, threads, and the programs around them.
//!
//! [`machine`] decides: a function from time and inputs to an outcome, the same on the robot, in MuJoCo and in a test
//! with a manual clock. [`control_loop`] acts: it waits for deadlines, moves messages and records times. [`inference`]
//! owns the policy. [`seeing`] turns cameras into what the policy observes of parts. [`run`] sequences episodes and, for `--robot sim`, the processes of the simulated robot.
//! [`service`] is the same without episodes of its own: Disarmed until a person says otherwise. [`shadow`] lets a candidate run along.
//! [`perfect_arm`] stands for a robot where a clock of its own does for time. [`secure`] makes the certificates of the link. [`record`] is what the flight recorder is told, [`replay`] computes it again, [`top`]
//! listens to a bridge.

pub mod allocations;
pub mod bench;
pub mod checks;
pub mod clock;
pub mod control_loop;
pub mod demo;
pub mod doctor;
pub mod inference;
pub mod judge;
pub mod machine;
pub mod motion;
pub mod perfect_arm;
pub mod processes;
pub mod realtime;
pub mod record;
pub mod replay;
pub mod report;
pub mod run;
pub mod secure;
pub mod seeing;
pub mod service;
pub mod shadow;
pub mod syscalls;
pub mod timing;
pub mod top;

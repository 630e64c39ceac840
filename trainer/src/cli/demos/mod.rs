//! `tenon-train demos`.

mod avoid;
mod gym;
mod robomimic;

use clap::Subcommand;
use tenon_train::interrupt::Interrupt;

use super::Ending;

#[derive(Debug, Subcommand)]
pub enum DemosCommand {
    /// D3IL Avoid: scripted in simulation, or converted from recorded ones.
    Avoid(avoid::AvoidArgs),
    /// Hopper, Walker2d, HalfCheetah: a policy trained from scratch to medium level, and rolled out.
    Gym(gym::GymArgs),
    /// Lift, Can, Square, Transport: scripted experts in simulation.
    Robomimic(robomimic::RobomimicArgs),
}

pub fn run(command: DemosCommand, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    match command {
        DemosCommand::Avoid(args) => avoid::run(args, interrupt),
        DemosCommand::Gym(args) => gym::run(args, interrupt),
        DemosCommand::Robomimic(args) => robomimic::run(args, interrupt),
    }
}

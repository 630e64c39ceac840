//! `tenon-calibrate`: see `tenon-calibrate --help`.

use anyhow::Context;
use clap::Parser;
use std::io::ErrorKind;
use std::process::ExitCode;
use tenon_calibrate::CalibrateError;
use tenon_calibrate::cli::{Cli, Command};
use tenon_calibrate::commands;
use tenon_calibrate::run::{self, Outcome};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(&cli) {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tenon-calibrate: {error:#}");
            ExitCode::from(Outcome::BadFile.exit_code())
        }
    }
}

fn execute(cli: &Cli) -> anyhow::Result<Outcome> {
    let out = &mut std::io::stdout().lock();
    match &cli.command {
        Command::Photo(args) => run::photo(args, out).context("photo"),
        Command::Board(args) => commands::board(args, out).context("board"),
        Command::Intrinsics(args) => commands::intrinsics(args, out).context("intrinsics"),
        Command::ImportIntrinsics(args) => commands::import_intrinsics(args, out).context("import-intrinsics"),
        Command::ExportIntrinsics(args) => commands::export_intrinsics(args, out).context("export-intrinsics"),
        Command::Place(args) => commands::place(args, out).context("place"),
        Command::Wizard(args) => commands::wizard(args, out).context("wizard"),
        Command::ArmPose(args) => commands::arm_pose(args, out).context("arm-pose"),
        Command::ArmSwing(args) => commands::arm_swing(args, out).context("arm-swing"),
        Command::TouchOff(args) => commands::touch_off(args, out).context("touch-off"),
        Command::Proof(args) => commands::proof(args, out).context("proof"),
        Command::Latency(args) => commands::latency(args, out).context("latency"),
        Command::Check(args) => commands::check(args, out).context("check"),
        Command::Noise(args) => commands::noise(args, out).context("noise"),
        Command::Show(args) => commands::show(args, out).context("show"),
    }
}

/// The reader of our output (`head`, say) has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<CalibrateError>(),
        Some(CalibrateError::WriteReport(error)) if error.kind() == ErrorKind::BrokenPipe
    )
}

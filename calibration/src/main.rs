//! `tenon-calibrate`: see `tenon-calibrate --help`.

use anyhow::Context;
use clap::Parser;
use std::io::ErrorKind;
use std::process::ExitCode;
use tenon_calibrate::CalibrateError;
use tenon_calibrate::cli::{Cli, Command};
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
    match &cli.command {
        Command::Photo(args) => run::photo(args, &mut std::io::stdout().lock()).context("photo"),
    }
}

/// The reader of our output (`head`, say) has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<CalibrateError>(),
        Some(CalibrateError::WriteReport(error)) if error.kind() == ErrorKind::BrokenPipe
    )
}

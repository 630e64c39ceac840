//! How fast the Gym environments step, for one thread and for two, with a batch of 40.
//!
//! `cargo run --release -p tenon-sim --example gym_speed [-- --json]`

use tenon_sim::SimError;
use tenon_sim::gym::{GymTask, SpeedOptions, measure_speed};

fn main() -> Result<(), SimError> {
    let json = std::env::args().any(|argument| argument == "--json");
    for task in GymTask::ALL {
        for threads in [1, 2] {
            let report = measure_speed(task, SpeedOptions { threads, ..SpeedOptions::default() })?;
            let (core, wall) = (report.per_core, report.per_second);
            if json {
                println!(
                    r#"{{"bench":"env/{task}/{threads}","unit":"control_steps/core_s","n":{},"p50":{},"p99":{},"max":{},"peer":null,"peer_p50":null,"ratio":null}}"#,
                    report.options.chunks, core.p50, core.p99, core.max,
                );
            } else {
                println!(
                    "{task}, {threads} thread(s): {:.0} control steps a core-second (slow 1 % {:.0}, best {:.0}), {:.0} a second",
                    core.p50, core.p99, core.max, wall.p50
                );
            }
        }
    }
    Ok(())
}

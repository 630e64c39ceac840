//! Control steps a second of the Robomimic tasks on one thread, beside their physics alone.
//!
//! `cargo run --release --workspace --example robomimic_speed [CONTROL_STEPS]`

use tenon_sim::robomimic::{RobomimicTask, measure_speed};

fn main() -> anyhow::Result<()> {
    let control_steps = std::env::args().nth(1).map_or(Ok(400), |steps| steps.parse())?;
    for task in RobomimicTask::ALL {
        let speed = measure_speed(task, control_steps)?;
        println!(
            "{task}: {:.0} control steps/s, physics alone {:.0}, {:.2} of it",
            speed.task_steps_s,
            speed.physics_steps_s,
            speed.task_steps_s / speed.physics_steps_s
        );
    }
    Ok(())
}

//! How fast the Avoid environment steps: control steps a second for one thread and for two, with a batch of 50.
//!
//! `cargo run --release -p tenon-sim --example avoid_speed [-- --json]`

use std::time::Instant;

use tenon_core::avoid::{ACTION_DIM, CHUNK_STEPS, EPISODE_STEPS, PHYSICS_STEPS_PER_CONTROL_STEP};
use tenon_sim::SimError;
use tenon_sim::avoid::{AvoidEnv, AvoidScene};
use tenon_sim::batch::{BatchEnv, BatchOptions};

const ENVIRONMENTS: usize = 50;
const EPISODES: usize = 5;

fn main() -> Result<(), SimError> {
    let json = std::env::args().any(|argument| argument == "--json");
    let scene = AvoidScene::new()?;
    for threads in [1, 2] {
        let environments = (0..ENVIRONMENTS).map(|_| AvoidEnv::new(&scene)).collect();
        let options = BatchOptions { threads, chunk_steps: CHUNK_STEPS, auto_reset: false, seed: 0 };
        let mut batch = BatchEnv::new(environments, options)?;
        // Control steps a second of each chunk of the whole batch.
        let mut rates = Vec::new();
        for _ in 0..EPISODES {
            batch.reset();
            for chunk in 0..EPISODE_STEPS / CHUNK_STEPS {
                let actions: Vec<f64> =
                    (0..ENVIRONMENTS * CHUNK_STEPS).flat_map(|index| wander(index / CHUNK_STEPS, chunk)).collect();
                let start = Instant::now();
                batch.step_chunk(&actions)?;
                let steps = (ENVIRONMENTS * CHUNK_STEPS) as f64;
                rates.push(steps / start.elapsed().as_secs_f64());
            }
        }
        rates.sort_by(f64::total_cmp);
        let (p50, max) = (rates[rates.len() / 2], rates[rates.len() - 1]);
        // The slow tail: 99 % of the chunks ran at least this fast.
        let p99 = rates[rates.len() / 100];
        if json {
            println!(
                r#"{{"bench":"env/avoid/{threads}","unit":"control_steps/s","n":{},"p50":{p50},"p99":{p99},"max":{max},"peer":null,"peer_p50":null,"ratio":null}}"#,
                rates.len()
            );
        } else {
            println!(
                "{threads} thread(s): {p50:.0} control steps/s ({:.0} physics steps/s), slow 1 % {p99:.0}, best {max:.0}",
                p50 * PHYSICS_STEPS_PER_CONTROL_STEP as f64
            );
        }
    }
    Ok(())
}

/// Forwards, each environment swinging in its own rhythm; a few paths touch obstacles.
fn wander(environment: usize, chunk: usize) -> [f64; ACTION_DIM] {
    let phase = environment as f64 * 1.7 + chunk as f64 * 0.8;
    [0.006 * phase.sin(), 0.007]
}

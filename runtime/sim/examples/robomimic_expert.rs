//! How often and how soon the scripted experts succeed, over a number of episodes on one thread.
//!
//! `cargo run --release --workspace --example robomimic_expert TASK [EPISODES] [FIRST]`; with `TRACE=1` what is seen every
//! five steps.

use tenon_sim::batch::{Environment, episode_seed};
use tenon_sim::robomimic::expert::Expert;
use tenon_sim::robomimic::{RobomimicEnv, RobomimicOptions, RobomimicScene, RobomimicTask, SceneSizes, Visuals};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let task: RobomimicTask = arguments.next().unwrap_or_default().parse()?;
    let episodes: u64 = arguments.next().map_or(Ok(20), |count| count.parse())?;
    let first: u64 = arguments.next().map_or(Ok(0), |count| count.parse())?;
    let trace = std::env::var_os("TRACE").is_some();
    let scene = RobomimicScene::new(task, SceneSizes::reference(task), Visuals::Without)?;
    let mut env = RobomimicEnv::new(&scene, RobomimicOptions::default());
    let mut observation = vec![0.0; task.observation_dim()];
    let mut action = vec![0.0; task.action_dim()];
    let (mut successes, mut steps) = (0, 0);
    for episode in first..first + episodes {
        let seed = episode_seed(42, episode, 0);
        env.reset(seed, &mut observation);
        let mut expert = Expert::new(task, seed, 17 << 32, &observation);
        let (mut done, mut length) = (0, 0);
        loop {
            expert.act(&observation, &mut action);
            if trace && length % 5 == 0 {
                println!("{length}: {}\n   sees {observation:.3?}\n   does {action:.2?}", expert.status());
            }
            let outcome = env.step(&action, &mut observation);
            length += 1;
            done = if outcome.reward > 0.0 { done + 1 } else { 0 };
            if done >= 10 || outcome.ended() {
                break;
            }
        }
        if done >= 10 {
            (successes, steps) = (successes + 1, steps + length);
        } else {
            println!("episode {episode} failed after {length} steps: {}", expert.status());
        }
    }
    println!(
        "{task}: {successes} of {episodes}, mean length of a success {:.0}",
        steps as f64 / successes.max(1) as f64
    );
    Ok(())
}

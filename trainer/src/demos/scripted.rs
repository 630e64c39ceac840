//! Demonstrations made in the simulation.

use rayon::prelude::*;
use tenon_core::avoid::{
    ACTION_DIM, COMMANDED_HEIGHT_M, DEMONSTRATION_WINDOW_M, GOAL_Y_M, MODE_COUNT, Mode, path_mode_bits,
};
use tenon_core::noise::SeededNoise;
use tenon_sim::avoid::{AvoidEnv, AvoidScene};

use super::{Episode, MAX_INCREMENT_M, ScriptedPath, Source};
use crate::error::TrainError;

/// Steps of the shortest and longest demonstration: those of the human ones.
const LENGTH: [usize; 2] = [61, 107];
/// Paths drawn for one episode before its mode counts as impossible.
const MOST_ATTEMPTS: usize = 200;
/// Streams of one seed that belong to demonstrations; the trainer's own purposes have smaller numbers.
const FIRST_STREAM: u64 = 16 << 32;

/// What to script.
#[derive(Debug, Clone, Copy)]
pub struct ScriptOptions {
    pub seed: u64,
    /// Episodes of each of the 24 modes.
    pub per_mode: usize,
    pub threads: usize,
}

/// What scripting gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScriptReport {
    /// By mode, then by number; `per_mode` of each.
    pub episodes: Vec<Episode>,
    /// Drawn paths on which the rod touched an obstacle.
    pub rejected_collisions: usize,
    /// Drawn paths of another mode or outside the lengths.
    pub rejected_others: usize,
    /// Whether `stop` asked to end early; the episodes are then incomplete.
    pub stopped: bool,
}

/// Scripts demonstrations of all modes. An episode depends on seed, mode and number only, never on the threads.
///
/// `stop` is asked before every path; `on_episode` is told each episode's number of steps as it is finished.
pub fn script(
    options: ScriptOptions,
    stop: &(dyn Fn() -> bool + Sync),
    on_episode: &(dyn Fn(usize) + Sync),
) -> Result<ScriptReport, TrainError> {
    let simulation = |e: tenon_sim::SimError| TrainError::Config { key: "simulation", detail: e.to_string() };
    let scene = AvoidScene::new().map_err(simulation)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads.max(1))
        .thread_name(|i| format!("demos-{i}"))
        .build()
        .map_err(|e| TrainError::Workers { threads: options.threads, detail: e.to_string() })?;
    let made: Vec<Result<Option<Made>, TrainError>> = pool.install(|| {
        (0..MODE_COUNT * options.per_mode)
            .into_par_iter()
            .with_max_len(1)
            .map_init(
                || AvoidEnv::new(&scene),
                |environment, index| {
                    let made = one_episode(environment, options, index, stop)?;
                    if let Some(made) = &made {
                        on_episode(made.episode.steps());
                    }
                    Ok(made)
                },
            )
            .collect()
    });
    let mut report = ScriptReport::default();
    for made in made {
        match made? {
            Some(made) => {
                report.episodes.push(made.episode);
                report.rejected_collisions += made.collisions;
                report.rejected_others += made.others;
            }
            None => report.stopped = true,
        }
    }
    Ok(report)
}

struct Made {
    episode: Episode,
    collisions: usize,
    others: usize,
}

/// Draws paths until one passes; `None` where `stop` said so.
fn one_episode(
    environment: &mut AvoidEnv,
    options: ScriptOptions,
    index: usize,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Option<Made>, TrainError> {
    let mode = Mode::from_index(index / options.per_mode).expect("index is below MODE_COUNT · per_mode");
    let mut noise = SeededNoise::new(options.seed, FIRST_STREAM + index as u64);
    let (mut collisions, mut others) = (0, 0);
    for _ in 0..MOST_ATTEMPTS {
        if stop() {
            return Ok(None);
        }
        let path = ScriptedPath::draw(mode, &mut noise);
        match demonstrate(environment, mode, &path, &mut noise) {
            Attempt::Good(episode) => return Ok(Some(Made { episode, collisions, others })),
            Attempt::Collision => collisions += 1,
            Attempt::Other => others += 1,
        }
    }
    let detail = format!(
        "mode {} found no free path in {MOST_ATTEMPTS} attempts ({collisions} collisions); \
         the scene and the scripted crossings do not fit together",
        mode.index()
    );
    Err(TrainError::Config { key: "demos", detail })
}

enum Attempt {
    Good(Episode),
    Collision,
    Other,
}

/// Follows one path in the simulation and records what the environment shows.
fn demonstrate(environment: &mut AvoidEnv, mode: Mode, path: &ScriptedPath, noise: &mut SeededNoise) -> Attempt {
    environment.restart();
    // One position more than steps, as in the recorded demonstrations.
    let targets = path.targets(LENGTH[1], noise);
    if !(LENGTH[0]..=LENGTH[1] - 1).contains(&targets.len()) {
        return Attempt::Other;
    }
    let mut episode = Episode {
        observations: Vec::with_capacity(targets.len()),
        actions: Vec::with_capacity(targets.len()),
        commanded_xy_m: vec![environment.commanded_xy_m()],
        mode: Some(mode),
        source: Source::Scripted,
    };
    for target in targets {
        let before = environment.commanded_xy_m();
        let action: [f32; ACTION_DIM] =
            std::array::from_fn(|i| (target[i] - before[i]).clamp(-MAX_INCREMENT_M, MAX_INCREMENT_M) as f32);
        episode.observations.push(environment.observation().map(|v| v as f32));
        episode.actions.push(action);
        // The set point is made from the stored action, so a replay of the file makes the same motion.
        let [x_m, y_m] = std::array::from_fn(|i| before[i] + f64::from(action[i]));
        if environment.step_setpoint([x_m, y_m, COMMANDED_HEIGHT_M]).is_err() {
            return Attempt::Other;
        }
        if environment.rod_touched() {
            return Attempt::Collision;
        }
        episode.commanded_xy_m.push([x_m, y_m]);
    }
    let commanded = path_mode_bits(episode.commanded_xy_m.iter().copied(), DEMONSTRATION_WINDOW_M).mode();
    let arrived = environment.tcp_position_m()[1] > GOAL_Y_M + 0.05;
    if environment.mode_bits().mode() == Some(mode) && commanded == Some(mode) && arrived {
        Attempt::Good(episode)
    } else {
        Attempt::Other
    }
}

//! `tenon test limits`: whatever is asked of the arm, what is commanded keeps every limit.
//!
//! Streams of commands as nobody should send them go into the stage that is the last before every command ([`stage`]): smooth ways,
//! jumps, ends of the range at full speed, into the table, into itself, values that are no numbers, time that stands still, runs back,
//! skips, or is no number, doubled and late commands. A tenth goes through the whole controller, in a world that lies to it
//! ([`controller`]). What comes out is judged by [`judge`] alone, which knows the limits but nothing of how they are kept; and again and
//! again nothing more is wanted, and the arm has to come to rest inside them in time.

mod controller;
mod judge;
mod report;
mod stage;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tenon_core::config::RobotConfig;

pub use report::Report;

/// From full speed on the FER (the requirement); other models take what their limits allow.
pub const LONGEST_STOP_S: f64 = 0.35;
/// Commands of one stage before a new one begins elsewhere.
pub(in crate::checks) const EPISODE: u64 = 20_000;

/// Every so many-th episode goes through the whole controller, whose ticks cost more.
const OF_STAGE: u64 = 10;

/// Runs `commands` commands on `threads` threads. `progress` is called with what has been done, now and then.
pub fn run(config: &RobotConfig, commands: u64, seed: u64, threads: usize, progress: impl Fn(u64) + Sync) -> Report {
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    let episodes = commands.div_ceil(EPISODE);
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut report = Report::default();
                    loop {
                        let episode = next.fetch_add(1, Ordering::Relaxed);
                        if episode >= episodes {
                            return report;
                        }
                        // Each has its own stream, so the number of threads changes nothing.
                        let count = EPISODE.min(commands - episode * EPISODE);
                        report.add(if episode % OF_STAGE == OF_STAGE - 1 {
                            controller::Trial::new(config, seed, episode).run(count)
                        } else {
                            stage::Trial::new(config, seed, episode).run(count)
                        });
                        progress(done.fetch_add(count, Ordering::Relaxed) + count);
                    }
                })
            })
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(found) => report.add(found),
                Err(_) => report.violate(|| "a thread panicked; its message stands above".to_owned()),
            }
        }
    });
    report.seconds = begin.elapsed().as_secs_f64();
    report
}

#[cfg(test)]
pub(in crate::checks) mod tests {
    use super::*;

    pub fn config() -> RobotConfig {
        tenon_core::config::parse("robot.toml", include_str!("../../../../../configs/robot.toml")).unwrap()
    }

    #[test]
    fn no_limit_is_exceeded_and_threads_change_nothing() {
        let report = run(&config(), 400_000, 1, 2, |_| {});
        assert!(report.violated == 0, "{}", report.text());
        assert!(report.longest_stop_s <= LONGEST_STOP_S, "{}", report.text());
        assert!(report.velocity > 0.99 && report.acceleration > 0.99 && report.position > 0.99, "{}", report.text());
        assert!(report.refused > 1000 && report.limited > 1000 && report.passed > 1000, "{}", report.text());
        assert!(report.running > 2000 && report.late_chunks > 10 && report.doubled_chunks > 10, "{}", report.text());
        assert!(report.faults.len() > 8, "{}", report.text());
        let again = run(&config(), 400_000, 1, 1, |_| {});
        assert_eq!((again.passed, again.refused, again.stops), (report.passed, report.refused, report.stops));
    }
}

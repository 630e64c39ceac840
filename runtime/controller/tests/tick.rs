//! The control thread as it runs on a robot: after arming it allocates nothing and asks the operating system for nothing but the clock, the
//! wait and the waking of a thread. What is measured here is no speed.

use std::time::Duration;

use tenon_controller::allocations::{self, CountingAllocator};
use tenon_controller::bench::tick::one_segment;
use tenon_core::config::RobotConfig;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const ROBOT: &str = include_str!("../../../configs/robot.toml");

#[test]
fn a_whole_run_allocates_nothing_and_calls_nothing_that_it_may_not() {
    let config: RobotConfig = tenon_core::config::parse("robot.toml", ROBOT).expect("the shipped file");
    let mut tries = (0..3).map(|_| one_segment(config.clone(), Duration::from_secs(3))).skip_while(|tried| {
        // On a machine that is busy with other tests the arm's state may be late: that is a fault as it should be, and not the question.
        tried.as_ref().is_err_and(|e| {
            ["no robot state", "bridge is silent", "no chunk"].iter().any(|w| e.to_string().contains(w))
        })
    });
    let segment = tries.next().expect("one of three segments runs without a fault").expect("it runs");
    if let Err(why) = &segment.syscalls {
        // Somebody's container may grant no filter; the allocations are judged anyway.
        println!("skipped: system calls of the control thread: {why}");
    }
    let calls = segment.syscalls.clone().unwrap_or_default();
    assert_eq!((segment.allocations, calls), (Some(0), Vec::new()), "of the control thread after arming");
    // How many of three thousand periods a busy machine misses is not asked here.
    assert!(segment.wake_up.len() >= 300, "{}", segment.wake_up.len());
    let seen = segment.recorded_ticks + segment.dropped_records;
    assert!(
        seen >= segment.watched_ticks && segment.watched_ticks > segment.wake_up.len(),
        "{seen} {}",
        segment.watched_ticks
    );
}

#[test]
fn calls_of_the_allocator_are_counted() {
    let before = allocations::of_this_thread();
    let mut values = std::hint::black_box(vec![1_u8; 100]);
    values.reserve(10_000);
    drop(std::hint::black_box(values));
    assert_eq!(allocations::of_this_thread() - before, 3, "asked for, changed, given back");
    assert!(allocations::are_counted());
}

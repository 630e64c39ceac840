//! A control step allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tenon_core::avoid::OBSERVATION_DIM;
use tenon_sim::SimError;
use tenon_sim::avoid::{AvoidEnv, AvoidScene};
use tenon_sim::batch::{BatchEnv, BatchOptions, BatchPictures, Environment};
use tenon_sim::gym::{CHUNK_STEPS, GymEnv, GymOptions, GymScene, GymTask};
use tenon_sim::render::{Quality, RenderOptions};
use tenon_sim::robomimic::{RobomimicEnv, RobomimicOptions, RobomimicScene, RobomimicTask, SceneSizes, Visuals};

struct Counting;

thread_local! {
    /// Of this thread alone: the test harness has threads of its own, which allocate when they like.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn stepping_and_resetting_avoid_allocates_nothing() {
    let mut env = AvoidEnv::new(&AvoidScene::new().unwrap());
    let mut observation = [0.0; OBSERVATION_DIM];
    // Straight at the first obstacle, so that contacts are part of it.
    let actions = [-0.001, 0.01].repeat(4);
    let before = ALLOCATIONS.get();
    env.reset(0, &mut observation);
    for _ in 0..10 {
        env.step_chunk(&actions, &mut observation);
    }
    let after = ALLOCATIONS.get();
    assert!(env.rod_touched());
    assert_eq!(after - before, 0);
}

#[test]
fn a_batch_of_gym_environments_allocates_nothing() {
    for task in GymTask::ALL {
        let scene = GymScene::new(task).unwrap();
        let environments = (0..2).map(|_| GymEnv::new(&scene, GymOptions::default())).collect();
        let options = BatchOptions { threads: 1, chunk_steps: CHUNK_STEPS, auto_reset: true, seed: 0 };
        let mut batch = BatchEnv::new(environments, options).unwrap();
        let actions = vec![1.0; 2 * CHUNK_STEPS * task.action_dim()];
        let before = ALLOCATIONS.get();
        batch.reset();
        let mut ended = 0;
        // Long enough that every task, the cheetah at its time limit, starts anew.
        for _ in 0..260 {
            batch.step_chunk(&actions).unwrap();
            ended += batch.outcomes().iter().filter(|outcome| outcome.ended()).count();
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{task}");
        assert!(ended >= 2, "{task}");
    }
}

#[test]
fn drawing_allocates_nothing_after_the_first_picture() {
    let scene = GymScene::new(GymTask::HOPPER).unwrap();
    let environments = (0..2).map(|_| GymEnv::new(&scene, GymOptions::default())).collect();
    let options = BatchOptions { threads: 1, chunk_steps: CHUNK_STEPS, auto_reset: true, seed: 0 };
    let mut batch = BatchEnv::new(environments, options).unwrap();
    batch.reset();
    let look = RenderOptions::of_sight(batch.environment_mut(0).sight(), 32, 32, Quality::Fast);
    let pictures = BatchPictures::new(look, 1).unwrap();
    let mut shown = vec![0; 2 * pictures.len_of_one()];
    if let Err(error @ SimError::NoGl { .. }) = batch.render(&pictures, &mut shown) {
        eprintln!("skipped: {error}");
        return;
    }
    let before = ALLOCATIONS.get();
    for _ in 0..5 {
        batch.render(&pictures, &mut shown).unwrap();
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert!(shown.iter().any(|&value| value > 0));
}

#[test]
fn stepping_and_resetting_robomimic_allocates_nothing() {
    for task in RobomimicTask::ALL {
        let scene = match RobomimicScene::new(task, SceneSizes::reference(task), Visuals::Without) {
            Ok(scene) => scene,
            Err(error) => {
                println!("skipped: {error}");
                return;
            }
        };
        let mut env = RobomimicEnv::new(&scene, RobomimicOptions::default());
        let mut observation = vec![0.0; task.observation_dim()];
        // Down to the table, so that contacts are part of it.
        let action = [0.0, 0.0, -1.0, 0.1, 0.0, 0.0, 1.0].repeat(task.arms());
        let before = ALLOCATIONS.get();
        env.reset(0, &mut observation);
        for _ in 0..20 {
            env.step(&action, &mut observation);
        }
        env.reset(1, &mut observation);
        assert_eq!(ALLOCATIONS.get() - before, 0, "{task}");
    }
}

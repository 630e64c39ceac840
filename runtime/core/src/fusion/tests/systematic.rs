//! Errors that stay the same from frame to frame.

use super::*;

/// A part at rest before sources (cameras) that come and go, each with an error of its own that stays.
struct Bench {
    rng: ChaCha8Rng,
    truth: Pose,
    /// By what each of three sources shifts a pose when it is seen by it alone.
    shifts: [Matrix6<f64>; 3],
    /// What stays: the true value of the unknowns.
    unknowns: [Vector6<f64>; 3],
    R: Matrix6<f64>,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let mut rng = rng(seed);
        let mut factor = || Cholesky::new(skewed_covariance(&mut rng, 0.001, 0.3)).unwrap().l();
        let shifts = [factor(), factor(), factor()];
        let unknowns = std::array::from_fn(|_| Vector6::from_fn(|_, _| normal(&mut rng)));
        let (truth, R) = (random_pose(&mut rng), skewed_covariance(&mut rng, 0.0004, 0.15));
        Self { rng, truth, shifts, unknowns, R }
    }

    /// What the sources of `seen` measure together: the mean of their shifts, and new noise.
    fn measure(&mut self, seen: &[usize], told: bool, at: MonotonicTime) -> PartMeasurement {
        let mut systematic = SystematicError::default();
        let mut shift = Vector6::zeros();
        for &source in seen {
            let by_unknowns = self.shifts[source] / seen.len() as f64;
            systematic.set(source, &by_unknowns);
            shift += by_unknowns * self.unknowns[source];
        }
        let shown = moved(&self.truth, &shift);
        let mut m = measurement(noisy(&mut self.rng, &shown, &self.R), self.R, at);
        m.systematic = told.then_some(systematic);
        m
    }
}

/// Which sources see the part: the set changes about every third of a second.
fn who_sees(rng: &mut ChaCha8Rng, before: &[usize]) -> Vec<usize> {
    if !before.is_empty() && rng.random_bool(0.9) {
        return before.to_vec();
    }
    let seen: Vec<usize> = (0..3).filter(|_| rng.random_bool(0.6)).collect();
    if seen.is_empty() { vec![rng.random_range(0..3)] } else { seen }
}

fn new_filter(config: PartFilterConfig) -> PartFilter {
    PartFilter::new(config, AgeLimits::default(), GripConfig::default(), frame(0))
}

/// Mean NEES after 20 and 200 frames, and motions of parts that never moved, over `seeds` parts of 200 frames.
fn at_rest(config: PartFilterConfig, seeds: u64, told: bool) -> ([f64; 2], u64) {
    let (mut nees, mut motions) = ([0.0; 2], 0);
    for seed in 0..seeds {
        let mut bench = Bench::new(5000 + seed);
        let mut changes = rng(seed);
        let (mut filter, mut seen) = (new_filter(config), Vec::new());
        for n in 0..200 {
            seen = who_sees(&mut changes, &seen);
            filter.update(&bench.measure(&seen, told, frame(n)), frame(n));
            if n == 19 || n == 199 {
                let estimate = filter.estimate(frame(n), None).unwrap();
                let e = pose_error(&estimate.T_april_part, &bench.truth);
                let P = Cholesky::new(estimate.covariance.unwrap()).unwrap();
                nees[usize::from(n == 199)] += e.dot(&P.solve(&e)) / seeds as f64;
            }
        }
        motions += filter.counts().motions;
    }
    (nees, motions)
}

#[test]
fn the_covariance_is_true_where_an_error_stays_and_changing_sources_are_no_motion() {
    for (name, config) in [("random walk", PartFilterConfig::default()), ("constant velocity", constant_velocity())] {
        let seeds = 300;
        let (told, motions) = at_rest(config, seeds, true);
        let (untold, untold_motions) = at_rest(config, seeds, false);
        println!(
            "{name}: NEES {:.2} and {:.2}, {motions} false motions in {} frames; not told {:.1} and {:.1}, {untold_motions}",
            told[0],
            told[1],
            200 * seeds,
            untold[0],
            untold[1]
        );
        assert!(told.iter().all(|nees| (4.5..7.5).contains(nees)), "{name}: {told:?}");
        assert!(untold.iter().all(|nees| *nees > 15.0), "too easy to show anything: {untold:?}");
        // Less than once in ten thousand frames, a change of the sources every ten frames.
        assert!(motions * 10_000 <= 200 * seeds && untold_motions > 100, "{name}: {motions} {untold_motions}");
    }
}

#[test]
fn what_three_sources_agree_on_is_not_given_up_for_what_one_says_alone() {
    let (mut kept, mut alone) = (0.0, 0.0);
    for seed in 0..200 {
        let mut bench = Bench::new(seed);
        let mut filter = new_filter(PartFilterConfig::default());
        for n in 0..60 {
            filter.update(&bench.measure(&[0, 1, 2], true, frame(n)), frame(n));
        }
        let mut lone = new_filter(PartFilterConfig::default());
        for n in 60..90 {
            let m = bench.measure(&[1], true, frame(n));
            assert_eq!(filter.update(&m, frame(n)), Outcome::Accepted);
            lone.update(&m, frame(n));
        }
        let off = |filter: &PartFilter| errors(&filter.estimate(frame(89), None).unwrap(), &bench.truth).0.powi(2);
        kept += off(&filter);
        alone += off(&lone);
    }
    let (kept_mm, alone_mm) = ((kept / 200.0f64).sqrt(), (alone / 200.0f64).sqrt());
    println!("after a second with one source: {kept_mm:.2} mm with three before, {alone_mm:.2} mm without");
    assert!(kept_mm < 0.8 * alone_mm, "{kept_mm} {alone_mm}");
}

#[test]
fn a_small_push_is_noticed_as_soon_with_systematic_errors_as_without() {
    // A standard or two of the systematic error, six of the noise: it cancels while the sources stay the same.
    let noticed_after = |told: bool| {
        let mut frames = Vec::new();
        for seed in 0..50 {
            let mut bench = Bench::new(seed);
            bench.R = covariance(0.0003, 0.1);
            let mut filter = new_filter(PartFilterConfig::default());
            let pushed = |n: i64| n >= 100;
            for n in 0..160 {
                if n == 100 {
                    bench.truth = moved(&bench.truth, &Vector6::new(0.0018, 0.0, 0.0, 0.0, 0.0, 0.0));
                }
                let motions = filter.counts().motions;
                filter.update(&bench.measure(&[0, 2], told, frame(n)), frame(n));
                if pushed(n) && filter.counts().motions > motions {
                    frames.push(n - 100);
                    break;
                }
            }
        }
        (frames.len(), frames.iter().sum::<i64>() as f64 / frames.len().max(1) as f64)
    };
    let ((told, after), (untold, untold_after)) = (noticed_after(true), noticed_after(false));
    println!("1.8 mm noticed {told} times of 50 after {after:.1} frames, without {untold} after {untold_after:.1}");
    assert!(told >= 48 && untold >= 48 && after <= untold_after + 1.0);
}

#[test]
fn a_part_let_go_of_keeps_the_uncertainty_it_was_grasped_with() {
    let mut bench = Bench::new(1);
    let mut filter = new_filter(PartFilterConfig::default());
    for n in 0..60 {
        filter.update(&bench.measure(&[0], true, frame(n)), frame(n));
    }
    let before = filter.estimate(frame(59), None).unwrap().covariance.unwrap();
    let systematic = bench.measure(&[0], true, frame(60)).systematic.unwrap().covariance();
    // What stays is all in it, and little else after two seconds.
    assert!(before.trace() > systematic.trace() && before.trace() < 1.3 * systematic.trace());
    let tool = bench.truth;
    let grasped = filter.on_gripper_event(GripperEvent::Closed { width_m: 0.03 }, frame(60), Some(&tool));
    assert_eq!(grasped, GripperOutcome::Grasped);
    filter.on_gripper_event(GripperEvent::Opening, frame(90), Some(&tool));
    let after = filter.estimate(frame(90), None).unwrap().covariance.unwrap();
    assert!((0..6).all(|i| after[(i, i)] >= 0.99 * before[(i, i)]), "{after} {before}");
}

//! From one chunk to the next, in every mode.

use super::bench::*;

/// Along +y by 5 mm an action, from where the arm is, whatever its request was.
fn long(_: u64) -> Vec<f32> {
    [0.0, 0.005].repeat(16)
}

/// The Avoid policy with a horizon of 16, of which 4 are executed.
fn long_spec() -> PolicySpec {
    PolicySpec { prediction_horizon: 16, ..spec(1) }
}

fn handing_over(hand_over: HandOver, lead_s: f64) -> Bench {
    let settings = Settings { hand_over, lead_s, ..settings() };
    let mut bench = Bench::of(long_spec());
    bench.controller = Controller::new(settings, &long_spec()).unwrap();
    bench.policy = Some(long);
    bench.arm()
}

#[test]
fn every_mode_goes_on_evenly_from_chunk_to_chunk_and_ends_after_its_actions() {
    let modes = [
        HandOver::Sequential,
        HandOver::Blend { executed: 4, periods: 3 },
        HandOver::Ensemble { executed: 1, decay: 0.1 },
        HandOver::Inpaint { executed: 4 },
    ];
    for mode in modes {
        for lead_s in [0.0, 0.02] {
            let mut bench = handing_over(mode, lead_s);
            let y = bench.tcp()[1];
            bench.tick(Some(Order::Run { actions: 24 }));
            bench.until(3, |e| matches!(e, Event::RunStarted));
            let mut slowest = f64::INFINITY;
            let (mut ticks, mut last) = (0, bench.arm.joint_positions_rad);
            loop {
                let outcome = bench.tick(None);
                ticks += 1;
                assert!(
                    !matches!(outcome.event, Some(Event::ChunkLate { .. } | Event::Faulted(_))),
                    "{mode:?} {lead_s}"
                );
                if matches!(outcome.event, Some(Event::RunEnded { actions: 24 })) {
                    break;
                }
                let step: f64 =
                    (0..7).map(|i| (bench.arm.joint_positions_rad[i] - last[i]).powi(2)).sum::<f64>().sqrt();
                if (20..100).contains(&ticks) {
                    slowest = slowest.min(step);
                }
                last = bench.arm.joint_positions_rad;
            }
            // The lead is on the way to the first action; then 24 · 5 ticks.
            assert!((120..=123).contains(&ticks), "{mode:?} {lead_s}: {ticks}");
            assert!((bench.tcp()[1] - y - 24.0 * 0.005).abs() < 1e-3, "{mode:?} {lead_s}: {:?}", bench.tcp());
            // 5 mm in 35 ms are 0.14 m/s; a joint or two of a metre's reach turn by 1.4 mrad in a tick. It never falters.
            assert!(slowest > 5e-4, "{mode:?} {lead_s}: {slowest}");
        }
    }
}

#[test]
fn the_next_chunk_is_asked_for_while_this_one_is_executed_and_guided_by_it() {
    let mut bench = handing_over(HandOver::Inpaint { executed: 4 }, 0.0);
    let mut guides = Vec::new();
    let mut order = Some(Order::Run { actions: 24 });
    for _ in 0..120 {
        if let Some(request) = bench.tick(order.take()).infer {
            guides.push((request.id, request.guide.frozen, request.guide.overlap, request.budget_s));
        }
    }
    // Observed at 0, 4, 8, …; the chunk of 4 begins with action 6 (a period's delay and one), the one before has said 6 to 16.
    assert_eq!(guides[0].2, 0);
    let (id, frozen, overlap, budget_s) = guides[1];
    assert_eq!((id, overlap), (1, 11));
    // At 4 the arm moves to 5; when the chunk comes, it moves to 6 at the latest.
    assert_eq!(frozen, 1);
    assert!((budget_s - 12.0 * 0.035).abs() < 1e-4, "{budget_s}");
    assert!(guides.len() >= 5, "{guides:?}");
}

#[test]
fn a_horizon_that_is_too_short_for_a_mode_is_named() {
    let settings = Settings { hand_over: HandOver::Inpaint { executed: 4 }, ..settings() };
    let error = Controller::new(settings, &spec(1)).unwrap_err().to_string();
    assert!(error.contains("needs a prediction horizon of 5, the policy has 4"), "{error}");
    // A lead of two periods takes two more.
    let settings = Settings { hand_over: HandOver::Inpaint { executed: 14 }, lead_s: 0.08, ..settings };
    let error = Controller::new(settings, &long_spec()).unwrap_err().to_string();
    assert!(error.contains("horizon of 17, the policy has 16"), "{error}");
}

#[test]
fn a_late_chunk_moves_the_schedule_and_is_not_made_up_for() {
    let ended = |anchor| {
        let mut bench = Bench::of(spec(1));
        bench.controller = Controller::new(Settings { anchor, ..settings() }, &spec(1)).unwrap();
        let mut bench = bench.arm();
        bench.tick(Some(Order::Run { actions: 20 }));
        bench.until(3, |e| matches!(e, Event::RunStarted));
        // The second chunk takes 30 ticks longer than there are.
        bench.policy = None;
        let late = bench.until(40, |e| matches!(e, Event::ChunkLate { chunk: 1 }));
        for _ in 0..30 {
            bench.tick(None);
        }
        bench.policy = Some(forward);
        bench.chunk = ActionChunk::new(1, 2, &forward(1));
        late + 30 + bench.until(200, |e| matches!(e, Event::RunEnded { actions: 20 }))
    };
    let (anew, burst) = (ended(Anchor::Reanchor), ended(Anchor::CatchUp));
    assert!((130..=132).contains(&anew), "20 · 5 and what the chunk was late: {anew}");
    assert!(burst < 112, "the authors make up for it: {burst}");
}

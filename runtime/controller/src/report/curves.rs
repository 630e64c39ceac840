//! The pictures of the page: paths over the obstacles, learning curve.

use tenon_core::avoid;

use super::results::{Goal, Iteration};
use super::svg::Plot;

/// Paths of the tool point in the plane, over the obstacles; successful ones in another colour.
pub fn paths<'a>(title: &str, paths: impl Iterator<Item = (&'a [[f64; 2]], bool)>) -> String {
    let mut plot = Plot::new([0.2, 0.8], [-0.34, 0.56], 340.0, 470.0);
    plot.axes(&[0.2, 0.35, 0.5, 0.65, 0.8], &[-0.28, -0.1, 0.08, 0.26, 0.4], |v| format!("{v:.2}"));
    for obstacle in &avoid::OBSTACLES {
        plot.disc(obstacle.center_xy_m, obstacle.radius_m, "obstacle");
    }
    plot.line([[0.2, avoid::GOAL_Y_M], [0.8, avoid::GOAL_Y_M]].into_iter(), "finish");
    let mut all: Vec<_> = paths.collect();
    all.sort_by_key(|(_, success)| *success);
    for (path, success) in all {
        plot.line(path.iter().copied(), if success { "path good" } else { "path bad" });
    }
    plot.finish(title)
}

/// Success rate of the training rollouts over iterations, with the goal where it is one of success.
pub fn learning(iterations: &[Iteration], goal: Option<Goal>) -> String {
    let last = iterations.last().map_or(1, |i| i.iteration).max(1) as f64;
    let mut plot = Plot::new([0.0, last], [0.0, 1.0], 560.0, 300.0);
    let step = (last / 8.0).ceil().max(1.0);
    let ticks: Vec<f64> = (0..).map(|i| f64::from(i) * step).take_while(|t| *t <= last).collect();
    plot.axes(&ticks, &[0.0, 0.25, 0.5, 0.75, 1.0], |v| format!("{v}"));
    if let Some(goal) = goal.and_then(|goal| goal.success_rate) {
        plot.line([[0.0, goal], [last, goal]].into_iter(), "finish");
    }
    plot.line(iterations.iter().map(|i| [i.iteration as f64, i.success_rate]), "curve");
    plot.finish("Success of the training rollouts (training noise) by iteration")
}

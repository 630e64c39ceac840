//! How many denoising steps fit into the time that is left until the chunk is needed.

/// Chunks whose times are remembered.
const REMEMBERED: usize = 16;
/// What is allowed for a chunk that takes longer than any of the last ones.
const RESERVE: f64 = 1.2;

/// Chooses among the step counts that a policy allows ([`crate::spec::Denoising::counts`]).
///
/// It counts on the longest time of the last chunks, for what is done once a chunk and for each step. Nothing is known before the first
/// chunk; where nothing fits, the smallest number is the best that can be done.
#[derive(Debug, Clone, PartialEq)]
pub struct StepBudget {
    counts: Vec<usize>,
    /// Seconds for what is done once, and for one step.
    once_s: [f64; REMEMBERED],
    step_s: [f64; REMEMBERED],
    next: usize,
}

impl StepBudget {
    /// `counts`: ascending, at least one.
    pub fn new(counts: Vec<usize>) -> Self {
        Self { counts, once_s: [0.0; REMEMBERED], step_s: [0.0; REMEMBERED], next: 0 }
    }

    /// The largest number of steps that is done within `budget_s`; all of them where the budget is infinite or no number.
    pub fn choose(&self, budget_s: f64) -> usize {
        let longest = |times: &[f64]| times.iter().fold(0.0, |a: f64, &b| a.max(b));
        let (once_s, step_s) = (longest(&self.once_s), longest(&self.step_s));
        // Not "greater": a budget that is no number is none.
        let fits = |count: &&usize| !((once_s + **count as f64 * step_s) * RESERVE > budget_s);
        self.counts.iter().rev().find(fits).or(self.counts.first()).copied().unwrap_or(0)
    }

    /// What a chunk in `count` steps took: once, and for all steps together, s.
    pub fn learn(&mut self, once_s: f64, walk_s: f64, count: usize) {
        self.once_s[self.next] = once_s;
        self.step_s[self.next] = walk_s / count.max(1) as f64;
        self.next = (self.next + 1) % REMEMBERED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_steps_that_fit_are_made() {
        let mut budget = StepBudget::new(vec![2, 5, 10, 20]);
        assert_eq!(budget.choose(0.001), 20, "nothing is known yet");
        budget.learn(0.002, 0.020, 20);
        for (budget_s, count) in
            [(f64::INFINITY, 20), (0.0265, 20), (0.0263, 10), (0.0145, 10), (0.0085, 5), (0.005, 2), (-1.0, 2)]
        {
            assert_eq!(budget.choose(budget_s), count, "{budget_s}");
        }
        assert_eq!(budget.choose(f64::NAN), 20);
    }

    #[test]
    fn one_slow_chunk_counts_until_it_is_forgotten() {
        let mut budget = StepBudget::new(vec![5, 10]);
        budget.learn(0.0, 0.1, 10);
        for _ in 0..REMEMBERED - 1 {
            budget.learn(0.0, 0.01, 10);
            assert_eq!(budget.choose(0.1), 5);
        }
        budget.learn(0.0, 0.01, 10);
        assert_eq!(budget.choose(0.1), 10);
    }
}

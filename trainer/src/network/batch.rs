//! Walks batches of any size through a network: shards over threads, blocks of rows within a shard.

use std::ops::Range;

use super::plan::BlockSize;
use super::{
    Critic, CriticRow, GaussianNetwork, GaussianPrepared, GaussianRow, GaussianRowGradient, GaussianWorkspace, Mode,
    NoiseNetwork, NoiseRow, Observations, PlanGradient, Prepared, Workspace,
};
use crate::workers::{Workers, shard_count, shard_range};

/// Smallest and largest cut of a batch. Numbers of the computation, not of the machine: they decide the order in which
/// gradients are added, so changing them changes the last bits of every run.
const SMALLEST_SHARD_ROWS: usize = 64;
const MOST_SHARDS: usize = 8;

/// The same for networks that compute so much of each state that a block holds a few only.
fn smallest_shard(block_states: usize) -> usize {
    SMALLEST_SHARD_ROWS.min(block_states)
}

/// Most shards of a batch: on a device the whole batch is one, walked in large blocks.
fn most_shards(on_device: bool) -> usize {
    if on_device { 1 } else { MOST_SHARDS }
}

fn blocks(rows: Range<usize>, block_rows: usize) -> impl Iterator<Item = Range<usize>> {
    let end = rows.end;
    rows.step_by(block_rows).map(move |start| start..(start + block_rows).min(end))
}

/// Blocks of neighbouring rows, none with more rows or distinct states than the network walks at a time.
fn blocks_of_states<'a>(
    rows: Range<usize>,
    most: BlockSize,
    load: impl Fn(usize) -> NoiseRow<'a>,
    mut walk: impl FnMut(Range<usize>, &[NoiseRow<'a>]),
) {
    let (mut start, mut states) = (rows.start, 0);
    let mut block: Vec<NoiseRow> = Vec::with_capacity(most.rows.min(rows.len()));
    for i in rows {
        let row = load(i);
        let is_new = !block.last().is_some_and(|last| last.shares_state(&row));
        if block.len() == most.rows || (is_new && states == most.states) {
            walk(start..i, &block);
            block.clear();
            (start, states) = (i, 0);
        }
        states += usize::from(is_new || block.is_empty());
        block.push(row);
    }
    if !block.is_empty() {
        walk(start..start + block.len(), &block);
    }
}

/// Splits `out` into the parts that the shards of `rows` rows own, `width` values a row.
fn split_by_shard<T>(mut out: &mut [T], rows: usize, shards: usize, width: usize) -> Vec<&mut [T]> {
    let mut parts = Vec::with_capacity(shards);
    for shard in 0..shards {
        let (part, rest) = out.split_at_mut(shard_range(rows, shards, shard).len() * width);
        parts.push(part);
        out = rest;
    }
    parts
}

/// Adds all shards to the first, in their order.
fn add_up(shards: &mut [PlanGradient]) {
    let (total, others) = shards.split_at_mut(1);
    others.iter().for_each(|other| total[0].add(other));
}

/// Buffers for batches through a [`NoiseNetwork`], and the gradient of the batch in hand.
#[derive(Debug)]
pub struct NoiseBatch {
    most: BlockSize,
    most_shards: usize,
    workspaces: Vec<Workspace>,
    shards: Vec<PlanGradient>,
}

impl NoiseBatch {
    /// For batches of about `rows` rows (more are only slower) whose steps are among `times` distinct ones.
    pub fn new(network: &NoiseNetwork, workers: &Workers, rows: usize, times: usize) -> Self {
        let BlockSize { rows: most_rows, states } = network.block_size();
        let most = BlockSize { rows: rows.clamp(1, most_rows), states: rows.clamp(1, states) };
        let most_shards = most_shards(network.is_on_device());
        let shards = shard_count(rows, SMALLEST_SHARD_ROWS, most_shards);
        let workspace = |_| network.workspace_for(most, Mode::Training);
        Self {
            most,
            most_shards,
            workspaces: (0..workers.threads().min(most_shards)).map(workspace).collect(),
            shards: (0..shards).map(|_| network.gradient(times)).collect(),
        }
    }

    /// Runs `rows` rows forward. For row i, `read(i, output, out_i)` takes what it wants from the network's output
    /// `[chunk_len]` into `out_i`, the row's `width` values of `out`.
    pub fn evaluate<'a>(
        &mut self,
        workers: &Workers,
        network: &NoiseNetwork,
        parameters: &[f32],
        prepared: &Prepared,
        load: impl Fn(usize) -> NoiseRow<'a> + Sync,
        out: &mut [f32],
        width: usize,
        read: impl Fn(usize, &[f32], &mut [f32]) + Sync,
    ) {
        let rows = out.len() / width;
        let shards = shard_count(rows, SMALLEST_SHARD_ROWS, self.most_shards);
        let mut parts = split_by_shard(out, rows, shards, width);
        let most = self.most;
        workers.run(&mut self.workspaces, &mut parts, |shard, ws, part| {
            let range = shard_range(rows, shards, shard);
            blocks_of_states(range.clone(), most, &load, |block, rows| {
                let output = network.forward(parameters, prepared, ws, rows);
                for (i, y) in block.zip(output.chunks_exact(network.chunk_len())) {
                    read(i, y, &mut part[(i - range.start) * width..][..width]);
                }
            });
        });
    }

    /// Starts the gradient of a new batch at zero.
    pub fn begin(&mut self) {
        self.shards[0].clear();
    }

    /// Runs `rows` rows forward and backward and adds to the batch's gradient.
    ///
    /// For row i, `differentiate(i, output, output_gradient, statistics)` puts ∂loss/∂output into `output_gradient`;
    /// both are `[chunk_len]`. Returns each shard's statistics, in order.
    pub fn accumulate<'a, S: Default + Send>(
        &mut self,
        workers: &Workers,
        network: &NoiseNetwork,
        parameters: &[f32],
        prepared: &Prepared,
        rows: usize,
        load: impl Fn(usize) -> NoiseRow<'a> + Sync,
        differentiate: impl Fn(usize, &[f32], &mut [f32], &mut S) + Sync,
    ) -> Vec<S> {
        let shards = shard_count(rows, SMALLEST_SHARD_ROWS, self.most_shards).min(self.shards.len());
        let len = network.chunk_len();
        let mut outputs: Vec<(&mut PlanGradient, S)> =
            self.shards[..shards].iter_mut().map(|g| (g, S::default())).collect();
        let most = self.most;
        workers.run(&mut self.workspaces, &mut outputs, |shard, ws, (gradient, statistics)| {
            if shard > 0 {
                gradient.clear();
            }
            blocks_of_states(shard_range(rows, shards, shard), most, &load, |block, rows| {
                network.forward(parameters, prepared, ws, rows);
                let (y, dy) = network.output_and_gradient(ws);
                for ((i, y), dy) in block.zip(y.chunks_exact(len)).zip(dy.chunks_exact_mut(len)) {
                    differentiate(i, y, dy, statistics);
                }
                network.backward(parameters, prepared, ws, gradient);
            });
        });
        let statistics = outputs.into_iter().map(|(_, s)| s).collect();
        add_up(&mut self.shards[..shards]);
        statistics
    }

    /// Completes the batch's gradient, in the layout of the parameters.
    pub fn finish(&mut self, network: &NoiseNetwork, parameters: &[f32], prepared: &mut Prepared) -> &[f32] {
        network.finish_gradient(parameters, prepared, &mut self.shards[0]);
        &self.shards[0].parameters
    }
}

/// Buffers for batches through a [`Critic`].
#[derive(Debug)]
pub struct CriticBatch {
    block_rows: usize,
    smallest_shard: usize,
    most_shards: usize,
    workspaces: Vec<Workspace>,
    shards: Vec<PlanGradient>,
}

impl CriticBatch {
    /// For batches of about `rows` states; more are only slower.
    pub fn new(critic: &Critic, workers: &Workers, rows: usize) -> Self {
        let block_rows = rows.clamp(1, critic.block_rows());
        let most_shards = most_shards(critic.is_on_device());
        let smallest_shard = smallest_shard(critic.block_rows());
        let shards = shard_count(rows, smallest_shard, most_shards);
        let workspace = |_| critic.workspace(block_rows, Mode::Training);
        Self {
            block_rows,
            smallest_shard,
            most_shards,
            workspaces: (0..workers.threads().min(most_shards)).map(workspace).collect(),
            shards: (0..shards).map(|_| critic.gradient()).collect(),
        }
    }

    /// V of `out.len()` states; `load(i)` is the i-th.
    pub fn evaluate<'a>(
        &mut self,
        workers: &Workers,
        critic: &Critic,
        parameters: &[f32],
        load: impl Fn(usize) -> CriticRow<'a> + Sync,
        out: &mut [f32],
    ) {
        let rows = out.len();
        let shards = shard_count(rows, self.smallest_shard, self.most_shards);
        let mut parts = split_by_shard(out, rows, shards, 1);
        let (block_rows, prepared) = (self.block_rows, critic.prepare(parameters));
        workers.run(&mut self.workspaces, &mut parts, |shard, ws, part| {
            let range = shard_range(rows, shards, shard);
            for block in blocks(range.clone(), block_rows) {
                let values = critic.forward(parameters, &prepared, ws, block.len(), |i| load(block.start + i));
                part[block.start - range.start..block.end - range.start].copy_from_slice(values);
            }
        });
    }

    /// V of `out.len()` observations.
    pub fn values(
        &mut self,
        workers: &Workers,
        critic: &Critic,
        parameters: &[f32],
        observations: Observations,
        out: &mut [f32],
    ) {
        let (len, image_len) = (critic.state_len(), critic.image_len());
        let load = |i| CriticRow { state: observations.state(i, len), images: observations.image(i, image_len) };
        self.evaluate(workers, critic, parameters, load, out);
    }

    /// Gradient of a loss over `rows` states. `differentiate(i, V, statistics)` returns ∂loss/∂V of the i-th.
    pub fn gradient<'a, S: Default + Send>(
        &mut self,
        workers: &Workers,
        critic: &Critic,
        parameters: &[f32],
        rows: usize,
        load: impl Fn(usize) -> CriticRow<'a> + Sync,
        differentiate: impl Fn(usize, f32, &mut S) -> f32 + Sync,
    ) -> (Vec<S>, &[f32]) {
        let shards = shard_count(rows, self.smallest_shard, self.most_shards).min(self.shards.len());
        let mut outputs: Vec<(&mut PlanGradient, S)> =
            self.shards[..shards].iter_mut().map(|g| (g, S::default())).collect();
        let (block_rows, mut prepared) = (self.block_rows, critic.prepare(parameters));
        workers.run(&mut self.workspaces, &mut outputs, |shard, ws, (gradient, statistics)| {
            gradient.clear();
            for block in blocks(shard_range(rows, shards, shard), block_rows) {
                critic.forward(parameters, &prepared, ws, block.len(), |i| load(block.start + i));
                let (values, d) = critic.output_and_gradient(ws);
                for ((i, &v), d) in block.zip(values).zip(d) {
                    *d = differentiate(i, v, statistics);
                }
                critic.backward(parameters, &prepared, ws, gradient);
            }
        });
        let statistics = outputs.into_iter().map(|(_, s)| s).collect();
        add_up(&mut self.shards[..shards]);
        critic.finish_gradient(parameters, &mut prepared, &mut self.shards[0]);
        (statistics, &self.shards[0].parameters)
    }
}

/// Buffers for batches through a [`GaussianNetwork`], and the gradient of the batch in hand.
#[derive(Debug)]
pub struct GaussianBatch {
    block_rows: usize,
    smallest_shard: usize,
    most_shards: usize,
    workspaces: Vec<GaussianWorkspace>,
    shards: Vec<PlanGradient>,
}

impl GaussianBatch {
    /// For batches of about `rows` rows; more are only slower.
    pub fn new(network: &GaussianNetwork, workers: &Workers, rows: usize) -> Self {
        let block_rows = rows.clamp(1, network.block_rows());
        let most_shards = most_shards(network.is_on_device());
        let smallest_shard = smallest_shard(network.block_rows());
        let shards = shard_count(rows, smallest_shard, most_shards);
        let workspace = |_| network.workspace(block_rows, Mode::Training);
        Self {
            block_rows,
            smallest_shard,
            most_shards,
            workspaces: (0..workers.threads().min(most_shards)).map(workspace).collect(),
            shards: (0..shards).map(|_| network.gradient()).collect(),
        }
    }

    /// Runs `out.len() / width` rows forward. For row i, `read(i, row, out_i)` takes what it wants into `out_i`, the
    /// row's `width` values of `out`.
    pub fn evaluate<'a>(
        &mut self,
        workers: &Workers,
        network: &GaussianNetwork,
        parameters: &[f32],
        prepared: &GaussianPrepared,
        load: impl Fn(usize) -> CriticRow<'a> + Sync,
        out: &mut [f32],
        width: usize,
        read: impl Fn(usize, GaussianRow, &mut [f32]) + Sync,
    ) {
        let rows = out.len() / width;
        let shards = shard_count(rows, self.smallest_shard, self.most_shards);
        let mut parts = split_by_shard(out, rows, shards, width);
        let block_rows = self.block_rows;
        workers.run(&mut self.workspaces, &mut parts, |shard, ws, part| {
            let range = shard_range(rows, shards, shard);
            for block in blocks(range.clone(), block_rows) {
                network.forward(parameters, prepared, ws, block.len(), |i| load(block.start + i));
                for i in block.clone() {
                    let out = &mut part[(i - range.start) * width..][..width];
                    read(i, network.row(prepared, ws, i - block.start), out);
                }
            }
        });
    }

    /// Starts the gradient of a new batch at zero.
    pub fn begin(&mut self) {
        self.shards[0].clear();
    }

    /// Runs `rows` rows forward and backward and adds to the batch's gradient.
    ///
    /// For row i, `differentiate(i, row, row_gradient, statistics)` puts ∂loss into all of `row_gradient`. Returns each
    /// shard's statistics, in order.
    pub fn accumulate<'a, S: Default + Send>(
        &mut self,
        workers: &Workers,
        network: &GaussianNetwork,
        parameters: &[f32],
        prepared: &GaussianPrepared,
        rows: usize,
        load: impl Fn(usize) -> CriticRow<'a> + Sync,
        differentiate: impl Fn(usize, GaussianRow, GaussianRowGradient, &mut S) + Sync,
    ) -> Vec<S> {
        let shards = shard_count(rows, self.smallest_shard, self.most_shards).min(self.shards.len());
        let mut outputs: Vec<(&mut PlanGradient, S)> =
            self.shards[..shards].iter_mut().map(|g| (g, S::default())).collect();
        let block_rows = self.block_rows;
        workers.run(&mut self.workspaces, &mut outputs, |shard, ws, (gradient, statistics)| {
            if shard > 0 {
                gradient.clear();
            }
            for block in blocks(shard_range(rows, shards, shard), block_rows) {
                network.forward(parameters, prepared, ws, block.len(), |i| load(block.start + i));
                network.backward(parameters, prepared, ws, gradient, |i, row, row_gradient| {
                    differentiate(block.start + i, row, row_gradient, statistics);
                });
            }
        });
        let statistics = outputs.into_iter().map(|(_, s)| s).collect();
        add_up(&mut self.shards[..shards]);
        statistics
    }

    /// Completes the batch's gradient, in the layout of the parameters.
    pub fn finish(&mut self, network: &GaussianNetwork, parameters: &[f32], prepared: &mut GaussianPrepared) -> &[f32] {
        network.finish_gradient(parameters, prepared, &mut self.shards[0]);
        &self.shards[0].parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of rows whose states are these, and the states in each.
    fn blocks_of(states: &[usize], rows: Range<usize>, most: BlockSize) -> Vec<(Range<usize>, usize)> {
        let values = [[0.0f32; 1]; 10];
        let load = |i: usize| NoiseRow { slot: 0, chunk: &[], state: &values[states[i]], images: None };
        let mut blocks = Vec::new();
        blocks_of_states(rows, most, load, |block, rows| {
            assert_eq!(block.len(), rows.len());
            let distinct = rows.chunk_by(|a, b| a.shares_state(b)).count();
            assert!(rows.len() <= most.rows && distinct <= most.states, "{block:?}");
            blocks.push((block, distinct));
        });
        blocks
    }

    #[test]
    fn rows_that_share_a_state_count_it_once() {
        let states = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 3, 4];
        let most = |rows, states| BlockSize { rows, states };
        assert_eq!(blocks_of(&states, 0..12, most(100, 2)), [(0..5, 2), (5..11, 2), (11..12, 1)]);
        assert_eq!(blocks_of(&states, 0..12, most(4, 100)), [(0..4, 2), (4..8, 3), (8..12, 2)]);
        assert_eq!(blocks_of(&states, 4..9, most(4, 1)), [(4..5, 1), (5..6, 1), (6..9, 1)]);
        assert_eq!(blocks_of(&states, 3..3, most(4, 1)), []);
        // A state that is cut stands in both blocks.
        assert_eq!(blocks_of(&states, 6..11, most(3, 1)), [(6..9, 1), (9..11, 1)]);
    }
}

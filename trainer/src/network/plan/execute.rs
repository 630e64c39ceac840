//! Passes over a plan, on the processor or on its device.
//!
//! On a device the same passes run over its memory. What comes from outside is copied there before, what is asked for
//! afterwards is copied back, so a caller sees the same slices either way.

use std::mem::take;

use super::backend::{DeviceBlock, Host, OnDevice, Scratch};
use super::backward::Backward;
use super::forward::Forward;
use super::workspace::{Block, PlanGradient, Prepared, Workspace};
use super::{NodeId, Op, Plan, Source, Space};

impl Plan {
    /// Constants and times.
    pub(super) fn run_shared(&self, parameters: &[f32], prepared: &mut Prepared) {
        let Prepared { buffers, times, packed, device } = prepared;
        let (plan, times, block, training) = (self, *times, &Block::default(), true);
        let wanted = |space| space <= Space::Time;
        let (Some(device), Some((parameters, there))) = (&self.device, device) else {
            let backend = Host { block, scratch: &mut Vec::new(), zeros: &vec![0.0; self.widest] };
            let parameters = packed.as_deref().unwrap_or(parameters);
            return Forward { plan, backend, parameters, shared: None, own: buffers, block, times, training }
                .run(wanted);
        };
        for (i, node) in self.nodes.iter().enumerate() {
            if node.op == Op::Input(Source::Sinusoid) {
                there.value[i].all().write(&buffers.value[i]);
            }
        }
        let backend = OnDevice { device, block: &DeviceBlock::default(), scratch: &mut Scratch::default() };
        let parameters = parameters.all();
        Forward { plan, backend, parameters, shared: None, own: there, block, times, training }.run(wanted);
        for id in &self.outputs {
            if wanted(self.node(*id).space) {
                there.value[id.0].all().read_into(&mut buffers.value[id.0]);
            }
        }
    }

    /// Everything that depends on the states alone, after [`Plan::set_states`].
    pub fn forward_states(&self, parameters: &[f32], prepared: &Prepared, ws: &mut Workspace) {
        self.forward(parameters, prepared, ws, Space::State);
    }

    /// Everything else, after [`Plan::set_rows`].
    pub fn forward_rows(&self, parameters: &[f32], prepared: &Prepared, ws: &mut Workspace) {
        self.forward(parameters, prepared, ws, Space::Row);
    }

    fn forward(&self, parameters: &[f32], prepared: &Prepared, ws: &mut Workspace, space: Space) {
        let (plan, times) = (self, prepared.times);
        let Workspace { buffers, block, device: there, scratch, zeros, training } = ws;
        let (block, training) = (&*block, *training);
        let wanted = |of| of == space;
        let (Some(device), Some(there), Some((parameters, shared))) = (&self.device, there, &prepared.device) else {
            let backend = Host { block, scratch, zeros };
            let (parameters, shared) = (prepared.parameters(parameters), Some(&prepared.buffers));
            return Forward { plan, backend, parameters, shared, own: buffers, block, times, training }.run(wanted);
        };
        for (i, node) in self.nodes.iter().enumerate() {
            if matches!(node.op, Op::Input(_)) && node.space == space && node.consumers > 0 {
                there.buffers.value[i].all().write(&buffers.value[i][..block.count(space, times) * node.len()]);
            }
        }
        if space == Space::Row {
            there.block.slots.all().write_words(&block.slots);
            there.block.state_of_row.all().write_words(&block.state_of_row);
            there.block.first_row.all().write_words(&block.first_rows());
        }
        let backend = OnDevice { device, block: &there.block, scratch: &mut there.scratch };
        let (parameters, shared, own) = (parameters.all(), Some(shared), &mut there.buffers);
        Forward { plan, backend, parameters, shared, own, block, times, training }.run(wanted);
        for id in &self.outputs {
            if wanted(self.node(*id).space) {
                let len = block.count(space, times) * self.node(*id).len();
                there.buffers.value[id.0].all().read_into(&mut buffers.value[id.0][..len]);
            }
        }
    }

    /// Adds the gradients of the block to `gradient`; follows forward passes of the same block, with the outputs'
    /// gradients in place ([`Plan::output_and_gradient`]).
    pub fn backward(&self, parameters: &[f32], prepared: &Prepared, ws: &mut Workspace, gradient: &mut PlanGradient) {
        debug_assert!(ws.training, "a workspace for inference keeps nothing for a backward pass");
        let (plan, times) = (self, prepared.times);
        let Workspace { buffers, block, device: there, scratch, zeros, .. } = ws;
        let block = &*block;
        let written = (0..self.nodes.len()).map(|i| self.is_output(NodeId(i))).collect();
        let (Some(device), Some(there), Some((parameters, _)), Some(sums)) =
            (&self.device, there, &prepared.device, &mut gradient.device)
        else {
            let (parameters, shared) = (prepared.parameters(parameters), Some(&mut gradient.shared));
            let (backend, d_parameters) = (Host { block, scratch, zeros }, &mut gradient.parameters[..]);
            let own = buffers;
            let pass = Backward { plan, backend, parameters, own, shared, d_parameters, block, times, written };
            return pass.rows_and_states();
        };
        let len = |id: NodeId| block.count(self.node(id).space, times) * self.node(id).len();
        let outputs = self.outputs.iter().filter(|id| self.node(**id).space >= Space::State);
        for &id in outputs {
            there.buffers.gradient[id.0].all().write(&buffers.gradient[id.0][..len(id)]);
        }
        let backend = OnDevice { device, block: &there.block, scratch: &mut there.scratch };
        let (parameters, own, shared) = (parameters.all(), &mut there.buffers, Some(&mut sums.shared));
        let d_parameters = sums.parameters.all();
        Backward { plan, backend, parameters, own, shared, d_parameters, block, times, written }.rows_and_states();
        for (i, node) in self.nodes.iter().enumerate() {
            if matches!(node.op, Op::Input(_)) && node.differentiable && node.consumers > 0 {
                there.buffers.gradient[i].all().read_into(&mut buffers.gradient[i][..len(NodeId(i))]);
            }
        }
    }

    /// Completes a gradient after its last block: what the constants' and times' own parameters get.
    pub fn finish_gradient(&self, parameters: &[f32], prepared: &mut Prepared, gradient: &mut PlanGradient) {
        let (plan, block) = (self, &Block::default());
        let Prepared { buffers, times, packed, device: there } = prepared;
        let times = *times;
        // Blocks may have added to any of them.
        let written = vec![true; self.nodes.len()];
        let wanted = |space| space <= Space::Time;
        if let (Some(device), Some((parameters, own)), Some(sums)) = (&self.device, there, &mut gradient.device) {
            own.gradient = take(&mut sums.shared);
            let backend = OnDevice { device, block: &DeviceBlock::default(), scratch: &mut Scratch::default() };
            let (parameters, d_parameters) = (parameters.all(), sums.parameters.all());
            let (back, shared) = (&mut *own, None);
            Backward { plan, backend, parameters, own: back, shared, d_parameters, block, times, written }.run(wanted);
            sums.shared = take(&mut own.gradient);
            sums.parameters.all().read_into(&mut gradient.parameters);
        } else {
            buffers.gradient = take(&mut gradient.shared);
            let backend = Host { block, scratch: &mut Vec::new(), zeros: &[] };
            let parameters = packed.as_deref().unwrap_or(parameters);
            let (own, d_parameters, shared) = (&mut *buffers, &mut gradient.parameters[..], None);
            Backward { plan, backend, parameters, own, shared, d_parameters, block, times, written }.run(wanted);
            gradient.shared = take(&mut buffers.gradient);
        }
        self.unpack(&mut gradient.parameters);
    }
}

//! The ring of recorded control steps.

use std::collections::VecDeque;

use tenon_polymetis::proto;

/// Steps kept: five minutes at 1 kHz, as the real server does.
pub const CAPACITY: usize = 300_000;
/// Steps in one block; memory grows by blocks, so that no step waits for a copy of the whole log.
const BLOCK: usize = 1000;

/// One recorded control step, in the units and precision of the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StateRecord {
    /// Wall clock of the robot client: seconds since 1970 and nanoseconds.
    pub seconds: i64,
    pub nanos: i32,
    pub joint_positions: [f32; 7],
    pub joint_velocities: [f32; 7],
    pub joint_torques_computed: [f32; 7],
    pub prev_joint_torques_computed: [f32; 7],
    pub prev_joint_torques_computed_safened: [f32; 7],
    pub motor_torques_measured: [f32; 7],
    pub motor_torques_external: [f32; 7],
    pub motor_torques_desired: [f32; 7],
    pub prev_controller_latency_ms: f32,
    pub prev_command_successful: bool,
    pub error_code: i32,
}

impl StateRecord {
    /// The message of this record.
    pub fn to_message(&self) -> proto::RobotState {
        proto::RobotState {
            timestamp: Some(prost_types::Timestamp { seconds: self.seconds, nanos: self.nanos }),
            joint_positions: self.joint_positions.to_vec(),
            joint_velocities: self.joint_velocities.to_vec(),
            joint_torques_computed: self.joint_torques_computed.to_vec(),
            prev_joint_torques_computed: self.prev_joint_torques_computed.to_vec(),
            prev_joint_torques_computed_safened: self.prev_joint_torques_computed_safened.to_vec(),
            motor_torques_measured: self.motor_torques_measured.to_vec(),
            motor_torques_external: self.motor_torques_external.to_vec(),
            motor_torques_desired: self.motor_torques_desired.to_vec(),
            prev_controller_latency_ms: self.prev_controller_latency_ms,
            prev_command_successful: self.prev_command_successful,
            error_code: self.error_code,
        }
    }
}

/// Records by log index; the oldest are forgotten past [`CAPACITY`].
#[derive(Debug, Default)]
pub struct StateLog {
    blocks: VecDeque<Vec<StateRecord>>,
    /// Index of the first record kept; a multiple of [`BLOCK`].
    first: usize,
    recorded: usize,
}

impl StateLog {
    /// Records ever written: the log index of the next one.
    pub fn recorded(&self) -> usize {
        self.recorded
    }

    /// Writes one record.
    pub fn push(&mut self, record: StateRecord) {
        if self.recorded.is_multiple_of(BLOCK) {
            let block = if self.recorded - self.first >= CAPACITY {
                self.first += BLOCK;
                let mut oldest = self.blocks.pop_front().unwrap_or_default();
                oldest.clear();
                oldest
            } else {
                Vec::with_capacity(BLOCK)
            };
            self.blocks.push_back(block);
        }
        if let Some(block) = self.blocks.back_mut() {
            block.push(record);
            self.recorded += 1;
        }
    }

    /// The record of this log index, if it is kept.
    pub fn get(&self, index: usize) -> Option<&StateRecord> {
        let offset = index.checked_sub(self.first)?;
        self.blocks.get(offset / BLOCK)?.get(offset % BLOCK)
    }

    /// The newest record.
    pub fn last(&self) -> Option<&StateRecord> {
        self.get(self.recorded.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_and_counts_all() {
        let mut log = StateLog::default();
        assert!(log.last().is_none() && log.get(0).is_none());
        for seconds in 0..(CAPACITY + 2 * BLOCK + 1) as i64 {
            log.push(StateRecord { seconds, ..Default::default() });
        }
        assert_eq!(log.recorded(), CAPACITY + 2 * BLOCK + 1);
        assert_eq!(log.last().map(|r| r.seconds), Some((CAPACITY + 2 * BLOCK) as i64));
        assert!(log.get(2 * BLOCK).is_none() && log.get(log.recorded()).is_none() && log.get(usize::MAX).is_none());
        assert_eq!(log.get(4 * BLOCK).map(|r| r.seconds), Some(4 * BLOCK as i64));
    }
}

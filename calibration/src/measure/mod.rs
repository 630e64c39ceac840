//! Numbers from poses and times: what the wizard's later steps measure. Values in, values out.

pub mod drift;
pub mod latency;
pub mod noise;
pub mod proof;
pub mod registration;
pub mod statistics;

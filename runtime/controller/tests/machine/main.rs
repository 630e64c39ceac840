//! The state machine with a manual clock and a perfect arm: what ends where, and that nothing bad is ever commanded.

mod bench;
mod hand;
mod hand_over;
mod parts;
mod running;
mod stopping;

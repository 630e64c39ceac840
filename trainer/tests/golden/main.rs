//! Golden numbers of the authors' implementation (`TENON_GOLDEN`, else `../shared/golden` beside the repository).
//!
//! Sizes come from the files. A set named by `TENON_GOLDEN` may lack a case, which is said; the default set must be
//! whole. Tolerances are those of the set's README; where an array exists in f64 that is the reference.

mod dppo;
mod fullsize;
mod gae;
mod load;
mod networks;
mod ppo;
mod pretrain;
mod schedule;

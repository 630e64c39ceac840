//! What needs more than one crate: the controller on the simulated arm, the installation, the units.

mod chain;
mod faults;
mod help;
mod install;
mod polymetis_suite;
mod programs;
mod record;
mod report;
mod secure;
mod seeing_run;
mod service;
mod sim_loop;
mod systemd;

//! What each command answers, one file for each group.
//!
//! * [`general`]: help, versions, status, metrics
//! * [`faults`]: counters, marks
//! * [`record`]: events: watching, keeping, traces
//! * [`control`]: pausing, stepping, stopping at faults, registers
//! * [`memory`]: bytes, instructions, walks
//! * [`processes`]: processes, their areas, frames
//! * [`pages`]: page tables: dumps, differences, translations, searches
//! * [`snapshot`]: many of these in one
//! * [`second_level`]: what the host has backed, and its own page faults

pub mod control;
pub mod faults;
pub mod general;
pub mod memory;
pub mod pages;
pub mod processes;
pub mod record;
pub mod second_level;
pub mod snapshot;

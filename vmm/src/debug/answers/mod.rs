//! What each command answers, one file for each group.
//!
//! * [`general`]: help, versions, status, metrics
//! * [`faults`]: counters, marks
//! * [`record`]: events: watching, keeping, traces
//! * [`control`]: pausing, stepping, stopping at faults, registers
//! * [`memory`]: bytes, instructions, walks

pub mod control;
pub mod faults;
pub mod general;
pub mod memory;
pub mod record;

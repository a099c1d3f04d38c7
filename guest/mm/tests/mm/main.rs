//! Tests of memory management on a machine made of a vector.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers of tests"
)]
#![allow(unreachable_pub, missing_docs, reason = "modules of one test program")]

mod areas;
mod calls;
mod check;
mod disk;
mod faults;
mod forks;
mod frames;
mod lab;
mod machine;
mod maps;
mod model;
mod pressure;
mod random;
mod runs;
mod starved;
mod stats;
mod swap;
mod wild;

//! Differential testing of memory management against Linux.
//!
//! The tester (`guest/programs/difftest`) makes random programs of memory
//! system calls and prints what they see; with a folder, of file system calls and
//! mappings of files as well. This driver runs it in batches on
//! two kernels, usually this machine's Linux and a lab, and compares. A
//! program on which they differ is shrunk to the operations that matter and
//! shown with both transcripts.
//!
//! - [`side`] runs the tester on one kernel,
//! - [`folder`] is where its programs work on files,
//! - [`batch`] compares many programs by hash,
//! - [`shrink`] leaves out operations,
//! - [`report`] shows what is left.
#![forbid(unsafe_code)]

pub mod batch;
pub mod folder;
pub mod report;
pub mod shrink;
pub mod side;

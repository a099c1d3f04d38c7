//! The files of the guest kernel: what is behind `open`, `read`, `stat`, `pipe`
//! and `/proc`.
//!
//! Pure logic: no hardware, no scheduler, nothing that sleeps. The kernel gives
//! a [`Platform`] (time, randomness, waking sleepers), a [`PageStore`] (the page
//! cache of the memory manager, which holds the bytes of files), buffers in user
//! memory ([`Sink`], [`Source`]); it gets a [`Vfs`] to walk in, [`OpenFile`]s to
//! work with and an [`FdTable`] to keep them in. Everything fails with the
//! [`Errno`] that Linux has for it.
//!
//! | module | content |
//! | --- | --- |
//! | [`errno`], [`abi`] | Linux's numbers, constants and records |
//! | [`buffer`], [`store`], [`platform`] | what the kernel provides |
//! | [`inode`] | the border behind which each file system stands |
//! | [`dentry`], [`mount`], [`path`], [`tree`] | names, mounts, walks, operations on names |
//! | [`mod@file`], [`open_file`], [`fd_table`] | open files and descriptors |
//! | [`lock`], [`executing`] | locks on files; who executes them |
//! | [`memfs`], [`devfs`], [`device`] | tmpfs, `/dev` |
//! | [`pipe`], [`event`], [`tty`] | pipes, event counters, terminals |
//! | [`procfs`] | `/proc` |
//! | [`readahead`], [`write_errors`] | files with something behind them |
//! | [`text`] | numbers as text |
//!
//! Locks are spin locks that are held for short pieces of pure computation,
//! except that a pipe holds its own while it copies. Whoever holds one must not
//! be preempted in favour of another user of this crate.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod abi;
mod anonymous;
pub mod attributes;
pub mod buffer;
pub mod dentry;
pub mod devfs;
pub mod device;
pub mod errno;
pub mod event;
pub mod executing;
pub mod fd_table;
pub mod file;
pub mod inode;
pub mod lock;
pub mod memfs;
pub mod mount;
mod name_map;
pub mod open_file;
pub mod path;
pub mod pipe;
pub mod platform;
pub mod procfs;
pub mod readahead;
pub mod store;
pub mod text;
pub mod tree;
pub mod tty;
pub mod write_errors;

pub use buffer::{Sink, Source};
pub use errno::{Errno, Result};
pub use fd_table::FdTable;
pub use inode::{FileSystem, Inode};
pub use open_file::{OpenFile, Whence};
pub use path::{FsContext, PathNode, WeakPathNode};
pub use platform::{Platform, Readiness, Timespec, WaitChannel};
pub use store::{ObjectId, PageStore};
pub use tree::{Lookup, OpenHow, Vfs};

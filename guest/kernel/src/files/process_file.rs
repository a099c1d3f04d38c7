//! `pidfd`: a process that is a file. It names one process even after another has
//! got the same number, and can be waited for beside other files.

use alloc::sync::Arc;

use pagelab_vfs::file::File;
use pagelab_vfs::{Errno, OpenFile, Readiness, Result, Sink, Source, WaitChannel};

use super::vfs;
use crate::process::{Process, State};

/// A process that is a file.
pub struct ProcessFile {
    process: Arc<Process>,
}

impl ProcessFile {
    /// A file for a process; `flags` as `open` has them.
    pub fn open(process: Arc<Process>, flags: u32) -> Arc<OpenFile> {
        vfs().anonymous_file(Arc::new(Self { process }), b"anon_inode:[pidfd]", flags)
    }

    /// The process that a file is.
    ///
    /// # Errors
    ///
    /// EBADF if it is none.
    pub fn process_of(file: &OpenFile) -> Result<&Arc<Process>> {
        file.behaviour::<Self>().map(|file| &file.process).ok_or(Errno::EBADF)
    }
}

impl File for ProcessFile {
    fn read(&self, _offset: u64, _sink: &mut dyn Sink) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn write(&self, _offset: u64, _source: &mut dyn Source) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// Its end can be read, as it were.
    fn poll(&self) -> Readiness {
        match self.process.state() {
            State::Alive => Readiness::empty(),
            State::Ended(_) | State::Reaped(_) => Readiness::READ,
        }
    }

    fn wait_channel(&self) -> Option<WaitChannel> {
        Some(self.process.ended)
    }
}

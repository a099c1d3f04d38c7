//! Finding and forgetting nodes, and what can be asked about one without opening
//! it.

use rustix::fs::{Access, FileType};
use rustix::io::Errno;

use super::abi::{AccessIn, BatchForgetIn, EntryOut, ForgetIn, ForgetOne, StatfsOut};
use super::attributes::{VALID_SECONDS, attributes};
use super::confine::{Component, find};
use super::request::{Answer, Body};
use super::server::Server;

impl Server {
    /// Finds `name` in folder `folder`, and remembers it for the guest.
    pub(super) fn enter(&mut self, folder: u64, name: Component<'_>) -> Result<EntryOut, Errno> {
        let descriptor = find(self.nodes.folder(folder)?, name)?;
        let stat = rustix::fs::fstat(&descriptor)?;
        let nodeid = self.nodes.found(descriptor, &stat, name.as_c_str().to_bytes())?;
        Ok(EntryOut {
            nodeid,
            generation: 0,
            entry_valid: VALID_SECONDS,
            attr_valid: VALID_SECONDS,
            entry_valid_nsec: 0,
            attr_valid_nsec: 0,
            attr: attributes(&stat),
        })
    }

    pub(super) fn lookup(&mut self, folder: u64, body: &mut Body) -> Result<Answer, Errno> {
        let name = body.last_name()?;
        Ok(Answer::structure(&self.enter(folder, name)?))
    }

    pub(super) fn forget(&mut self, node: u64, body: &mut Body) -> Result<Answer, Errno> {
        // The protocol has no answer to this, not even an error.
        if let Ok(ForgetIn { nlookup }) = body.structure() {
            self.nodes.forget(node, nlookup);
        }
        Ok(Answer::Silence)
    }

    pub(super) fn batch_forget(&mut self, body: &mut Body) -> Result<Answer, Errno> {
        let count = body.structure().map_or(0, |BatchForgetIn { count, .. }| count);
        for _ in 0..count {
            // As many as there are, whatever the count says.
            let Ok(ForgetOne { nodeid, nlookup }) = body.structure() else { break };
            self.nodes.forget(nodeid, nlookup);
        }
        Ok(Answer::Silence)
    }

    pub(super) fn read_link(&self, node: u64) -> Result<Answer, Errno> {
        let node = self.nodes.get(node)?;
        if node.kind != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let text = rustix::fs::readlinkat(node.descriptor(), c"", Vec::new())?;
        Ok(Answer::Bytes(text.into_bytes()))
    }

    pub(super) fn statfs(&self, node: u64) -> Result<Answer, Errno> {
        let stat = rustix::fs::fstatvfs(self.nodes.get(node)?.descriptor())?;
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Answer::structure(&StatfsOut {
            blocks: stat.f_blocks,
            bfree: stat.f_bfree,
            bavail: stat.f_bavail,
            files: stat.f_files,
            ffree: stat.f_ffree,
            bsize: narrow(stat.f_bsize),
            namelen: narrow(stat.f_namemax),
            frsize: narrow(stat.f_frsize),
            ..StatfsOut::default()
        }))
    }

    pub(super) fn access(&self, node: u64, body: &mut Body) -> Result<Answer, Errno> {
        let asked: AccessIn = body.structure()?;
        let node = self.nodes.get(node)?;
        let bits = u8::try_from(asked.mask).ok().and_then(|bits| Access::from_bits(bits.into()));
        let wanted = bits.ok_or(Errno::INVAL)?;
        if self.read_only && wanted.contains(Access::WRITE_OK) {
            return Err(Errno::ROFS);
        }
        if node.kind == FileType::Symlink {
            return Ok(Answer::done());
        }
        self.descriptors.access(node.descriptor(), wanted)?;
        Ok(Answer::done())
    }
}

//! Removing and renaming.

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::abi::{Rename2In, RenameIn};
use super::request::{Answer, Body};
use super::server::Server;

impl Server {
    pub(super) fn unlink(&self, folder: u64, body: &mut Body) -> Result<Answer, Errno> {
        self.remove(folder, body, AtFlags::empty())
    }

    pub(super) fn rmdir(&self, folder: u64, body: &mut Body) -> Result<Answer, Errno> {
        self.remove(folder, body, AtFlags::REMOVEDIR)
    }

    fn remove(&self, folder: u64, body: &mut Body, flags: AtFlags) -> Result<Answer, Errno> {
        let name = body.last_name()?;
        rustix::fs::unlinkat(self.nodes.folder(folder)?, name.as_c_str(), flags)?;
        Ok(Answer::done())
    }

    pub(super) fn rename(&self, folder: u64, body: &mut Body) -> Result<Answer, Errno> {
        let RenameIn { newdir } = body.structure()?;
        self.move_entry(folder, newdir, body, RenameFlags::empty())
    }

    pub(super) fn rename2(&self, folder: u64, body: &mut Body) -> Result<Answer, Errno> {
        let Rename2In { newdir, flags, .. } = body.structure()?;
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        // A whiteout is a device node.
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(flags) {
            return Err(Errno::INVAL);
        }
        self.move_entry(folder, newdir, body, flags)
    }

    fn move_entry(
        &self,
        from: u64,
        to: u64,
        body: &mut Body,
        flags: RenameFlags,
    ) -> Result<Answer, Errno> {
        let (old, new) = (body.string()?, body.string()?);
        let (old, new) = (body.component(old)?.as_c_str(), body.component(new)?.as_c_str());
        let (from, to) = (self.nodes.folder(from)?, self.nodes.folder(to)?);
        rustix::fs::renameat_with(from, old, to, new, flags)?;
        Ok(Answer::done())
    }
}

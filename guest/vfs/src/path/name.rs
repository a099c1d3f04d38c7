//! From a node back to its path.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::PathNode;
use crate::abi::PATH_MAX;

/// How a path that was written begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// At the root that was asked for.
    Root,
    /// Somewhere that cannot be reached from there.
    Elsewhere,
    /// Nowhere: a pipe or another thing without a place.
    Anonymous,
}

/// Appends the path of `node` as seen from `root`; the name of an anonymous
/// node stands alone.
pub(crate) fn write_path(node: &PathNode, root: &PathNode, out: &mut Vec<u8>) -> Reach {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut here = node.clone();
    let reach = loop {
        if here.same(root) {
            break Reach::Root;
        }
        if let Some(parent) = here.dentry.parent() {
            names.push(here.dentry.name());
            here.dentry = parent;
        } else if !Arc::ptr_eq(&here.mount.root, &here.dentry) {
            out.extend_from_slice(&here.dentry.name());
            break Reach::Anonymous;
        } else if let Some(at) = &here.mount.at {
            here = at.clone();
        } else {
            break Reach::Elsewhere;
        }
    };
    if names.is_empty() && reach != Reach::Anonymous {
        out.push(b'/');
    }
    for name in names.iter().rev() {
        out.push(b'/');
        out.extend_from_slice(name);
    }
    reach
}

impl PathNode {
    /// The path seen from `root`, if it can be reached from there.
    pub(crate) fn path_below(&self, root: &Self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        (write_path(self, root, &mut text) == Reach::Root).then_some(text)
    }

    /// The path as `/proc/PID/fd` and `/proc/PID/maps` show it, seen from
    /// `root`: with ` (deleted)` behind it if its name is gone.
    #[must_use]
    pub fn display(&self, root: &Self) -> Vec<u8> {
        let mut text = Vec::new();
        write_path(self, root, &mut text);
        if self.dentry.is_deleted() {
            text.extend_from_slice(b" (deleted)");
        }
        text
    }
}

impl super::FsContext {
    /// What `getcwd` gives, without the final NUL.
    pub fn working_directory(&self) -> crate::Result<Vec<u8>> {
        if self.cwd.dentry.is_deleted() {
            return Err(crate::Errno::ENOENT);
        }
        let mut text = Vec::new();
        if write_path(&self.cwd, &self.root, &mut text) != Reach::Root {
            text.splice(0..0, *b"(unreachable)");
        }
        if text.len() >= PATH_MAX {
            return Err(crate::Errno::ENAMETOOLONG);
        }
        Ok(text)
    }
}

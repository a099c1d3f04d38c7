//! The walk along a path, component by component.

use alloc::borrow::Cow;
use alloc::sync::Arc;
use core::ops::Range;

use super::{FsContext, PathNode};
use crate::abi::{LINKS_MAX, PATH_MAX};
use crate::dentry::Dentry;
use crate::errno::{Errno, Result};
use crate::inode::{FileKind, LinkTarget};
use crate::mount::MountTable;

/// What the last component of a path is.
#[derive(Debug)]
pub(crate) enum Last {
    /// A name: where it stands in the text.
    Name(Range<usize>),
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// There is none: the path was `/`.
    Root,
}

/// Where a link at the end led.
#[derive(Debug)]
pub(crate) enum Followed {
    /// To a path, which is what is left to walk now.
    Path,
    /// To this node; the walk is at its end.
    Node(PathNode),
}

/// A walk in progress.
pub(crate) struct Walk<'a> {
    mounts: &'a MountTable,
    context: &'a FsContext,
    /// The directory reached.
    pub(crate) here: PathNode,
    text: Cow<'a, [u8]>,
    position: usize,
    links: u32,
    /// A slash followed the last component: it has to be a directory.
    pub(crate) must_be_directory: bool,
}

impl<'a> Walk<'a> {
    /// Starts at `start` (else the working directory), or at the root if the
    /// path says so.
    pub(crate) fn new(
        mounts: &'a MountTable,
        context: &'a FsContext,
        start: Option<&PathNode>,
        path: &'a [u8],
    ) -> Result<Self> {
        match path {
            [] => return Err(Errno::ENOENT),
            _ if path.len() >= PATH_MAX => return Err(Errno::ENAMETOOLONG),
            _ => {}
        }
        let here = match (path[0], start) {
            (b'/', _) => &context.root,
            (_, Some(start)) => start,
            (_, None) => &context.cwd,
        };
        if !here.dentry.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        Ok(Self {
            mounts,
            context,
            here: here.clone(),
            text: Cow::Borrowed(path),
            position: 0,
            links: 0,
            must_be_directory: false,
        })
    }

    /// The text of a name that [`walk_to_parent`](Self::walk_to_parent) returned.
    pub(crate) fn name(&self, range: &Range<usize>) -> &[u8] {
        &self.text[range.clone()]
    }

    fn skip_slashes(&mut self) {
        while self.text.get(self.position) == Some(&b'/') {
            self.position += 1;
        }
    }

    /// Walks to the directory that holds the last component.
    pub(crate) fn walk_to_parent(&mut self) -> Result<Last> {
        self.skip_slashes();
        loop {
            let start = self.position;
            let rest = &self.text[start..];
            if rest.is_empty() {
                return Ok(Last::Root);
            }
            let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let component = start..start + length;
            self.position = component.end;
            self.skip_slashes();
            let last = self.position == self.text.len();
            if last && self.position > component.end {
                self.must_be_directory = true;
            }
            match &self.text[component.clone()] {
                b"." if last => return Ok(Last::Dot),
                b".." if last => return Ok(Last::DotDot),
                _ if last => return Ok(Last::Name(component)),
                b"." => {}
                b".." => self.go_up(),
                name => {
                    let child = self.here.dentry.lookup(name)?;
                    self.enter(child)?;
                }
            }
        }
    }

    /// Goes on into an entry in the middle of the path.
    fn enter(&mut self, child: Arc<Dentry>) -> Result<()> {
        if child.kind() == FileKind::Symlink {
            let rest = self.position;
            if let Followed::Node(node) = self.follow(&child, rest)? {
                self.here = node;
            } else {
                self.skip_slashes();
            }
        } else {
            self.here.dentry = child;
            self.cross_mounts();
        }
        if self.here.dentry.is_directory() { Ok(()) } else { Err(Errno::ENOTDIR) }
    }

    /// Replaces a link at the end of the path by what it leads to.
    pub(crate) fn follow_last(&mut self, link: &Dentry) -> Result<Followed> {
        let end = self.text.len();
        self.follow(link, end)
    }

    /// Puts a link's text before what is left from `rest` on.
    fn follow(&mut self, link: &Dentry, rest: usize) -> Result<Followed> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::ELOOP);
        }
        let mut text = match link.inode().follow()? {
            LinkTarget::Node(node) => return Ok(Followed::Node(node)),
            LinkTarget::Text(text) => text,
        };
        match text.first() {
            None => return Err(Errno::ENOENT),
            Some(b'/') => self.here = self.context.root.clone(),
            Some(_) => {}
        }
        if rest < self.text.len() {
            text.push(b'/');
            text.extend_from_slice(&self.text[rest..]);
        }
        self.text = Cow::Owned(text);
        self.position = 0;
        Ok(Followed::Path)
    }

    /// The node of an entry of the directory reached, mounts crossed.
    pub(crate) fn node_of(&self, child: Arc<Dentry>) -> PathNode {
        let mut node = PathNode { mount: Arc::clone(&self.here.mount), dentry: child };
        cross_mounts(self.mounts, &mut node);
        node
    }

    fn cross_mounts(&mut self) {
        cross_mounts(self.mounts, &mut self.here);
    }

    /// `..`: out of mounts, and not above the root.
    pub(crate) fn go_up(&mut self) {
        while !self.here.same(&self.context.root) {
            if let Some(parent) = self.here.dentry.parent() {
                self.here.dentry = parent;
                self.cross_mounts();
                return;
            }
            match &self.here.mount.at {
                Some(at) => self.here = at.clone(),
                None => return,
            }
        }
    }

    /// Walks to the end.
    pub(crate) fn finish(mut self, follow: bool) -> Result<PathNode> {
        loop {
            match self.walk_to_parent()? {
                Last::Root | Last::Dot => return Ok(self.here),
                Last::DotDot => {
                    self.go_up();
                    return Ok(self.here);
                }
                Last::Name(range) => {
                    let child = self.here.dentry.lookup(self.name(&range))?;
                    let node = if child.kind() == FileKind::Symlink
                        && (follow || self.must_be_directory)
                    {
                        match self.follow_last(&child)? {
                            Followed::Path => continue,
                            Followed::Node(node) => node,
                        }
                    } else {
                        self.node_of(child)
                    };
                    if self.must_be_directory && !node.dentry.is_directory() {
                        return Err(Errno::ENOTDIR);
                    }
                    return Ok(node);
                }
            }
        }
    }
}

fn cross_mounts(mounts: &MountTable, node: &mut PathNode) {
    while node.dentry.is_mount_point() {
        let Some(mount) = mounts.on(node) else { return };
        *node = mount.root();
    }
}

//! What the guest has found in the folder.
//!
//! A node is held by a descriptor as long as the guest remembers it, so the host
//! can rename and remove as it likes: the node stays the same, and its identity
//! (device and inode) cannot be given to another one. Numbers are never used
//! twice. As many nodes as descriptors are allowed; then ENFILE.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::abi::ROOT;

/// What makes two findings the same node.
type Identity = (u64, u64);

/// A node.
#[derive(Debug)]
pub struct Node {
    descriptor: OwnedFd,
    identity: Identity,
    /// What it is. It never becomes something else.
    pub kind: FileType,
    /// How often the guest found it and has not forgotten it.
    lookups: u64,
    /// The name by which it was found last; kept only where somebody asks.
    name: Vec<u8>,
}

impl Node {
    /// Its descriptor, which gives no access to the content.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Its attributes.
    ///
    /// # Errors
    ///
    /// What the host said.
    pub fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::fstat(&self.descriptor)
    }

    /// The name by which it was found last.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

/// All nodes of a session.
#[derive(Debug)]
pub struct Nodes {
    nodes: HashMap<u64, Node>,
    numbers: HashMap<Identity, u64>,
    next: u64,
    limit: usize,
    keep_names: bool,
}

impl Nodes {
    /// Only the root, and room for `limit` nodes.
    ///
    /// # Errors
    ///
    /// What the host said about the root.
    pub fn new(root: OwnedFd, limit: usize, keep_names: bool) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&root)?;
        let mut nodes = Self {
            nodes: HashMap::new(),
            numbers: HashMap::new(),
            next: ROOT + 1,
            limit: limit.max(1),
            keep_names,
        };
        nodes.add(ROOT, root, &stat, b"");
        Ok(nodes)
    }

    fn add(&mut self, number: u64, descriptor: OwnedFd, stat: &Stat, name: &[u8]) {
        let identity = identity(stat);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let name = if self.keep_names { name.to_vec() } else { Vec::new() };
        self.numbers.insert(identity, number);
        self.nodes.insert(number, Node { descriptor, identity, kind, lookups: 1, name });
    }

    /// Node `number`.
    ///
    /// # Errors
    ///
    /// ENOENT if the guest never found it, or has forgotten it.
    pub fn get(&self, number: u64) -> Result<&Node, Errno> {
        self.nodes.get(&number).ok_or(Errno::NOENT)
    }

    /// Node `number`, which must be a folder.
    ///
    /// # Errors
    ///
    /// As [`Self::get`]; ENOTDIR.
    pub fn folder(&self, number: u64) -> Result<BorrowedFd<'_>, Errno> {
        let node = self.get(number)?;
        if node.kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        Ok(node.descriptor())
    }

    /// Whether one more can be found.
    ///
    /// # Errors
    ///
    /// ENFILE if not.
    pub fn has_room(&self) -> Result<(), Errno> {
        if self.nodes.len() < self.limit { Ok(()) } else { Err(Errno::NFILE) }
    }

    /// The guest found `descriptor` under `name`; gives the node's number.
    ///
    /// # Errors
    ///
    /// ENFILE if there is no room for one more.
    pub fn found(&mut self, descriptor: OwnedFd, stat: &Stat, name: &[u8]) -> Result<u64, Errno> {
        if let Some(&number) = self.numbers.get(&identity(stat))
            && let Some(node) = self.nodes.get_mut(&number)
        {
            node.lookups = node.lookups.saturating_add(1);
            if self.keep_names {
                name.clone_into(&mut node.name);
            }
            return Ok(number);
        }
        self.has_room()?;
        let number = self.next;
        self.next += 1;
        self.add(number, descriptor, stat, name);
        Ok(number)
    }

    /// The guest forgets `count` findings of node `number`. Nothing happens to a
    /// node that is not there, or to the root.
    pub fn forget(&mut self, number: u64, count: u64) {
        if number == ROOT {
            return;
        }
        let Some(node) = self.nodes.get_mut(&number) else { return };
        node.lookups = node.lookups.saturating_sub(count);
        if node.lookups == 0
            && let Some(node) = self.nodes.remove(&number)
        {
            self.numbers.remove(&node.identity);
        }
    }

    /// Forgets everything but the root.
    pub fn clear(&mut self) {
        self.nodes.retain(|number, _| *number == ROOT);
        self.numbers.retain(|_, number| *number == ROOT);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none: never, since the root stays.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

const fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

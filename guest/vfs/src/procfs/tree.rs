//! The inodes of `/proc`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::memory_file::{AreaFile, PageMapFile};
use super::node::{
    IDENTITY, Node, Owner, PROCESS, ProcessEntry, ProcessFile, ProcessLink, ROOT, RootLink, find,
};
use super::settings::{Directory, PLACES};
use super::source::ProcSource;
use super::text_file::TextFile;
use crate::errno::{Errno, Result};
use crate::file::File;
use crate::inode::{DeviceNumber, DirectoryEntry, FileKind, Inode, LinkTarget, Metadata, NewNode};
use crate::platform::Timespec;
use crate::text::{parse_decimal, push_decimal};

/// Positions of processes in the root begin here.
const PROCESS_POSITIONS: u64 = 256;

/// Numbers of inodes that belong to a process begin here, and leave room for
/// this many.
const INO_SHIFT: u32 = 32;
const INO_DESCRIPTORS: u64 = 0x1_0000;
const INO_DESCRIPTOR_INFOS: u64 = 0x100_0000;
const INO_AS_TASK: u64 = 1 << 31;

struct ProcInode {
    source: Arc<dyn ProcSource>,
    node: Node,
}

/// The inode of a node.
pub(super) fn inode(source: &Arc<dyn ProcSource>, node: Node) -> Arc<dyn Inode> {
    Arc::new(ProcInode { source: Arc::clone(source), node })
}

/// What an entry of a process's directory is.
fn node_of(owner: Owner, entry: ProcessEntry) -> Option<Node> {
    Some(match entry {
        ProcessEntry::File(file) => Node::File(owner, file),
        ProcessEntry::Link(link) => Node::Link(owner, link),
        ProcessEntry::Descriptors => Node::Descriptors(owner),
        ProcessEntry::DescriptorInfos => Node::DescriptorInfos(owner),
        ProcessEntry::Tasks if owner.as_task => return None,
        ProcessEntry::Tasks => Node::Tasks(owner.process),
    })
}

const fn kind_of(node: Node) -> FileKind {
    match node {
        Node::Root
        | Node::Process(_)
        | Node::Tasks(_)
        | Node::Descriptors(_)
        | Node::DescriptorInfos(_)
        | Node::Settings
        | Node::SettingsOf(_) => FileKind::Directory,
        Node::RootLink(_) | Node::Link(..) | Node::Descriptor(..) => FileKind::Symlink,
        _ => FileKind::Regular,
    }
}

fn ino_of(node: Node) -> u64 {
    let of = |owner: Owner, index: u64| {
        let task = if owner.as_task { INO_AS_TASK } else { 0 };
        (u64::from(owner.thread) << INO_SHIFT) | task | index
    };
    let table = |index: Option<usize>| 1 + index.unwrap_or(0) as u64;
    let of_process = |owner, wanted: Node| {
        let same = |(_, entry): &(&[u8], ProcessEntry)| node_of(owner, *entry) == Some(wanted);
        of(owner, 1 + table(PROCESS.iter().position(same)))
    };
    match node {
        Node::Root => 1,
        Node::RootLink(_) | Node::System(_) | Node::Settings => {
            1 + table(ROOT.iter().position(|(_, entry)| *entry == node))
        }
        Node::SettingsOf(directory) => 100 + directory as u64,
        Node::Setting(setting) => 200 + setting as u64,
        Node::Identity(file) => 300 + file as u64,
        Node::Process(owner) => of(owner, 1),
        Node::Tasks(process) => {
            of_process(Owner { process, thread: process, as_task: false }, node)
        }
        Node::File(owner, _)
        | Node::Link(owner, _)
        | Node::Descriptors(owner)
        | Node::DescriptorInfos(owner) => of_process(owner, node),
        Node::Descriptor(owner, number) => {
            of(owner, INO_DESCRIPTORS + u64::from(number.unsigned_abs()))
        }
        Node::DescriptorInfo(owner, number) => {
            of(owner, INO_DESCRIPTOR_INFOS + u64::from(number.unsigned_abs()))
        }
    }
}

/// The number that a name is, if it is written as Linux does: without zeros in
/// front.
fn number_of(name: &[u8]) -> Option<u32> {
    if name.len() > 1 && name[0] == b'0' {
        return None;
    }
    u32::try_from(parse_decimal(name)?).ok()
}

/// A listing in progress.
struct Listing<'a, 'b> {
    position: u64,
    emit: &'a mut dyn FnMut(DirectoryEntry<'_>) -> bool,
    /// What a name is put together in.
    text: &'b mut Vec<u8>,
}

impl Listing<'_, '_> {
    /// Shows an entry after which the listing goes on at `next`, unless it was
    /// shown before; `false` to stop.
    fn show(&mut self, name: &[u8], node: Node, next: u64) -> bool {
        next <= self.position
            || (self.emit)(DirectoryEntry { name, ino: ino_of(node), kind: kind_of(node), next })
    }

    fn show_number(&mut self, number: u64, node: Node, next: u64) -> bool {
        let mut text = core::mem::take(self.text);
        text.clear();
        push_decimal(&mut text, number);
        let more = self.show(&text, node, next);
        *self.text = text;
        more
    }
}

impl ProcInode {
    fn exists(&self, process: u32, thread: u32) -> bool {
        self.source.next_thread(process, thread) == Some(thread)
    }

    /// An entry that every process or thread has.
    fn process_entry(&self, owner: Owner, name: &[u8]) -> Option<Node> {
        if !self.exists(owner.process, owner.thread) {
            return None;
        }
        find(&PROCESS, name).and_then(|entry| node_of(owner, entry))
    }

    fn descriptor(&self, owner: Owner, name: &[u8]) -> Option<i32> {
        let number = i32::try_from(number_of(name)?).ok()?;
        (self.source.next_descriptor(owner.process, number) == Some(number)).then_some(number)
    }

    fn find(&self, name: &[u8]) -> Option<Node> {
        match self.node {
            Node::Root => find(&ROOT, name).or_else(|| {
                let process = number_of(name)?;
                let thread = process;
                let found = self.source.next_process(process) == Some(process);
                found.then_some(Node::Process(Owner { process, thread, as_task: false }))
            }),
            Node::Process(owner) => self.process_entry(owner, name),
            Node::Tasks(process) => {
                let thread = number_of(name)?;
                let owner = Owner { process, thread, as_task: true };
                self.exists(process, thread).then_some(Node::Process(owner))
            }
            Node::Descriptors(owner) => {
                self.descriptor(owner, name).map(|number| Node::Descriptor(owner, number))
            }
            Node::DescriptorInfos(owner) => {
                self.descriptor(owner, name).map(|number| Node::DescriptorInfo(owner, number))
            }
            Node::Settings => {
                let mut all = Directory::ALL.iter();
                all.find(|(_, entry)| *entry == name).map(|(found, _)| Node::SettingsOf(*found))
            }
            Node::SettingsOf(directory) => {
                let place =
                    PLACES.iter().find(|place| place.directory == directory && place.name == name);
                if directory == Directory::Kernel && place.is_none() {
                    return find(&IDENTITY, name).map(Node::Identity);
                }
                place.map(|place| Node::Setting(place.setting))
            }
            _ => None,
        }
    }

    fn list_into(&self, listing: &mut Listing<'_, '_>) {
        match self.node {
            Node::Root => self.list_root(listing),
            Node::Process(owner) => {
                for (index, (name, entry)) in PROCESS.iter().enumerate() {
                    let Some(node) = node_of(owner, *entry) else { continue };
                    if !listing.show(name, node, index as u64 + 1) {
                        return;
                    }
                }
            }
            Node::Tasks(process) => {
                let mut first = u32::try_from(listing.position).unwrap_or(u32::MAX);
                while let Some(thread) = self.source.next_thread(process, first) {
                    let node = Node::Process(Owner { process, thread, as_task: true });
                    first = thread + 1;
                    if !listing.show_number(thread.into(), node, first.into()) {
                        return;
                    }
                }
            }
            Node::Descriptors(owner) => self.list_descriptors(owner, Node::Descriptor, listing),
            Node::DescriptorInfos(owner) => {
                self.list_descriptors(owner, Node::DescriptorInfo, listing);
            }
            Node::Settings => {
                for (index, (directory, name)) in Directory::ALL.iter().enumerate() {
                    if !listing.show(name, Node::SettingsOf(*directory), index as u64 + 1) {
                        return;
                    }
                }
            }
            Node::SettingsOf(directory) => list_settings(directory, listing),
            _ => {}
        }
    }

    fn list_root(&self, listing: &mut Listing<'_, '_>) {
        for (index, (name, node)) in ROOT.iter().enumerate() {
            if !listing.show(name, *node, index as u64 + 1) {
                return;
            }
        }
        let mut first = listing.position.saturating_sub(PROCESS_POSITIONS);
        while let Some(process) = self.source.next_process(u32::try_from(first).unwrap_or(u32::MAX))
        {
            let owner = Owner { process, thread: process, as_task: false };
            first = u64::from(process) + 1;
            let next = PROCESS_POSITIONS + first;
            if !listing.show_number(process.into(), Node::Process(owner), next) {
                return;
            }
        }
    }

    fn list_descriptors(
        &self,
        owner: Owner,
        node: impl Fn(Owner, i32) -> Node,
        listing: &mut Listing<'_, '_>,
    ) {
        let mut first = i32::try_from(listing.position).unwrap_or(i32::MAX);
        while let Some(number) = self.source.next_descriptor(owner.process, first) {
            let value = u64::from(number.unsigned_abs());
            first = number.saturating_add(1);
            if !listing.show_number(value, node(owner, number), value + 1) {
                return;
            }
        }
    }

    fn permissions(&self) -> u16 {
        match self.node {
            Node::Descriptors(_) | Node::DescriptorInfos(_) => 0o500,
            Node::File(_, file) => file.permissions(),
            Node::Setting(setting) if setting.place().range.is_some() => 0o644,
            Node::Descriptor(owner, number) => {
                let file = self.source.file(owner.process, number);
                let mut permissions = 0o100;
                if let Ok(file) = file {
                    permissions |= if file.is_readable() { 0o400 } else { 0 };
                    permissions |= if file.is_writable() { 0o200 } else { 0 };
                }
                permissions
            }
            node => match kind_of(node) {
                FileKind::Directory => 0o555,
                FileKind::Symlink => 0o777,
                _ => 0o444,
            },
        }
    }
}

fn list_settings(directory: Directory, listing: &mut Listing<'_, '_>) {
    let here = PLACES.iter().filter(|place| place.directory == directory);
    let mut next = 0;
    for place in here {
        next += 1;
        if !listing.show(place.name, Node::Setting(place.setting), next) {
            return;
        }
    }
    if directory == Directory::Kernel {
        for (name, file) in IDENTITY {
            next += 1;
            if !listing.show(name, Node::Identity(file), next) {
                return;
            }
        }
    }
}

impl Inode for ProcInode {
    fn metadata(&self) -> Result<Metadata> {
        let kind = self.kind();
        let seconds = self.source.counts().boot_time + self.source.uptime().0 / 100;
        let now = Timespec { seconds: seconds.cast_signed(), nanoseconds: 0 };
        let descriptor = matches!(self.node, Node::Descriptor(..));
        Ok(Metadata {
            ino: self.ino(),
            kind,
            permissions: self.permissions(),
            links: if kind == FileKind::Directory { 2 } else { 1 },
            uid: 0,
            gid: 0,
            device: DeviceNumber::default(),
            size: if descriptor { 64 } else { 0 },
            blocks: 0,
            block_size: 1024,
            accessed: now,
            modified: now,
            changed: now,
            born: now,
        })
    }

    fn kind(&self) -> FileKind {
        kind_of(self.node)
    }

    fn ino(&self) -> u64 {
        ino_of(self.node)
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.find(name).map(|node| inode(&self.source, node)).ok_or(Errno::ENOENT)
    }

    fn create(&self, _name: &[u8], node: NewNode<'_>, _mode: u16) -> Result<Arc<dyn Inode>> {
        Err(if matches!(node, NewNode::Regular) { Errno::EACCES } else { Errno::EPERM })
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool) -> Result<()> {
        if let Node::Process(owner) | Node::Descriptors(owner) | Node::DescriptorInfos(owner) =
            self.node
            && !self.exists(owner.process, owner.thread)
        {
            return Err(Errno::ENOENT);
        }
        let mut text = Vec::new();
        self.list_into(&mut Listing { position, emit, text: &mut text });
        Ok(())
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        let source = &self.source;
        let mut text = Vec::new();
        match self.node {
            Node::RootLink(RootLink::Myself) => {
                push_decimal(&mut text, source.current_process().into());
                return Ok(text);
            }
            Node::RootLink(RootLink::MyThread) => {
                push_decimal(&mut text, source.current_process().into());
                text.extend_from_slice(b"/task/");
                push_decimal(&mut text, source.current_thread().into());
                return Ok(text);
            }
            Node::RootLink(RootLink::Mounts) => return Ok(b"self/mounts".to_vec()),
            _ => {}
        }
        let LinkTarget::Node(node) = self.follow()? else { return Err(Errno::EINVAL) };
        Ok(node.display(&source.context(source.current_process())?.root))
    }

    fn follow(&self) -> Result<LinkTarget> {
        let source = &self.source;
        let node = match self.node {
            Node::RootLink(_) => return self.read_link().map(LinkTarget::Text),
            Node::Descriptor(owner, number) => source.file(owner.process, number)?.node().clone(),
            Node::Link(owner, ProcessLink::Executable) => source.executable(owner.process)?,
            Node::Link(owner, ProcessLink::WorkingDirectory) => source.context(owner.process)?.cwd,
            Node::Link(owner, ProcessLink::Root) => source.context(owner.process)?.root,
            _ => return Err(Errno::EINVAL),
        };
        Ok(LinkTarget::Node(node))
    }

    fn open(&self, _flags: u32) -> Result<Option<Arc<dyn File>>> {
        let source = Arc::clone(&self.source);
        Ok(match self.node {
            Node::File(owner, ProcessFile::PageMap) => {
                Some(Arc::new(PageMapFile::new(source, owner.process)))
            }
            Node::File(owner, file @ (ProcessFile::Maps | ProcessFile::AreaUsage)) => {
                let with_usage = file == ProcessFile::AreaUsage;
                Some(Arc::new(AreaFile::new(source, owner.process, with_usage)))
            }
            node if kind_of(node) == FileKind::Regular => {
                Some(Arc::new(TextFile::new(source, node)))
            }
            _ => None,
        })
    }
}

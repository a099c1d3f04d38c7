//! The tree of files at the start, and the end of it all.
//!
//! The first program is a file in it, at the path that the host named it by if
//! that is absolute and in this kernel's own memory, else in `/bin`: nothing is
//! ever planted in a folder of the host.

use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_mm::ObjectId;
use pagelab_vfs::buffer::SliceSource;
use pagelab_vfs::inode::{Caching, FileKind, FileSystem, Inode, NewNode};
use pagelab_vfs::path::{FsContext, PathNode};
use pagelab_vfs::procfs::ProcFs;
use pagelab_vfs::{Errno, Lookup, Result, devfs};

use super::{cache, console, first_folders, platform, proc, shares, vfs, write_back};
use crate::memory::memory;

/// Folders in the root, and folders in those.
const FOLDERS: [(&[u8], u16); 10] = [
    (b"bin", 0o755),
    (b"dev", 0o755),
    (b"etc", 0o755),
    (b"home", 0o755),
    (b"proc", 0o555),
    (b"root", 0o700),
    (b"run", 0o755),
    (b"tmp", 0o1777),
    (b"usr", 0o755),
    (b"var", 0o755),
];
const INNER_FOLDERS: [(&[u8], &[u8], u16); 2] = [(b"usr", b"bin", 0o755), (b"var", b"tmp", 0o1777)];

/// Files in `/etc`.
const TEXTS: [(&[u8], &[u8]); 5] = [
    (b"passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
    (b"group", b"root:x:0:\ntty:x:5:\n"),
    (b"hostname", b"pagelab\n"),
    (b"hosts", b"127.0.0.1 localhost\n"),
    (b"shells", b"/bin/sh\n"),
];

/// Programs that are also known as `/bin/sh`.
const SHELLS: [&[u8]; 5] = [b"ash", b"bash", b"busybox", b"dash", b"sh"];

/// Fills the tree: folders, devices, some texts.
///
/// # Errors
///
/// Without memory.
pub fn plant() -> Result<()> {
    // Nobody has walked here yet, so the walks can be spared.
    let root = vfs().root().inode().clone();
    for (name, permissions) in FOLDERS {
        root.create(name, NewNode::Directory, permissions)?;
    }
    for (outer, name, permissions) in INNER_FOLDERS {
        root.lookup(outer)?.create(name, NewNode::Directory, permissions)?;
    }
    let etc = root.lookup(b"etc")?;
    for (name, text) in TEXTS {
        let file = etc.create(name, NewNode::Regular, 0o644)?;
        file.write_at(0, &mut SliceSource::new(text))?;
    }
    let context = first_folders();
    let at = vfs().resolve(&context, None, b"/dev", Lookup::FOLLOW)?;
    plant_devices(at)?;
    let at = vfs().resolve(&context, None, b"/proc", Lookup::FOLLOW)?;
    mount_proc(at)
}

/// The same where the root is a folder of the host: it has all there is, but
/// for what this kernel alone knows, and what is not to be kept.
///
/// # Errors
///
/// Without memory.
pub fn plant_over_share() -> Result<()> {
    const KEPT_NOWHERE: [&[u8]; 2] = [b"/tmp", b"/run"];
    plant_devices(mount_point(b"/dev")?)?;
    mount_proc(mount_point(b"/proc")?)?;
    for path in KEPT_NOWHERE {
        mount(path, "tmpfs", Arc::new(super::new_tmpfs()?), false)?;
    }
    Ok(())
}

/// The first folders, with no permissions taken from what is made.
fn all_permissions() -> FsContext {
    FsContext { umask: 0, ..first_folders() }
}

fn mount_proc(at: PathNode) -> Result<()> {
    vfs().mount(at, "proc", Arc::new(ProcFs::new(Arc::new(proc::Kernel))), false).map(drop)
}

/// A folder to mount something on. What is missing of it is made, or, where
/// nothing can be made, stands there in memory without being listed.
///
/// # Errors
///
/// Without memory, or if a file is in the way.
pub fn mount_point(path: &[u8]) -> Result<PathNode> {
    for end in ends_of_components(path) {
        if let Some(missing) = make_folder(&path[..end])? {
            missing.mount("tmpfs", Arc::new(super::new_tmpfs()?), false);
        }
    }
    let node = vfs().resolve(&all_permissions(), None, path, Lookup::FOLLOW)?;
    if node.dentry().is_directory() { Ok(node) } else { Err(Errno::ENOTDIR) }
}

/// Mounts a file system on a folder, which is made or stands there as in
/// [`mount_point`].
///
/// # Errors
///
/// Without memory, or if a file is in the way.
pub fn mount(
    path: &[u8],
    source: &'static str,
    file_system: Arc<dyn FileSystem>,
    read_only: bool,
) -> Result<()> {
    let (start, end) = match ends_of_components(path).collect::<Vec<_>>()[..] {
        [] => return vfs().mount(vfs().root(), source, file_system, read_only).map(drop),
        [end] => (1, end),
        [.., start, end] => (start, end),
    };
    mount_point(&path[..start])?;
    if let Some(missing) = make_folder(&path[..end])? {
        missing.mount(source, file_system, read_only);
        return Ok(());
    }
    vfs().mount(mount_point(path)?, source, file_system, read_only).map(drop)
}

/// A folder that is not there and cannot be made.
struct MissingFolder<'a> {
    above: PathNode,
    name: &'a [u8],
}

impl MissingFolder<'_> {
    /// Has a file system stand there.
    fn mount(&self, source: &'static str, file_system: Arc<dyn FileSystem>, read_only: bool) {
        vfs().mount_on_missing(&self.above, self.name, source, file_system, read_only);
    }
}

/// Makes a folder if it is not there; says if it cannot be made.
fn make_folder(path: &[u8]) -> Result<Option<MissingFolder<'_>>> {
    let context = all_permissions();
    match vfs().make_directory(&context, None, path, 0o755) {
        Ok(()) | Err(Errno::EEXIST) => Ok(None),
        Err(Errno::EROFS | Errno::EACCES | Errno::EPERM) => {
            let slash = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            let above = vfs().resolve(&context, None, &path[..=slash], Lookup::FOLLOW)?;
            Ok(Some(MissingFolder { above, name: &path[slash + 1..] }))
        }
        Err(error) => Err(error),
    }
}

/// Where each component of an absolute path ends.
fn ends_of_components(path: &[u8]) -> impl Iterator<Item = usize> {
    let is_end = |&end: &usize| path[end - 1] != b'/' && path.get(end).is_none_or(|&b| b == b'/');
    (1..=path.len()).filter(is_end)
}

/// Puts the first program into the tree; returns its path.
///
/// # Errors
///
/// Without memory; EROFS if all places for it are folders of the host.
pub fn plant_program(object: ObjectId, size: u64, name: &[u8]) -> Result<Vec<u8>> {
    let context = all_permissions();
    let mut places = program_paths(name).into_iter();
    let path = places.find(|path| !shares::are_there() || is_in_memory(&context, path));
    let path = path.ok_or(Errno::EROFS)?;
    plant_program_at(&context, object, size, &path)?;
    Ok(path)
}

/// Whether what is made at `path` stays in memory: where the host's folders are,
/// it would be their owner's file that gives way.
fn is_in_memory(context: &FsContext, path: &[u8]) -> bool {
    let ends = path.iter().enumerate().rev().filter(|&(_, &byte)| byte == b'/');
    let above = ends.map(|(end, _)| &path[..end.max(1)]);
    let mut nodes = above.map(|folder| vfs().resolve(context, None, folder, Lookup::FOLLOW));
    let deepest = nodes.find(|node| !matches!(node, Err(Errno::ENOENT)));
    deepest.is_some_and(|node| {
        node.is_ok_and(|node| node.mount().file_system.caching() == Caching::Keep)
    })
}

/// `/dev`, once: its devices stay registered.
fn plant_devices(at: PathNode) -> Result<()> {
    devfs::mount(vfs(), at, cache(), platform(), super::limit_pages())?;
    console::install(vfs())
}

/// Where the program that the host calls `name` can be put, best places first.
fn program_paths(name: &[u8]) -> Vec<Vec<u8>> {
    let base = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
    let is_plain = |part: &[u8]| part != b"." && part != b"..";
    let absolute = name.first() == Some(&b'/') && name.split(|&byte| byte == b'/').all(is_plain);
    // What is mounted over would hide it.
    let hidden = [&b"/dev/"[..], b"/proc/"].iter().any(|folder| name.starts_with(folder));
    let mut paths = Vec::new();
    if absolute && !hidden && !base.is_empty() && !shares::is_root() {
        paths.push(name.to_vec());
    }
    let usable = !base.is_empty() && is_plain(base);
    let base = if usable { base } else { b"program" };
    paths.extend([&b"/bin/"[..], b"/run/", b"/tmp/"].map(|folder| [folder, base].concat()));
    paths
}

fn plant_program_at(context: &FsContext, object: ObjectId, size: u64, path: &[u8]) -> Result<()> {
    for (end, _) in path.iter().enumerate().skip(1).filter(|&(_, &byte)| byte == b'/') {
        match vfs().make_directory(context, None, &path[..end], 0o755) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error),
        }
    }
    // A text that was there makes way.
    match vfs().unlink(context, None, path) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error),
    }
    cache().give_next(object, size);
    vfs().make_node(context, None, path, 0o100_755, Default::default())?;
    let node = vfs().resolve(context, None, path, Lookup::FOLLOW)?;
    cache().note_mapping(object, &node);
    let base = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    if SHELLS.contains(&base) && path != b"/bin/sh" && !shares::is_root() {
        vfs().make_symlink(context, path, None, b"/bin/sh")?;
    }
    Ok(())
}

/// Removes every file, so that all their memory is free. Nobody may use the
/// tree any more.
pub fn fell() {
    if let Err(error) = write_back::write_everything() {
        log::error!("not everything could be written to the host: {error:?}");
    }
    for mount in vfs().mounts() {
        // What is not in memory only stays where it is.
        if mount.file_system.caching() == Caching::Keep {
            clear(&mount.file_system.root());
        }
    }
    vfs().prune();
    shares::shrink();
    cache().shrink();
    memory().objects.shrink();
}

/// Removes what is in a folder, folders that are deep without recursion.
pub fn clear(root: &Arc<dyn Inode>) {
    let mut stack = alloc::vec![root.clone()];
    while let Some(folder) = stack.last().cloned() {
        let mut entries = Vec::new();
        // What cannot be listed cannot be removed either.
        let _ = folder.list(0, &mut |entry| {
            entries.push((entry.name.to_vec(), entry.kind));
            true
        });
        let depth = stack.len();
        for (name, kind) in entries {
            let removed = match kind {
                FileKind::Directory => folder.rmdir(&name),
                _ => folder.unlink(&name),
            };
            if removed == Err(Errno::ENOTEMPTY)
                && let Ok(child) = folder.lookup(&name)
            {
                stack.push(child);
            }
        }
        if stack.len() == depth {
            stack.pop();
        }
    }
}

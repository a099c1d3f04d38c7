//! The tree of files at the start, and the end of it all.
//!
//! The first program is a file in it, at the path that the host named it by if
//! that is absolute, else in `/bin`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_mm::ObjectId;
use pagelab_vfs::inode::{FileKind, Inode};
use pagelab_vfs::path::FsContext;
use pagelab_vfs::procfs::ProcFs;
use pagelab_vfs::{Errno, Lookup, OpenHow, Result, devfs};

use super::{cache, console, first_folders, platform, proc, vfs};
use crate::memory::memory;

const FOLDERS: [(&[u8], u32); 12] = [
    (b"/bin", 0o755),
    (b"/dev", 0o755),
    (b"/etc", 0o755),
    (b"/home", 0o755),
    (b"/proc", 0o555),
    (b"/root", 0o700),
    (b"/run", 0o755),
    (b"/tmp", 0o1777),
    (b"/usr", 0o755),
    (b"/usr/bin", 0o755),
    (b"/var", 0o755),
    (b"/var/tmp", 0o1777),
];

const TEXTS: [(&[u8], &[u8]); 5] = [
    (b"/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
    (b"/etc/group", b"root:x:0:\ntty:x:5:\n"),
    (b"/etc/hostname", b"pagelab\n"),
    (b"/etc/hosts", b"127.0.0.1 localhost\n"),
    (b"/etc/shells", b"/bin/sh\n"),
];

/// Programs that are also known as `/bin/sh`.
const SHELLS: [&[u8]; 5] = [b"ash", b"bash", b"busybox", b"dash", b"sh"];

/// Fills the tree: folders, devices, some texts, and the first program, whose
/// path is returned.
///
/// # Errors
///
/// Without memory.
pub fn plant(program: ObjectId, size: u64, name: &[u8]) -> Result<Vec<u8>> {
    let mut context = first_folders();
    context.umask = 0;
    for (path, mode) in FOLDERS {
        vfs().make_directory(&context, None, path, mode)?;
    }
    for (path, text) in TEXTS {
        write_text(&context, path, text)?;
    }
    plant_devices(&context)?;
    let at = vfs().resolve(&context, None, b"/proc", Lookup::FOLLOW)?;
    vfs().mount(at, "proc", Arc::new(ProcFs::new(Arc::new(proc::Kernel))), false)?;
    let path = program_path(name);
    plant_program(&context, program, size, &path)?;
    Ok(path)
}

fn write_text(context: &FsContext, path: &[u8], text: &[u8]) -> Result<()> {
    use pagelab_vfs::abi::{O_CREAT, O_WRONLY};
    use pagelab_vfs::buffer::SliceSource;
    let file =
        vfs().open(context, None, path, OpenHow { flags: O_CREAT | O_WRONLY, mode: 0o644 })?;
    file.write(&mut SliceSource::new(text)).map(drop)
}

/// `/dev`, once: its devices stay registered.
fn plant_devices(context: &FsContext) -> Result<()> {
    let at = vfs().resolve(context, None, b"/dev", Lookup::FOLLOW)?;
    devfs::mount(vfs(), at, cache(), platform(), super::limit_pages())?;
    console::install(vfs())
}

/// Where the program that the host calls `name` is.
fn program_path(name: &[u8]) -> Vec<u8> {
    let base = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
    let is_plain = |part: &[u8]| part != b"." && part != b"..";
    let absolute = name.first() == Some(&b'/') && name.split(|&byte| byte == b'/').all(is_plain);
    // What is mounted over would hide it.
    let hidden = [&b"/dev/"[..], b"/proc/"].iter().any(|folder| name.starts_with(folder));
    if absolute && !hidden && !base.is_empty() {
        return name.to_vec();
    }
    let mut path = b"/bin/".to_vec();
    let usable = !base.is_empty() && is_plain(base);
    path.extend_from_slice(if usable { base } else { b"program" });
    path
}

fn plant_program(context: &FsContext, object: ObjectId, size: u64, path: &[u8]) -> Result<()> {
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
    if SHELLS.contains(&base) && path != b"/bin/sh" {
        vfs().make_symlink(context, path, None, b"/bin/sh")?;
    }
    Ok(())
}

/// Removes every file, so that all their memory is free. Nobody may use the
/// tree any more.
pub fn fell() {
    for mount in vfs().mounts() {
        if mount.file_system.name() != "proc" {
            clear(&mount.file_system.root());
        }
    }
    vfs().prune();
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

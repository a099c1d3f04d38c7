//! `/dev`: as on Linux a tmpfs with device nodes in it.

use alloc::sync::Arc;

use crate::device::{self, CONSOLE, FULL, NULL, RANDOM, TTY, URANDOM, ZERO};
use crate::errno::Result;
use crate::inode::{FileSystem, NewNode};
use crate::memfs::MemFs;
use crate::path::PathNode;
use crate::platform::Platform;
use crate::store::PageStore;
use crate::tree::Vfs;

/// Makes the directory `name` in the root of a file system, to mount on.
pub fn make_mount_point(file_system: &dyn FileSystem, name: &[u8], permissions: u16) -> Result<()> {
    file_system.root().create(name, NewNode::Directory, permissions).map(drop)
}

/// Mounts a `/dev` at `at`, with `/dev/shm` on it, and registers the devices
/// that need no hardware. The kernel registers [`TTY`] and [`CONSOLE`].
pub fn mount<S: PageStore>(
    vfs: &Vfs,
    at: PathNode,
    store: &Arc<S>,
    platform: &Arc<dyn Platform>,
    limit_pages: u64,
) -> Result<()> {
    let new = |name, permissions| {
        MemFs::new(name, Arc::clone(store), Arc::clone(platform), permissions, limit_pages)
    };
    let devices = new("devtmpfs", 0o755)?;
    let root = devices.root();
    let nodes: [(&[u8], _, u16); 7] = [
        (b"null", NULL, 0o666),
        (b"zero", ZERO, 0o666),
        (b"full", FULL, 0o666),
        (b"random", RANDOM, 0o666),
        (b"urandom", URANDOM, 0o666),
        (b"tty", TTY, 0o666),
        (b"console", CONSOLE, 0o600),
    ];
    for (name, number, permissions) in nodes {
        root.create(name, NewNode::Character(number), permissions)?;
    }
    let links: [(&[u8], &[u8]); 4] = [
        (b"fd", b"/proc/self/fd"),
        (b"stdin", b"/proc/self/fd/0"),
        (b"stdout", b"/proc/self/fd/1"),
        (b"stderr", b"/proc/self/fd/2"),
    ];
    for (name, text) in links {
        root.create(name, NewNode::Symlink(text), 0o777)?;
    }
    make_mount_point(&devices, b"shm", 0o1777)?;
    let mount = vfs.mount(at, "devtmpfs", Arc::new(devices), false)?;
    let node = mount.root();
    let shm = PathNode { dentry: node.dentry.lookup(b"shm")?, mount: node.mount };
    vfs.mount(shm, "tmpfs", Arc::new(new("tmpfs", 0o1777)?), false)?;
    device::register(vfs);
    Ok(())
}

//! Folders of the host: which there are, and where they are mounted.
//!
//! Each is a virtio file system device. A request is handed over and waited for
//! on the spot: no other thread runs meanwhile, so whoever reads a page of a file
//! needs no protection from anybody (and the lab shows what the host costs).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use pagelab_abi::addr::GuestPhys;
use pagelab_abi::boot::{BootInfo, MODULE_SHARES, SHARE_READ_ONLY};
use pagelab_fuse::{Connection, Readable, ShareFs, Transport, TransportError, Writable};
use pagelab_hal::memory::module_bytes;
use pagelab_hal::sync::Lock;
use pagelab_hal::virtio;

use super::store::Cache;
use super::{cache, platform, tree, vfs};

/// Number of the queue for requests; the one before is for urgent ones.
const REQUEST_QUEUE: u32 = 1;
/// Descriptors that headers take; what is left is for frames.
const FOR_HEADERS: usize = 16;

/// How many requests lie between two looks at how many inodes there are.
const LOOK_AFTER: u32 = 512;
/// How many inodes more than are in use may be known: each costs memory here and
/// a descriptor at the host.
const MOST_UNUSED: usize = 2000;

/// Requests since the last look.
static REQUESTS: AtomicU32 = AtomicU32::new(0);
/// Inodes that were in use when unused ones were last forgotten.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
/// All folders that are mounted at the start.
static SHARES: Lock<Vec<Arc<ShareFs<Cache>>>> = Lock::new(Vec::new());

/// Forgets names that nobody uses, if there are many by now. Nobody may be on
/// the way along a path.
pub fn forget_unused() {
    if REQUESTS.load(Ordering::Relaxed) < LOOK_AFTER {
        return;
    }
    REQUESTS.store(0, Ordering::Relaxed);
    let shares = SHARES.lock().clone();
    let known = || shares.iter().map(|share| share.inodes()).sum::<usize>();
    if known() > IN_USE.load(Ordering::Relaxed) + MOST_UNUSED {
        vfs().prune();
        shares.iter().for_each(|share| share.forget_unused());
        IN_USE.store(known(), Ordering::Relaxed);
    }
}

/// Gives back memory that is only for what is in use, once nothing is.
pub fn shrink() {
    SHARES.lock().iter().for_each(|share| share.forget_unused());
}

/// A folder of the host is the root of the tree.
static IS_ROOT: AtomicBool = AtomicBool::new(false);

/// Whether a folder of the host is the root of the tree.
pub fn is_root() -> bool {
    IS_ROOT.load(Ordering::Relaxed)
}

/// Whether any folder of the host is in the tree.
pub fn are_there() -> bool {
    !SHARES.lock().is_empty()
}

/// What the host says of one folder.
#[derive(Clone, Copy)]
struct Share {
    tag: &'static str,
    folder: &'static [u8],
    read_only: bool,
}

/// A folder of the host that can be mounted.
pub struct Connected {
    share: Share,
    file_system: Arc<ShareFs<Cache>>,
}

/// Greets the servers of all folders. What that takes of memory stays.
///
/// # Errors
///
/// Says what is wrong, for people.
pub fn connect(info: &BootInfo) -> Result<Vec<Connected>, &'static str> {
    let mut connected = Vec::new();
    let mut devices = devices(info);
    for share in listed(info) {
        let device = devices.next().ok_or("a shared folder without a device")?;
        let file_system = open(device).map_err(|error| {
            log::error!("{}: {error}", share.tag);
            "a shared folder cannot be used"
        })?;
        let file_system = Arc::new(file_system);
        SHARES.lock().push(file_system.clone());
        connected.push(Connected { share, file_system });
    }
    // What lies in another folder comes after it.
    connected.sort_by_key(|one| depth(one.share.folder));
    Ok(connected)
}

fn open(device: virtio::Device) -> pagelab_fuse::error::Result<ShareFs<Cache>> {
    let connection = Connection::open(Box::new(Carrier { device: Lock::new(device) }))?;
    ShareFs::new(connection, cache().clone(), platform().clone())
}

/// Makes the tree of files, with the host's folders in it.
///
/// # Errors
///
/// Says what is wrong, for people.
pub fn plant_tree(shares: Vec<Connected>) -> Result<(), &'static str> {
    let no_memory = |_| "no memory for the first files";
    let has_root = shares.first().is_some_and(|one| depth(one.share.folder) == 0);
    if !has_root {
        tree::plant().map_err(no_memory)?;
    }
    for one in shares {
        let is_first_root = depth(one.share.folder) == 0 && !is_root();
        mount(one)?;
        if is_first_root {
            IS_ROOT.store(true, Ordering::Relaxed);
            tree::plant_over_share().map_err(no_memory)?;
        }
    }
    Ok(())
}

/// How many components a path has.
fn depth(path: &[u8]) -> usize {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).count()
}

/// The folders that the host shares.
fn listed(info: &BootInfo) -> Vec<Share> {
    let module = info.modules().iter().find(|module| module.kind == MODULE_SHARES);
    let Some(module) = module else { return Vec::new() };
    let bytes = module_bytes(GuestPhys(module.start), module.length);
    let mut words = bytes.split(|&byte| byte == 0);
    let mut shares = Vec::new();
    while let (Some(tag), Some(folder), Some(access)) = (words.next(), words.next(), words.next()) {
        let tag = core::str::from_utf8(tag).unwrap_or("share");
        if !folder.starts_with(b"/") {
            continue;
        }
        let read_only = access == SHARE_READ_ONLY.as_bytes();
        shares.push(Share { tag, folder, read_only });
    }
    shares
}

/// The devices that are file systems, in order.
fn devices(info: &BootInfo) -> impl Iterator<Item = virtio::Device> {
    (0..info.virtio_count).filter_map(|index| {
        match virtio::Device::open(index, virtio::KIND_FILE_SYSTEM, REQUEST_QUEUE) {
            Ok(device) => Some(device),
            Err(virtio::Error::Missing) => None,
            Err(error) => {
                log::error!("virtio device {index}: {error}");
                None
            }
        }
    })
}

fn mount(Connected { share, file_system }: Connected) -> Result<(), &'static str> {
    tree::mount(share.folder, share.tag, file_system, share.read_only)
        .map_err(|_| "a shared folder cannot be mounted")
}

/// Carries requests through a device's queue.
struct Carrier {
    device: Lock<virtio::Device>,
}

impl Transport for Carrier {
    fn exchange(
        &self,
        request: &[Readable<'_>],
        reply: &mut [Writable<'_>],
    ) -> Result<usize, TransportError> {
        const MOST: usize = 2;
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        const NOTHING: virtio::Readable<'static> = virtio::Readable::Bytes(&[]);
        let mut readable = [NOTHING; MOST];
        for (to, from) in readable.iter_mut().zip(request) {
            *to = match *from {
                Readable::Bytes(bytes) => virtio::Readable::Bytes(bytes),
                Readable::Frames(frames, length) => virtio::Readable::Frames(frames, length),
            };
        }
        let mut room: [_; MOST] = core::array::from_fn(|_| virtio::Writable::Bytes(&mut []));
        for (to, from) in room.iter_mut().zip(reply) {
            *to = match from {
                Writable::Bytes(bytes) => virtio::Writable::Bytes(bytes),
                Writable::Frames(frames, length) => virtio::Writable::Frames(frames, *length),
            };
        }
        let done = self.device.lock().request(&readable, &mut room);
        done.map_err(|error| {
            log::error!("{error}");
            TransportError("the device of a shared folder failed")
        })
    }

    fn most_frames(&self) -> usize {
        virtio::Device::most_pieces() - FOR_HEADERS
    }
}

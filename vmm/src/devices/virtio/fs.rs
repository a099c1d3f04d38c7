//! A shared folder as a device: FUSE requests in queues.
//!
//! There are two queues: one for requests that must not wait behind others
//! (forgetting nodes), one for all others. Both are served alike, since requests
//! are carried out one after the other.

use virtio_bindings::virtio_ids::VIRTIO_ID_FS;

use super::{Backend, Chain, Profile};
use crate::share::server::Server;

/// Length of the tag in the configuration space.
const TAG_LENGTH: usize = 36;
/// A read of [`crate::share::MAX_TRANSFER`] bytes, a descriptor per page, with
/// some to spare for headers.
const QUEUE_SIZES: &[u16] = &[64, 1024];

/// The device.
pub struct FileSystem {
    tag: String,
    server: Server,
}

impl FileSystem {
    /// A device that the driver knows as `tag`.
    #[must_use]
    pub const fn new(tag: String, server: Server) -> Self {
        Self { tag, server }
    }
}

impl Backend for FileSystem {
    fn profile(&self) -> Profile {
        let mut config = self.tag.clone().into_bytes();
        config.resize(TAG_LENGTH, 0);
        config.extend(1u32.to_le_bytes());
        Profile { kind: VIRTIO_ID_FS, features: 0, config, queue_sizes: QUEUE_SIZES }
    }

    fn serve(&mut self, _queue: usize, chain: Chain<'_>) -> u32 {
        let written = self.server.handle(chain.readable, chain.writable);
        u32::try_from(written).unwrap_or(u32::MAX)
    }

    fn reset(&mut self) {
        self.server.reset();
    }
}

//! All address spaces, as memory management wants them for its reverse map.

use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_mm::{AddressSpace, Spaces};

use super::all;
use super::space::Space;

/// The address spaces of all processes at one moment, each once, however many
/// share it. None may be locked while this is used.
pub struct AllSpaces(Vec<Arc<Space>>);

impl AllSpaces {
    /// Those that there are now.
    pub fn now() -> Self {
        let mut spaces: Vec<Arc<Space>> = Vec::new();
        for process in all() {
            let space = process.space();
            if !spaces.iter().any(|known| Arc::ptr_eq(known, &space)) {
                spaces.push(space);
            }
        }
        Self(spaces)
    }
}

impl Spaces for AllSpaces {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn with(&self, number: usize, visit: &mut dyn FnMut(&mut AddressSpace)) {
        if let Some(space) = self.0.get(number) {
            visit(&mut space.lock());
        }
    }
}

impl AllSpaces {
    /// As [`Spaces::with`], but passes over one that is locked.
    pub fn with_unlocked(&self, number: usize, visit: &mut dyn FnMut(&mut AddressSpace)) {
        if let Some(mut space) = self.0.get(number).and_then(|space| space.try_lock()) {
            visit(&mut space);
        }
    }
}

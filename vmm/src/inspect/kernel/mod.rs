//! What the guest kernel publishes of itself (`pagelab_abi::directory`), read
//! without stopping it.
//!
//! [`Kernel`] is the way in: processes, their address spaces and areas, frames.
//! The guest may be broken or lie: every address is translated and checked,
//! every count has a bound, nothing is read twice in a row because the guest
//! says so, and what changes under the reader is said to ([`Consistency`]).
//!
//! * [`process`]: processes, address spaces, areas, names of objects
//! * [`frames`]: what physical memory is used for, and who maps a frame

pub mod frames;
pub mod process;
#[cfg(test)]
mod tests;

use std::sync::atomic::{Ordering, fence};

use pagelab_abi::addr::{GuestPhys, GuestVirt};
use pagelab_abi::directory::Directory;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::value::Consistency;
use super::{AddressSpace, PhysicalMemory};

pub use frames::{FrameReport, FrameTable, FrameUse, Mapper, MappersOfFrame};
pub use process::{Area, ObjectName, Process, ProcessList, ProcessState, Space};

/// Why the guest's structures cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// There are none yet, or this kernel has none.
    #[error("the guest kernel publishes nothing of itself (yet)")]
    NotPublished,
    /// They are another version's.
    #[error("the guest kernel's directory is not one of this version")]
    Version,
    /// An address leads nowhere.
    #[error("the guest kernel says that {what} is at {address:#x}, where no memory is")]
    Unreadable {
        /// What it is an address of.
        what: &'static str,
        /// The address.
        address: u64,
    },
    /// A number cannot be right.
    #[error("the guest kernel says that there are {number} {what}: that cannot be right")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The number.
        number: u64,
    },
    /// Areas overlap, or are not as many as there should be.
    #[error("the guest kernel's list of areas is out of order")]
    AreasOutOfOrder,
    /// There is no such process.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// There is no such frame.
    #[error("there is no frame {0:#x}")]
    NoFrame(u64),
}

/// How often something that changes while it is read is read again.
const ATTEMPTS: usize = 16;
/// The same for what takes long to read, such as all page tables of a process.
const FEW_ATTEMPTS: usize = 3;

/// A guest kernel, seen from outside.
#[derive(Debug)]
pub struct Kernel<'a, M> {
    memory: &'a M,
    directory: GuestPhys,
    root: GuestPhys,
}

impl<'a, M: PhysicalMemory> Kernel<'a, M> {
    /// The kernel whose directory is at `directory` (see
    /// [`SharedPages::directory`](crate::devices::shared::SharedPages::directory)).
    ///
    /// # Errors
    ///
    /// If there is no valid directory.
    pub fn new(memory: &'a M, directory: Option<GuestPhys>) -> Result<Self, KernelError> {
        let at = directory.ok_or(KernelError::NotPublished)?;
        let mut kernel = Self { memory, directory: at, root: GuestPhys(0) };
        let directory = kernel.directory()?;
        if !directory.is_valid() {
            return Err(KernelError::Version);
        }
        kernel.root = GuestPhys(directory.kernel_root.load(Ordering::Relaxed));
        Ok(kernel)
    }

    /// Guest-physical memory.
    #[must_use]
    pub const fn memory(&self) -> &'a M {
        self.memory
    }

    /// The root of the kernel's own page tables.
    #[must_use]
    pub const fn root(&self) -> GuestPhys {
        self.root
    }

    /// Process and thread that run (or ran last); 0 before the first.
    ///
    /// # Errors
    ///
    /// If the directory is gone.
    pub fn current(&self) -> Result<(u32, u32), KernelError> {
        let directory = self.directory()?;
        let process = directory.current_process.load(Ordering::Relaxed);
        Ok((process, directory.current_thread.load(Ordering::Relaxed)))
    }

    /// The directory as it is now.
    fn directory(&self) -> Result<Directory, KernelError> {
        let mut directory = Directory::new_zeroed();
        let unreadable =
            KernelError::Unreadable { what: "its directory", address: self.directory.0 };
        for (index, word) in directory.as_mut_bytes().chunks_exact_mut(8).enumerate() {
            let address = self.directory.checked_add(index as u64 * 8);
            let value = address.filter(|address| address.0.is_multiple_of(8));
            let value = value.and_then(|address| self.memory.read_entry(address));
            let Some(value) = value else { return Err(unreadable) };
            word.copy_from_slice(&value.0.to_ne_bytes());
        }
        Ok(directory)
    }

    /// Reads a structure at an address of the kernel's, word by word, so that
    /// no number in it is torn.
    fn read<T: FromBytes + IntoBytes>(
        &self,
        what: &'static str,
        address: u64,
    ) -> Result<T, KernelError> {
        let unreadable = KernelError::Unreadable { what, address };
        let mut value = T::new_zeroed();
        let mut page = None;
        if !address.is_multiple_of(8) {
            return Err(unreadable);
        }
        for (index, word) in value.as_mut_bytes().chunks_exact_mut(8).enumerate() {
            let at = address.checked_add(index as u64 * 8).map(GuestVirt);
            let Some(at) = at else { return Err(unreadable) };
            if at.is_page_aligned() || page.is_none() {
                page = self.space().walk(at.page_start()).physical();
            }
            let physical = page.and_then(|page| page.checked_add(at.page_offset()));
            let entry = physical.and_then(|physical| self.memory.read_entry(physical));
            let Some(entry) = entry else { return Err(unreadable) };
            word.copy_from_slice(&entry.0.to_ne_bytes());
        }
        Ok(value)
    }

    /// Reads `length` bytes at an address of the kernel's; the caller knows that
    /// they are not too many.
    fn read_bytes(
        &self,
        what: &'static str,
        address: u64,
        length: usize,
    ) -> Result<Vec<u8>, KernelError> {
        let bytes = self.space().read(GuestVirt(address), length);
        if bytes.len() == length {
            Ok(bytes)
        } else {
            Err(KernelError::Unreadable { what, address })
        }
    }

    /// The kernel's own address space.
    const fn space(&self) -> AddressSpace<'a, M> {
        AddressSpace { memory: self.memory, root: self.root }
    }

    /// Reads a sequence (see `pagelab_abi::directory`).
    fn sequence(&self, address: u64) -> Option<u64> {
        let physical = self.space().walk(GuestVirt(address)).physical()?;
        let value = self.memory.read_entry(physical)?.0;
        fence(Ordering::Acquire);
        Some(value)
    }

    /// Reads something that the sequence at `address` covers, again if it
    /// changed meanwhile, `attempts` times; what was read last counts.
    fn observe_often<T>(
        &self,
        address: u64,
        attempts: usize,
        mut read: impl FnMut() -> Result<T, KernelError>,
    ) -> Result<(T, Consistency), KernelError> {
        let mut last = None;
        for _ in 0..attempts {
            let Some(before) = self.sequence(address) else {
                return read().map(|value| (value, Consistency::Unknown));
            };
            let value = read();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence(address) == Some(before) {
                return value.map(|value| (value, Consistency::Consistent));
            }
            last = Some(value);
        }
        match last {
            Some(value) => value.map(|value| (value, Consistency::Changing)),
            None => read().map(|value| (value, Consistency::Unknown)),
        }
    }

    /// Reads something small that the sequence at `address` covers.
    fn observe<T>(
        &self,
        address: u64,
        read: impl FnMut() -> Result<T, KernelError>,
    ) -> Result<(T, Consistency), KernelError> {
        self.observe_often(address, ATTEMPTS, read)
    }

    /// The directory's own sequence; it is found physically, as the directory.
    fn directory_sequence(&self) -> Option<u64> {
        let offset = std::mem::offset_of!(Directory, sequence) as u64;
        let value = self.memory.read_entry(GuestPhys(self.directory.0 + offset))?.0;
        fence(Ordering::Acquire);
        Some(value)
    }

    /// The same as [`Self::observe`] for what the directory's sequence covers.
    fn observe_directory<T>(
        &self,
        mut read: impl FnMut(&Directory) -> Result<T, KernelError>,
    ) -> Result<(T, Consistency), KernelError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let before = self.directory_sequence();
            let value = self.directory().and_then(|directory| read(&directory));
            fence(Ordering::Acquire);
            let is_even = before.is_some_and(|before| before.is_multiple_of(2));
            if is_even && self.directory_sequence() == before {
                return value.map(|value| (value, Consistency::Consistent));
            }
            last = Some(value);
        }
        let value = last.unwrap_or(Err(KernelError::NotPublished))?;
        Ok((value, Consistency::Changing))
    }
}

//! Mappings: each call is one operation of `pagelab_mm`; here are its arguments
//! as Linux passes them, and the pages that have to come in on the way.

use alloc::vec::Vec;

use linux_raw_sys::general as linux;
use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};
use pagelab_mm::{
    AddressSpace, FaultError, LockAll, MapFlags, MapRequest, MapSource, MmError, NeedsPage,
    Populate, Protection, RemapFlags, RemapRequest, Stopped, SyncFlags,
};
use pagelab_vfs::Errno;

use super::{Arguments, Outcome, advice, files};
use crate::files::{cache, page_in};
use crate::memory::memory;
use crate::process::space::Space;
use crate::process::{reclaim, scheduler};
use crate::user;

/// Memory calls.
pub fn dispatch(call: u32, a: &Arguments) -> Outcome {
    let space = scheduler::current().process.space();
    let address = GuestVirt(a[0]);
    match call {
        linux::__NR_mmap => mmap(&space, a),
        linux::__NR_munmap => {
            attempt(&space, |space| space.munmap(memory(), address, a[1]))?;
            cache().unpin_unused_in_memory();
            Ok(0)
        }
        linux::__NR_mprotect => {
            attempt(&space, |space| space.mprotect(memory(), address, a[1], word(a[2])))?;
            Ok(0)
        }
        linux::__NR_brk => Ok(space.lock().brk(memory(), address).0),
        linux::__NR_mremap => mremap(&space, a),
        linux::__NR_madvise => advice::madvise(&space, a),
        linux::__NR_mincore => mincore(&space, a),
        linux::__NR_msync => msync(&space, a),
        _ => locking(&space, call, a),
    }
}

fn locking(space: &Space, call: u32, a: &Arguments) -> Outcome {
    let address = GuestVirt(a[0]);
    match call {
        linux::__NR_mlock => attempt(space, |space| space.mlock(memory(), address, a[1], false))?,
        linux::__NR_mlock2 => {
            const ON_FAULT: u64 = 1;
            if a[2] & !ON_FAULT != 0 {
                return Err(Errno::EINVAL.into());
            }
            let on_fault = a[2] == ON_FAULT;
            attempt(space, |space| space.mlock(memory(), address, a[1], on_fault))?;
        }
        linux::__NR_munlock => attempt(space, |space| space.munlock(memory(), address, a[1]))?,
        linux::__NR_mlockall => {
            let flags = LockAll::from_bits(word(a[0])).ok_or(Errno::EINVAL)?;
            attempt(space, |space| space.mlockall(memory(), flags))?;
        }
        linux::__NR_munlockall => attempt(space, |space| space.munlockall(memory()))?,
        _ => return Err(Errno::ENOSYS.into()),
    }
    Ok(0)
}

/// The lower half of an argument: how `int` flags arrive.
const fn word(value: u64) -> u32 {
    value as u32
}

/// Does an operation, bringing in the pages it asks for.
///
/// # Errors
///
/// The operation's, or that a page cannot be brought in.
pub fn attempt<T>(
    space: &Space,
    mut operation: impl FnMut(&mut AddressSpace) -> Result<T, MmError>,
) -> Result<T, Errno> {
    loop {
        let result = operation(&mut space.lock());
        match result {
            Ok(value) => return Ok(value),
            Err(MmError::NeedsPage(page)) => {
                bring_in(page).map_err(|error| to_errno(error.into()))?;
            }
            Err(MmError::OutOfMemory) if reclaim::free_some() => {}
            Err(error) => return Err(to_errno(error)),
        }
    }
}

/// Brings a page in, with memory made for it if need be.
fn bring_in(page: NeedsPage) -> Result<bool, FaultError> {
    loop {
        match page_in(page) {
            Err(FaultError::OutOfMemory) if reclaim::free_some() => {}
            result => return result,
        }
    }
}

/// Linux's number for an error of memory management.
#[must_use]
pub fn to_errno(error: MmError) -> Errno {
    u16::try_from(error.errno()).ok().and_then(Errno::from_number).unwrap_or(Errno::EINVAL)
}

fn mmap(space: &Space, a: &Arguments) -> Outcome {
    let offset = a[5];
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    // Bits that are not known are ignored, as on Linux.
    let flags = MapFlags::from_bits_retain(word(a[3]));
    let mut request = MapRequest {
        address: GuestVirt(a[0]),
        length: a[1],
        protection: Protection::from_bits_truncate(a[2] as u8),
        flags,
        source: MapSource::Anonymous,
    };
    if !flags.contains(MapFlags::ANONYMOUS) {
        let file = files::open_file(super::int(a[4]) as u32 as u64)?;
        // What is wrong with the place is said before what the file does not allow.
        space.lock().place(&request).map_err(to_errno)?;
        request.source = files::map_source(&file, word(a[2]), flags, offset / PAGE_SIZE)?;
    }
    let mapped = attempt(space, |space| space.mmap(memory(), &request))?;
    if mapped.populate {
        populate(space, mapped.start, GuestVirt(mapped.start.0 + mapped.length));
    }
    Ok(mapped.start.0)
}

/// Makes pages present; where that fails, the program finds out when it touches
/// them.
fn populate(space: &Space, start: GuestVirt, end: GuestVirt) {
    let (mut at, mut major) = (start, false);
    loop {
        let result = space.lock().populate(memory(), at, end, Populate::Mapping, major);
        match result {
            Err(Stopped { at: stopped, error: FaultError::NeedsPage(page) }) => {
                let Ok(read) = bring_in(page) else { return };
                (at, major) = (stopped, read);
            }
            Err(Stopped { at: stopped, error: FaultError::OutOfMemory })
                if reclaim::free_some() =>
            {
                (at, major) = (stopped, false);
            }
            _ => return,
        }
    }
}

fn mremap(space: &Space, a: &Arguments) -> Outcome {
    let request = RemapRequest {
        address: GuestVirt(a[0]),
        old_length: a[1],
        new_length: a[2],
        flags: RemapFlags::from_bits_retain(word(a[3])),
        new_address: GuestVirt(a[4]),
    };
    let mapped = attempt(space, |space| space.mremap(memory(), &request))?;
    if let Some((start, end)) = mapped.populate {
        populate(space, start, end);
    }
    Ok(mapped.start.0)
}

fn mincore(space: &Space, a: &Arguments) -> Outcome {
    const PIECE: u64 = 1 << 20;
    let (start, length, vector) = (GuestVirt(a[0]), a[1], a[2]);
    if !start.is_page_aligned() {
        return Err(Errno::EINVAL.into());
    }
    let mut done = 0;
    loop {
        let at = GuestVirt(start.0.wrapping_add(done));
        let piece = (length - done).min(PIECE);
        let mut resident = Vec::new();
        let result = space.lock().mincore(memory(), at, piece, |_, present| {
            resident.push(u8::from(present));
        });
        result.map_err(to_errno)?;
        user::write_bytes(GuestVirt(vector.wrapping_add(done / PAGE_SIZE)), &resident)?;
        done += piece;
        if done >= length {
            return Ok(0);
        }
    }
}

fn msync(space: &Space, a: &Arguments) -> Outcome {
    let flags = SyncFlags::from_bits(word(a[2])).ok_or(Errno::EINVAL)?;
    let mut parts = Vec::new();
    let result = attempt(space, |space| {
        space.msync(memory(), GuestVirt(a[0]), a[1], flags, |object, first, end| {
            parts.push((object, first..end));
            Ok(())
        })
    });
    for (object, pages) in parts {
        if let Some(file) = cache().backed(object) {
            file.sync_mapping(pages)?;
        }
    }
    result?;
    Ok(0)
}

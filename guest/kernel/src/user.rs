//! The kernel's access to the current program's memory.
//!
//! Every address is the program's word: it is translated through the program's
//! page tables with the program's rights, pages that are missing come in, and
//! what cannot be reached is EFAULT, with what was done so far.

use alloc::vec::Vec;

use pagelab_abi::addr::GuestVirt;
use pagelab_mm::user::Partial;
use pagelab_mm::{AddressSpace, FaultError};
use pagelab_vfs::Errno;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::files;
use crate::memory::memory;
use crate::process::space::Space;
use crate::process::{oom, scheduler};

/// An address that a program passed.
pub type UserAddress = GuestVirt;

/// Copies from the program's memory.
///
/// # Errors
///
/// EFAULT.
pub fn read_bytes(address: UserAddress, into: &mut [u8]) -> Result<(), Errno> {
    let space = scheduler::current().process.space();
    retry(&space, |space, done| {
        space.read_user(memory(), GuestVirt(address.0 + done as u64), &mut into[done..])
    })
}

/// Copies into the program's memory.
///
/// # Errors
///
/// EFAULT.
pub fn write_bytes(address: UserAddress, from: &[u8]) -> Result<(), Errno> {
    let space = scheduler::current().process.space();
    write_bytes_of(&space, address, from)
}

/// Copies into the memory of an address space.
///
/// # Errors
///
/// EFAULT.
pub fn write_bytes_of(space: &Space, address: UserAddress, from: &[u8]) -> Result<(), Errno> {
    retry(space, |space, done| {
        space.write_user(memory(), GuestVirt(address.0 + done as u64), &from[done..])
    })
}

/// A value from the program's memory.
///
/// # Errors
///
/// EFAULT.
pub fn read<T: FromBytes + FromZeros + IntoBytes>(address: UserAddress) -> Result<T, Errno> {
    let mut value = T::new_zeroed();
    read_bytes(address, value.as_mut_bytes())?;
    Ok(value)
}

/// Stores a value in the program's memory.
///
/// # Errors
///
/// EFAULT.
pub fn write<T: IntoBytes + Immutable>(address: UserAddress, value: &T) -> Result<(), Errno> {
    write_bytes(address, value.as_bytes())
}

/// Stores a value unless the address is null, as optional results are.
///
/// # Errors
///
/// EFAULT.
pub fn write_optional<T: IntoBytes + Immutable>(
    address: UserAddress,
    value: &T,
) -> Result<(), Errno> {
    if address.0 == 0 { Ok(()) } else { write(address, value) }
}

/// A string that ends with a NUL, without it; at most `most` bytes.
///
/// # Errors
///
/// EFAULT, or `too_long` if no NUL comes.
pub fn read_string(address: UserAddress, most: usize, too_long: Errno) -> Result<Vec<u8>, Errno> {
    const PIECE: usize = 256;
    let mut text = Vec::new();
    while text.len() < most {
        let at = GuestVirt(address.0.wrapping_add(text.len() as u64));
        // Not past the end of a page: the next one may not be there.
        let in_page = (4096 - at.page_offset()) as usize;
        let mut piece = [0; PIECE];
        let count = PIECE.min(in_page).min(most - text.len());
        read_bytes(at, &mut piece[..count])?;
        if let Some(end) = piece[..count].iter().position(|&byte| byte == 0) {
            text.extend_from_slice(&piece[..end]);
            return Ok(text);
        }
        text.extend_from_slice(&piece[..count]);
    }
    Err(too_long)
}

/// Repeats an access until it is done, bringing in pages and making room.
///
/// # Errors
///
/// EFAULT.
pub fn retry(
    space: &Space,
    mut access: impl FnMut(&mut AddressSpace, usize) -> Result<(), Partial>,
) -> Result<(), Errno> {
    let mut done = 0;
    loop {
        let partial = match access(&mut space.lock(), done) {
            Ok(()) => return Ok(()),
            Err(partial) => partial,
        };
        done += partial.done;
        mend(partial.error)?;
    }
}

/// Does what makes it worth trying again.
///
/// # Errors
///
/// EFAULT if nothing does.
pub fn mend(error: FaultError) -> Result<(), Errno> {
    match error {
        FaultError::NeedsPage(page) => {
            files::page_in(page).map(drop).or_else(|error| match error {
                FaultError::OutOfMemory if oom::make_room() => Ok(()),
                _ => Err(Errno::EFAULT),
            })
        }
        FaultError::OutOfMemory if oom::make_room() => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

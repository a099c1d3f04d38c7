//! Who called whom: the chain of frame pointers in guest memory.
//!
//! The kernel is built with frame pointers, so RBP points to the caller's RBP,
//! and the return address lies above it. The stack is the guest's and may hold
//! anything: the chain is followed only upwards, over mapped memory, and not
//! for ever.

use pagelab_abi::addr::GuestVirt;

use super::{AddressSpace, PhysicalMemory};

/// Most callers that are reported.
pub const MAX_DEPTH: usize = 64;
/// A frame larger than this is none.
const MAX_FRAME_BYTES: u64 = 1 << 20;

/// Return addresses above the function that runs, innermost first. `rbp` is its
/// frame pointer.
#[must_use]
pub fn callers<M: PhysicalMemory>(space: &AddressSpace<'_, M>, rbp: u64) -> Vec<GuestVirt> {
    let mut found = Vec::new();
    let mut frame = rbp;
    while found.len() < MAX_DEPTH && frame.is_multiple_of(8) {
        let Some(above) = frame.checked_add(8) else { break };
        let (Some(next), Some(return_address)) =
            (space.read_u64(GuestVirt(frame)), space.read_u64(GuestVirt(above)))
        else {
            break;
        };
        if return_address == 0 {
            break;
        }
        found.push(GuestVirt(return_address));
        if next <= frame || next - frame > MAX_FRAME_BYTES {
            break;
        }
        frame = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestGuest;
    use super::*;

    const STACK: u64 = 0xffff_e000_0000_0000;

    fn guest(frames: &[(u64, u64, u64)]) -> TestGuest {
        let mut guest = TestGuest::new();
        guest.map(STACK, 0x8000, TestGuest::KERNEL_DATA);
        for &(at, next, return_address) in frames {
            guest.write_u64(0x8000 + at, next);
            guest.write_u64(0x8000 + at + 8, return_address);
        }
        guest
    }

    fn callers_of(guest: &TestGuest, rbp: u64) -> Vec<u64> {
        callers(&guest.space(), rbp).iter().map(|address| address.0).collect()
    }

    #[test]
    fn the_chain_ends_at_a_null_frame_pointer() {
        let guest =
            guest(&[(0x100, STACK + 0x140, 0x11), (0x140, STACK + 0x180, 0x22), (0x180, 0, 0x33)]);
        assert_eq!(callers_of(&guest, STACK + 0x100), [0x11, 0x22, 0x33]);
    }

    #[test]
    fn loops_descents_and_leaps_are_not_followed() {
        let this = STACK + 0x100;
        assert_eq!(callers_of(&guest(&[(0x100, this, 1)]), this), [1]);
        assert_eq!(callers_of(&guest(&[(0x100, this - 8, 1)]), this), [1]);
        assert_eq!(callers_of(&guest(&[(0x100, u64::MAX - 7, 1)]), this), [1]);
    }

    #[test]
    fn a_frame_pointer_that_is_none_gives_no_callers() {
        let guest = guest(&[(0x100, 0, 1)]);
        for rbp in [0, 1, STACK + 0x101, STACK - 8, 1 << 47, u64::MAX, u64::MAX - 7] {
            assert!(callers_of(&guest, rbp).is_empty(), "{rbp:#x}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let frames: Vec<_> = (0..200).map(|n| (n * 16, STACK + n * 16 + 16, n + 1)).collect();
        assert_eq!(callers_of(&guest(&frames), STACK).len(), MAX_DEPTH);
    }
}

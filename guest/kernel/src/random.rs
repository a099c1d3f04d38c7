//! Random numbers: the same in every run, unless the host gave a seed.
//!
//! A lab repeats, so its randomness must; where that is not wanted the host
//! fills [`pagelab_abi::boot::BootInfo::entropy`]. The generator is xoshiro256**:
//! good statistics, no secrecy.

use core::sync::atomic::{AtomicBool, Ordering};

use pagelab_abi::boot::BootInfo;
use pagelab_hal::sync::Lock;

static STATE: Lock<[u64; 4]> = Lock::new([
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0x2545_f491_4f6c_dd1d,
]);

/// The host gave a seed: addresses are to be random, too.
static SEEDED: AtomicBool = AtomicBool::new(false);

/// Takes the host's seed.
pub fn init(info: &BootInfo) {
    SEEDED.store(info.entropy != [0; 32], Ordering::Relaxed);
    let mut state = STATE.lock();
    for (word, bytes) in state.iter_mut().zip(info.entropy.chunks_exact(8)) {
        let mut seed = [0; 8];
        seed.copy_from_slice(bytes);
        *word ^= u64::from_le_bytes(seed);
    }
}

/// How many pages something is moved by, below two to the power of `bits`: none
/// in a lab that repeats.
pub fn shift_in_pages(bits: u32) -> u64 {
    if SEEDED.load(Ordering::Relaxed) { next() >> (u64::BITS - bits) } else { 0 }
}

/// Fills a buffer.
pub fn fill(bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        let value = next().to_le_bytes();
        chunk.copy_from_slice(&value[..chunk.len()]);
    }
}

fn next() -> u64 {
    let mut state = STATE.lock();
    let result = state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
    let shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = state[3].rotate_left(45);
    result
}

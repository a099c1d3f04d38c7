//! The time-stamp counter as a clock, and as a measure of the kernel's own time.

use core::sync::atomic::{AtomicU64, Ordering};

use pagelab_abi::boot::BootInfo;

use crate::cpu;

/// Nanoseconds per tick, as a fraction of 2^32.
static NANOSECONDS_PER_TICK: AtomicU64 = AtomicU64::new(1 << 32);
static START: AtomicU64 = AtomicU64::new(0);
static WALL_CLOCK_AT_START: AtomicU64 = AtomicU64::new(0);

const CALIBRATION_MS: u64 = 10;
const PIT_HZ: u64 = 1_193_182;
const PIT_CHANNEL_2: u16 = 0x42;
const PIT_COMMAND: u16 = 0x43;
const SPEAKER: u16 = 0x61;

/// Learns the counter's frequency: from the host, or by the interval timer.
pub(crate) fn init(info: &BootInfo) {
    let khz = if info.tsc_khz != 0 { info.tsc_khz } else { calibrate_khz() };
    let per_tick = (1_000_000_u64 << 32) / khz.max(1);
    NANOSECONDS_PER_TICK.store(per_tick, Ordering::Relaxed);
    START.store(cpu::timestamp(), Ordering::Relaxed);
    WALL_CLOCK_AT_START.store(info.wall_clock_ns, Ordering::Relaxed);
}

/// Counts ticks while channel 2 of the interval timer counts down.
fn calibrate_khz() -> u64 {
    const GATE_ON_SPEAKER_OFF: u8 = 1;
    const OUTPUT: u8 = 1 << 5;
    const ONE_SHOT_CHANNEL_2: u8 = 0b1011_0000;
    const PATIENCE: u32 = 10_000_000;
    let count = (PIT_HZ * CALIBRATION_MS / 1000) as u16;
    for (port, value) in [
        (SPEAKER, GATE_ON_SPEAKER_OFF),
        (PIT_COMMAND, ONE_SHOT_CHANNEL_2),
        (PIT_CHANNEL_2, count as u8),
        (PIT_CHANNEL_2, (count >> 8) as u8),
    ] {
        // SAFETY: the interval timer writes no memory.
        unsafe { cpu::out8(port, value) };
    }
    let start = cpu::timestamp();
    for _ in 0..PATIENCE {
        // SAFETY: reads a status.
        if unsafe { cpu::in8(SPEAKER) } & OUTPUT != 0 {
            break;
        }
    }
    (cpu::timestamp() - start) / CALIBRATION_MS
}

/// Nanoseconds since the kernel started.
#[must_use]
#[inline]
pub fn since_start() -> u64 {
    to_nanoseconds(cpu::timestamp().wrapping_sub(START.load(Ordering::Relaxed)))
}

/// Nanoseconds since 1970, as far as the host told.
#[must_use]
pub fn wall_clock() -> u64 {
    WALL_CLOCK_AT_START.load(Ordering::Relaxed).wrapping_add(since_start())
}

/// Ticks as nanoseconds.
#[must_use]
pub fn to_nanoseconds(ticks: u64) -> u64 {
    let per_tick = NANOSECONDS_PER_TICK.load(Ordering::Relaxed);
    ((u128::from(ticks) * u128::from(per_tick)) >> 32) as u64
}

/// The counter's value at a moment given in nanoseconds since the start.
#[must_use]
pub fn to_timestamp(nanoseconds: u64) -> u64 {
    let per_tick = NANOSECONDS_PER_TICK.load(Ordering::Relaxed).max(1);
    let ticks = (u128::from(nanoseconds) << 32) / u128::from(per_tick);
    START.load(Ordering::Relaxed).wrapping_add(u64::try_from(ticks).unwrap_or(u64::MAX))
}

/// Time in the kernel since [`take_kernel_ticks`], less the present moment while
/// the kernel runs: every entry takes the time-stamp counter off, every return
/// adds it.
static KERNEL_TICKS: AtomicU64 = AtomicU64::new(0);

/// How long the kernel has run since [`take_kernel_ticks`], asked by it `now`.
#[must_use]
pub fn kernel_ticks(now: u64) -> u64 {
    KERNEL_TICKS.load(Ordering::Relaxed).wrapping_add(now)
}

/// The same, counted anew from `now` on.
pub fn take_kernel_ticks(now: u64) -> u64 {
    KERNEL_TICKS.swap(now.wrapping_neg(), Ordering::Relaxed).wrapping_add(now)
}

/// Counts the kernel's time from here on.
#[inline]
pub(crate) fn begin_kernel_time() {
    let ticks = KERNEL_TICKS.load(Ordering::Relaxed).wrapping_sub(cpu::timestamp());
    KERNEL_TICKS.store(ticks, Ordering::Relaxed);
}

/// Counts the kernel's time up to here.
#[inline]
pub(crate) fn end_kernel_time() {
    let ticks = KERNEL_TICKS.load(Ordering::Relaxed).wrapping_add(cpu::timestamp());
    KERNEL_TICKS.store(ticks, Ordering::Relaxed);
}

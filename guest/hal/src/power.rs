//! The end: power-off, and dying with a report.

use core::arch::asm;
use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use pagelab_abi::lab::{OP_PANIC, OP_POWER_OFF, PanicState, Segment};

use crate::console::Line;
use crate::lab::{self, Milestone};
use crate::memory;
use crate::trap::{self, TrapFrame, vector};
use crate::{cpu, serial};

/// Ports by which common VMMs power off, tried where the lab's device is
/// missing: QEMU's debug exit, ACPI's sleep register of its PC machines, the
/// keyboard controller's reset line (which VMMs without reboot take as the end).
const DEBUG_EXIT: u16 = 0xf4;
const ACPI_SLEEP: u16 = 0x604;
const ACPI_SLEEP_NOW: u16 = 1 << 13;
const KEYBOARD: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;

/// Status of a kernel that died, for VMMs that can only be told a number.
const DIED: u32 = 70;

/// Ends the machine with a status.
pub fn power_off(status: u32) -> ! {
    lab::reach(Milestone::PowerOff, cpu::timestamp());
    lab::request(OP_POWER_OFF, status, &[]);
    leave(status)
}

/// Every way out that needs no shared pages.
fn leave(status: u32) -> ! {
    lab::plain_power_off(status);
    // SAFETY: ends the machine, or does nothing.
    unsafe { cpu::out32(DEBUG_EXIT, status) };
    // SAFETY: as above.
    unsafe { cpu::out16(ACPI_SLEEP, ACPI_SLEEP_NOW) };
    // SAFETY: as above.
    unsafe { cpu::out8(KEYBOARD, KEYBOARD_RESET) };
    cpu::halt_forever()
}

static DYING: AtomicBool = AtomicBool::new(false);

/// An exception in ring 0, or one that leaves nothing to go on with.
#[cold]
pub(crate) fn die_of_exception(frame: &TrapFrame) -> ! {
    let mut message = Line::<512>::new();
    let name = trap::exception_name(frame.vector);
    let cr2 = cpu::read_cr2();
    let _ = write!(message, "{name} in ring {}", frame.cs & 3);
    if frame.vector == u64::from(vector::PAGE_FAULT) {
        let _ = write!(message, " at address {cr2:#x}");
    }
    let state = PanicState {
        general: [
            frame.rax, frame.rbx, frame.rcx, frame.rdx, frame.rsi, frame.rdi, frame.rbp, frame.rsp,
            frame.r8, frame.r9, frame.r10, frame.r11, frame.r12, frame.r13, frame.r14, frame.r15,
        ],
        rip: frame.rip,
        rflags: frame.rflags,
        cr2,
        cr3: cpu::read_cr3(),
        vector: frame.vector,
        error_code: frame.error_code,
        ..PanicState::default()
    };
    die(message.as_bytes(), state, frame.rbp)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut message = Line::<1024>::new();
    let _ = write!(message, "{}", info.message());
    if let Some(place) = info.location() {
        let _ = write!(message, " ({}:{})", place.file(), place.line());
    }
    let (rbp, rsp, rip): (u64, u64, u64);
    // SAFETY: reads registers.
    unsafe {
        asm!("mov {}, rbp", "mov {}, rsp", "lea {}, [rip]", out(reg) rbp, out(reg) rsp,
             out(reg) rip, options(nomem, nostack));
    }
    let mut state = PanicState {
        rip,
        cr2: cpu::read_cr2(),
        cr3: cpu::read_cr3(),
        vector: u64::MAX,
        ..PanicState::default()
    };
    state.general[6] = rbp;
    state.general[7] = rsp;
    die(message.as_bytes(), state, rbp)
}

/// The processor's state, aligned so that it never crosses into another page.
#[repr(C, align(512))]
struct Report {
    state: PanicState,
}

const _: () = assert!(size_of::<Report>() == 512);

/// Reports once and ends; dying while dying just ends.
fn die(message: &[u8], state: PanicState, frame_pointer: u64) -> ! {
    let mut report = Report { state };
    if DYING.swap(true, Ordering::Relaxed) {
        leave(DIED);
    }
    let state = &mut report.state;
    state.depth = backtrace(frame_pointer, &mut state.backtrace) as u64;
    if lab::is_present() {
        // SAFETY: plain numbers without padding, read as bytes.
        let bytes = unsafe {
            core::slice::from_raw_parts(
                core::ptr::from_ref(state).cast::<u8>(),
                size_of::<PanicState>(),
            )
        };
        // Each in one page, so they are the two segments that the host expects.
        let mut segments = [Segment::default(); 2];
        let pieces = lab::segments_of(message).chain(lab::segments_of(bytes));
        let count = segments.iter_mut().zip(pieces).map(|(place, piece)| *place = piece).count();
        lab::request(OP_PANIC, 0, &segments[..count]);
    } else {
        report_on_serial(message, state);
    }
    leave(DIED)
}

/// Follows the frame pointers, as long as they point up the stack into memory
/// that is mapped.
fn backtrace(mut frame_pointer: u64, addresses: &mut [u64]) -> usize {
    let read = |address: u64| {
        let place = address.is_multiple_of(8).then(|| memory::translate(address)).flatten()?;
        // SAFETY: mapped, aligned.
        Some(unsafe { ((pagelab_abi::layout::PHYSMAP_BASE + place.0) as *const u64).read() })
    };
    let mut depth = 0;
    while depth < addresses.len() {
        let (Some(next), Some(address)) =
            (read(frame_pointer), frame_pointer.checked_add(8).and_then(read))
        else {
            break;
        };
        if address == 0 {
            break;
        }
        addresses[depth] = address;
        depth += 1;
        if next <= frame_pointer {
            break;
        }
        frame_pointer = next;
    }
    depth
}

fn report_on_serial(message: &[u8], state: &PanicState) {
    serial::write(b"kernel panic: ");
    serial::write(message);
    let mut line = Line::<1024>::new();
    let _ = writeln!(
        line,
        "\n  rip {:#x} rsp {:#x} cr2 {:#x} cr3 {:#x} error {:#x}",
        state.rip, state.general[7], state.cr2, state.cr3, state.error_code
    );
    for address in &state.backtrace[..state.depth as usize] {
        let _ = writeln!(line, "  called from {address:#x}");
    }
    serial::write(line.as_bytes());
}

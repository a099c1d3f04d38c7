//! COM1, for VMMs without the lab's device: output, polled.

use pagelab_abi::layout::SERIAL_PORT;

use crate::cpu;

const LINE_CONTROL: u16 = SERIAL_PORT + 3;
const LINE_STATUS: u16 = SERIAL_PORT + 5;
const EIGHT_BITS: u8 = 3;
const MAY_SEND: u8 = 1 << 5;
/// How often the line status is asked before a byte is sent regardless.
const PATIENCE: u32 = 10_000;

/// Eight bits, no parity, one stop bit.
pub(crate) fn init() {
    // SAFETY: a UART writes no memory.
    unsafe { cpu::out8(LINE_CONTROL, EIGHT_BITS) };
}

/// Sends bytes; a newline becomes carriage return and newline.
pub(crate) fn write(bytes: &[u8]) {
    for &byte in bytes {
        if byte == b'\n' {
            send(b'\r');
        }
        send(byte);
    }
}

fn send(byte: u8) {
    for _ in 0..PATIENCE {
        // SAFETY: reads a status.
        if unsafe { cpu::in8(LINE_STATUS) } & MAY_SEND != 0 {
            break;
        }
    }
    // SAFETY: a UART writes no memory.
    unsafe { cpu::out8(SERIAL_PORT, byte) };
}

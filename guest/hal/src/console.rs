//! Output: through the lab's device, or through the serial port without it.

use core::fmt::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};
use pagelab_abi::lab::{MAX_REQUEST_BYTES, MAX_SEGMENTS, OP_LOG, OP_WRITE, Segment};

use crate::{lab, memory, serial};

/// Writes pieces of physical memory to a stream (`pagelab_abi::lab::STREAM_*`);
/// `false` if the host could not take them.
pub fn write_segments(stream: u32, segments: &[Segment]) -> bool {
    if !lab::is_present() {
        for segment in segments {
            serial::write(memory::module_bytes(
                pagelab_abi::addr::GuestPhys(segment.start),
                segment.length,
            ));
        }
        return true;
    }
    debug_assert!(segments.iter().map(|segment| segment.length).sum::<u64>() <= MAX_REQUEST_BYTES);
    segments.chunks(MAX_SEGMENTS).all(|chunk| lab::request(OP_WRITE, stream, chunk))
}

/// Writes bytes of the kernel's own to a stream.
pub fn write_bytes(stream: u32, bytes: &[u8]) -> bool {
    if lab::is_present() {
        const PIECE: usize = 16 * 4096;
        bytes.chunks(PIECE).all(|piece| lab::request_with(OP_WRITE, stream, piece))
    } else {
        serial::write(bytes);
        true
    }
}

/// Text in a fixed buffer; what does not fit is cut off. Aligned so that up to
/// 1024 bytes lie in one page, wherever the line is: one segment of a request.
#[repr(C, align(1024))]
pub(crate) struct Line<const SIZE: usize> {
    bytes: [u8; SIZE],
    length: usize,
}

impl<const SIZE: usize> Line<SIZE> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; SIZE], length: 0 }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl<const SIZE: usize> Write for Line<SIZE> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = SIZE - self.length;
        let count = text.len().min(room);
        self.bytes[self.length..self.length + count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        if count == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

struct Logger;

static LOGGER: Logger = Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = Line::<512>::new();
        if lab::is_present() {
            // A line that is too long is cut off, not lost.
            let _ = line.write_fmt(*record.args());
            lab::request_with(OP_LOG, record.level() as u32, line.as_bytes());
        } else {
            let name = record.level().as_str();
            let _ = writeln!(line, "[{name}] {}", record.args());
            serial::write(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Makes `log` write here. Levels below `info` only if the command line asks
/// (`log=debug`): where ring 0 is emulated a line costs a millisecond.
pub(crate) fn init(command_line: &str) {
    let asked = command_line
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("log="))
        .and_then(|level| level.parse::<LevelFilter>().ok());
    log::set_max_level(asked.unwrap_or(Level::Info.to_level_filter()));
    // Set once, so it cannot fail.
    let _ = log::set_logger(&LOGGER);
}

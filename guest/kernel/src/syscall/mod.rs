//! System calls: Linux's numbers, arguments and results.

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::lab::Segment as Piece;
use pagelab_abi::lab::{STREAM_ERROR, STREAM_OUTPUT};
use pagelab_hal::console;
use pagelab_hal::trap::TrapFrame;
use pagelab_mm::Access;

use alloc::vec::Vec;

use crate::memory::memory;
use crate::process::{ExitStatus, exit, scheduler};

const WRITE: u64 = 1;
const GETPID: u64 = 39;
const EXIT: u64 = 60;
const EXIT_GROUP: u64 = 231;

const EBADF: i64 = 9;
const EFAULT: i64 = 14;
const EIO: i64 = 5;
const ENOSYS: i64 = 38;

/// A system call: RAX is its number, RDI, RSI, RDX, R10, R8, R9 its arguments;
/// the result goes to RAX, errors as small negative numbers.
pub fn system_call(frame: &mut TrapFrame) {
    let result = match frame.rax {
        WRITE => write(frame.rdi, GuestVirt(frame.rsi), frame.rdx),
        GETPID => Ok(u64::from(scheduler::current().process.pid)),
        EXIT | EXIT_GROUP => exit::exit_process(ExitStatus::Exited(frame.rdi as u8)),
        number => {
            log::warn!("system call {number} is not there");
            Err(ENOSYS)
        }
    };
    frame.rax = result.unwrap_or_else(|errno| (-errno) as u64);
}

/// `write` to the lab's standard output or error, straight from the program's
/// frames.
fn write(file: u64, address: GuestVirt, length: u64) -> Result<u64, i64> {
    const MOST: u64 = 64 * 1024;
    let stream = match file {
        1 => STREAM_OUTPUT,
        2 => STREAM_ERROR,
        _ => return Err(EBADF),
    };
    let length = length.min(MOST);
    let mut pieces = Vec::new();
    let thread = scheduler::current();
    let space = thread.process.space();
    space
        .lock()
        .for_each_segment(memory(), address, length as usize, Access::READ, |segment, _| {
            let start = segment.frame.start().0 + segment.offset as u64;
            pieces.push(Piece { start, length: segment.length as u64 });
            true
        })
        .map_err(|_| EFAULT)?;
    if console::write_segments(stream, &pieces) { Ok(length) } else { Err(EIO) }
}

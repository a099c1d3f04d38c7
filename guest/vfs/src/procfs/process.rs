//! `status`, `stat`, `statm`, `limits` and the smaller files of a process.

use alloc::vec::Vec;

use super::data::{LIMITS, Limit, ProcessMemory, ProcessStatus};
use crate::store::PAGE_SIZE;
use crate::text::{push_decimal, push_hex, push_padded, push_signed};

/// All capabilities that Linux knows.
const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

/// `TASK_SIZE_MAX`: addresses of programs end here.
const NO_LIMIT: u64 = u64::MAX;

/// The bytes of a name up to its first NUL.
fn name_of(status: &ProcessStatus) -> &[u8] {
    let name = &status.name;
    &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())]
}

/// The name with what would break a line escaped, as Linux does.
fn push_escaped_name(out: &mut Vec<u8>, name: &[u8]) {
    for byte in name {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            _ => out.push(*byte),
        }
    }
}

/// What a state is called.
const fn state_name(state: u8) -> &'static [u8] {
    match state {
        b'R' => b"R (running)",
        b'S' => b"S (sleeping)",
        b'D' => b"D (disk sleep)",
        b'T' => b"T (stopped)",
        b't' => b"t (tracing stop)",
        b'Z' => b"Z (zombie)",
        b'X' => b"X (dead)",
        _ => b"I (idle)",
    }
}

fn number(out: &mut Vec<u8>, label: &[u8], value: u64) {
    out.extend_from_slice(label);
    push_decimal(out, value);
    out.push(b'\n');
}

fn signal_set(out: &mut Vec<u8>, label: &[u8], set: u64) {
    out.extend_from_slice(label);
    push_hex(out, set, 16);
    out.push(b'\n');
}

fn size_line(out: &mut Vec<u8>, label: &[u8], kib: u64) {
    out.extend_from_slice(label);
    push_padded(out, kib, 8, b' ');
    out.extend_from_slice(b" kB\n");
}

/// Appends `status`.
pub fn write_status(out: &mut Vec<u8>, status: &ProcessStatus) {
    out.extend_from_slice(b"Name:\t");
    push_escaped_name(out, name_of(status));
    out.extend_from_slice(b"\nUmask:\t0");
    for shift in [6, 3, 0] {
        out.push(b'0' + (status.umask >> shift & 7) as u8);
    }
    out.extend_from_slice(b"\nState:\t");
    out.extend_from_slice(state_name(status.state));
    number(out, b"\nTgid:\t", status.process.into());
    number(out, b"Ngid:\t", 0);
    number(out, b"Pid:\t", status.thread.into());
    number(out, b"PPid:\t", status.parent.into());
    number(out, b"TracerPid:\t", 0);
    out.extend_from_slice(b"Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n");
    number(out, b"FDSize:\t", status.descriptors.into());
    out.extend_from_slice(b"Groups:\t \n");
    number(out, b"NStgid:\t", status.process.into());
    number(out, b"NSpid:\t", status.thread.into());
    number(out, b"NSpgid:\t", status.group.into());
    number(out, b"NSsid:\t", status.session.into());
    number(out, b"Kthread:\t", 0);
    if let Some(memory) = &status.memory {
        write_status_memory(out, memory);
    }
    write_status_rest(out, status);
}

fn write_status_memory(out: &mut Vec<u8>, memory: &ProcessMemory) {
    const KIB: u64 = PAGE_SIZE / 1024;
    for (label, pages) in [
        (&b"VmPeak:\t"[..], memory.peak_size.max(memory.size)),
        (b"VmSize:\t", memory.size),
        (b"VmLck:\t", memory.locked),
        (b"VmPin:\t", 0),
        (b"VmHWM:\t", memory.peak_resident.max(memory.resident())),
        (b"VmRSS:\t", memory.resident()),
        (b"RssAnon:\t", memory.anonymous),
        (b"RssFile:\t", memory.file),
        (b"RssShmem:\t", memory.shared_memory),
        (b"VmData:\t", memory.data),
        (b"VmStk:\t", memory.stack),
        (b"VmExe:\t", memory.text),
        (b"VmLib:\t", memory.library),
    ] {
        size_line(out, label, pages * KIB);
    }
    size_line(out, b"VmPTE:\t", memory.page_table_bytes / 1024);
    size_line(out, b"VmSwap:\t", memory.swap * KIB);
    size_line(out, b"HugetlbPages:\t", 0);
    out.extend_from_slice(b"CoreDumping:\t0\nTHP_enabled:\t0\nuntag_mask:\t0xffffffffffffffff\n");
}

fn write_status_rest(out: &mut Vec<u8>, status: &ProcessStatus) {
    let signals = &status.signals;
    number(out, b"Threads:\t", status.threads.into());
    out.extend_from_slice(b"SigQ:\t");
    push_decimal(out, signals.queued.0);
    number(out, b"/", signals.queued.1);
    signal_set(out, b"SigPnd:\t", signals.pending);
    signal_set(out, b"ShdPnd:\t", signals.shared_pending);
    signal_set(out, b"SigBlk:\t", signals.blocked);
    signal_set(out, b"SigIgn:\t", signals.ignored);
    signal_set(out, b"SigCgt:\t", signals.caught);
    signal_set(out, b"CapInh:\t", 0);
    signal_set(out, b"CapPrm:\t", ALL_CAPABILITIES);
    signal_set(out, b"CapEff:\t", ALL_CAPABILITIES);
    signal_set(out, b"CapBnd:\t", ALL_CAPABILITIES);
    signal_set(out, b"CapAmb:\t", 0);
    out.extend_from_slice(b"NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n");
    out.extend_from_slice(b"Cpus_allowed:\t");
    let all = 1_u64.checked_shl(status.processors).unwrap_or(0).wrapping_sub(1);
    push_hex(out, all, 1);
    out.extend_from_slice(b"\nCpus_allowed_list:\t0");
    if status.processors > 1 {
        out.push(b'-');
        push_decimal(out, u64::from(status.processors) - 1);
    }
    out.extend_from_slice(b"\nMems_allowed:\t1\nMems_allowed_list:\t0\n");
    number(out, b"voluntary_ctxt_switches:\t", status.voluntary_switches);
    number(out, b"nonvoluntary_ctxt_switches:\t", status.involuntary_switches);
}

/// The scheduling class's number for an ordinary process of nice 0.
const PRIORITY: u64 = 20;

/// Appends `stat`: 52 fields.
pub fn write_stat(out: &mut Vec<u8>, status: &ProcessStatus) {
    let memory = status.memory.unwrap_or_default();
    push_decimal(out, status.thread.into());
    out.extend_from_slice(b" (");
    out.extend_from_slice(name_of(status));
    out.extend_from_slice(b") ");
    out.push(status.state);
    let mut put = |value: u64| {
        out.push(b' ');
        push_decimal(out, value);
    };
    for value in [status.parent, status.group, status.session] {
        put(value.into());
    }
    put(status.terminal.0);
    out.push(b' ');
    push_signed(out, status.foreground.into());
    let mut put = |value: u64| {
        out.push(b' ');
        push_decimal(out, value);
    };
    put(status.flags.into());
    status.faults.into_iter().for_each(&mut put);
    status.ticks.into_iter().for_each(&mut put);
    // Priority, nice, threads, the old interval timer.
    [PRIORITY, 0, status.threads.into(), 0].into_iter().for_each(&mut put);
    put(status.started);
    put(memory.size * PAGE_SIZE);
    put(memory.resident());
    put(if status.memory.is_some() { memory.resident_limit } else { NO_LIMIT });
    [memory.code.0, memory.code.1, memory.start_stack].into_iter().for_each(&mut put);
    // The stack and instruction pointers are no longer told.
    [0, 0].into_iter().for_each(&mut put);
    let low = 0x7fff_ffff;
    let signals = &status.signals;
    for set in [signals.pending, signals.blocked, signals.ignored, signals.caught] {
        put(set & low);
    }
    // Where it waits, and two that were never kept.
    [0, 0, 0].into_iter().for_each(&mut put);
    put(status.exit_signal.into());
    put(status.processor.into());
    // Real-time priority and policy; waits for devices; time of guests.
    [0, 0, 0, 0, 0].into_iter().for_each(&mut put);
    for value in [
        memory.initialised.0,
        memory.initialised.1,
        memory.start_brk,
        memory.arguments.0,
        memory.arguments.1,
        memory.environment.0,
        memory.environment.1,
    ] {
        put(value);
    }
    put(status.exit_code.into());
    out.push(b'\n');
}

/// Appends `statm`.
pub fn write_statm(out: &mut Vec<u8>, memory: &ProcessMemory) {
    let shared = memory.file + memory.shared_memory;
    let data = memory.data + memory.stack;
    for value in [memory.size, memory.resident(), shared, memory.text, 0, data] {
        push_decimal(out, value);
        out.push(b' ');
    }
    out.extend_from_slice(b"0\n");
}

/// Names and units of the limits, by their `RLIMIT_*` numbers.
const LIMIT_NAMES: [(&[u8], &[u8]); LIMITS] = [
    (b"Max cpu time", b"seconds"),
    (b"Max file size", b"bytes"),
    (b"Max data size", b"bytes"),
    (b"Max stack size", b"bytes"),
    (b"Max core file size", b"bytes"),
    (b"Max resident set", b"bytes"),
    (b"Max processes", b"processes"),
    (b"Max open files", b"files"),
    (b"Max locked memory", b"bytes"),
    (b"Max address space", b"bytes"),
    (b"Max file locks", b"locks"),
    (b"Max pending signals", b"signals"),
    (b"Max msgqueue size", b"bytes"),
    (b"Max nice priority", b""),
    (b"Max realtime priority", b""),
    (b"Max realtime timeout", b"us"),
];

/// Appends `text`, filled up with blanks to `width`.
fn column(out: &mut Vec<u8>, text: &[u8], width: usize) {
    let start = out.len();
    out.extend_from_slice(text);
    out.resize(start + text.len().max(width), b' ');
}

fn limit_column(out: &mut Vec<u8>, value: u64) {
    let start = out.len();
    if value == u64::MAX {
        out.extend_from_slice(b"unlimited");
    } else {
        push_decimal(out, value);
    }
    let length = out.len() - start;
    out.resize(start + length.max(20) + 1, b' ');
}

/// Appends `limits`.
pub fn write_limits(out: &mut Vec<u8>, limits: &[Limit; LIMITS]) {
    column(out, b"Limit", 26);
    column(out, b"Soft Limit", 21);
    column(out, b"Hard Limit", 21);
    column(out, b"Units", 10);
    out.push(b'\n');
    for ((name, unit), limit) in LIMIT_NAMES.iter().zip(limits) {
        column(out, name, 26);
        limit_column(out, limit.soft);
        limit_column(out, limit.hard);
        if !unit.is_empty() {
            column(out, unit, 10);
        }
        out.push(b'\n');
    }
}

//! What is printed and written when a lab is over.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use pagelab_abi::event::{EVENT_EXEC, EVENT_EXIT, EVENT_FAULT, EVENT_FORK, Event};
use pagelab_abi::fault::FaultKind;
use serde::Serialize;

use super::{Failure, say};
use crate::devices::shared::Snapshot;
use crate::machine::Finished;
use crate::stop::{STATUS_LAB_FAILED, StopReason};

/// Says why the lab ended where that is not plain from the program's output, and
/// gives the exit status.
pub(super) fn conclude(finished: &Finished) -> u8 {
    let reason = &finished.reason;
    match reason {
        // Like any program at the end of a pipe: silently.
        StopReason::PoweredOff(_) | StopReason::OutputClosed => {}
        other => {
            say(format_args!("{other}"));
            if !other.is_death()
                && let Some(registers) = other.registers()
            {
                log::info!("the guest was stopped here:\n{registers}");
            }
        }
    }
    let status = reason.exit_status();
    if finished.events.1 != 0 {
        say(format_args!("{} events were lost", finished.events.1));
    }
    match leaked(finished) {
        0 => status,
        frames => {
            say(format_args!(
                "the guest's kernel leaked {frames} frames: fewer are free at power-off than \
                 when the first program started"
            ));
            if status == 0 { STATUS_LAB_FAILED } else { status }
        }
    }
}

/// Frames that were free when the first program started and are not any more.
fn leaked(finished: &Finished) -> u64 {
    match (&finished.reason, &finished.counters) {
        (StopReason::PoweredOff(_), Some(counters)) => {
            counters.frames.free_expected.saturating_sub(counters.frames.free)
        }
        _ => 0,
    }
}

/// Milliseconds between two moments of the guest, if both came.
fn milliseconds(from: u64, to: u64, tsc_khz: u64) -> Option<f64> {
    if from == 0 || to < from || tsc_khz == 0 {
        return None;
    }
    #[allow(clippy::cast_precision_loss, reason = "times for people")]
    Some((to - from) as f64 / tsc_khz as f64)
}

/// The table of faults, without the kinds of which there were none.
pub(super) fn print_faults(finished: &Finished) {
    let text = match &finished.counters {
        Some(counters) => fault_table(counters, finished.tsc_khz),
        None => "the guest's kernel has not registered its counters\n".to_owned(),
    };
    print_text(&text);
}

fn fault_table(counters: &Snapshot, tsc_khz: u64) -> String {
    let faults = &counters.faults;
    let total: u64 = faults.count.iter().fold(0, |sum, count| sum.saturating_add(*count));
    let mut text = format!("page faults: {total}\n");
    for kind in FaultKind::ALL {
        let (count, cost) = (faults.count[kind as usize], faults.cost[kind as usize]);
        if count == 0 {
            continue;
        }
        let average = microseconds(cost, count, tsc_khz);
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "{count:>10}  {:<22}{average:>12}  {}", kind.name(), kind.description());
    }
    text
}

/// What one fault took on average, for people.
fn microseconds(cost: u64, count: u64, tsc_khz: u64) -> String {
    if tsc_khz == 0 || cost == 0 {
        return String::new();
    }
    #[allow(clippy::cast_precision_loss, reason = "times for people")]
    let each = cost as f64 * 1000.0 / tsc_khz as f64 / count as f64;
    format!("{each:.1} µs")
}

/// The whole story of the tour.
pub(super) fn print_tour(finished: &Finished) {
    let mut text = String::from("\n");
    let setup = finished.setup.as_secs_f64() * 1000.0;
    let running = finished.running.as_secs_f64() * 1000.0;
    let _ = writeln!(
        text,
        "host: {setup:.1} ms to the first guest instruction, {running:.1} ms in the guest"
    );
    let Some(counters) = &finished.counters else {
        text.push_str("the guest's kernel has not registered its counters\n");
        return print_text(&text);
    };
    let moments = &counters.milestones;
    let khz = finished.tsc_khz;
    if let Some(ready) = milliseconds(moments.kernel_entry, moments.kernel_ready, khz) {
        let _ = writeln!(text, "kernel: {ready:.1} ms from its entry to ready");
    }
    if let Some(user) = milliseconds(moments.kernel_entry, moments.first_user, khz) {
        let _ = writeln!(text, "first program: in ring 3 after {user:.1} ms");
    }
    text.push_str(&fault_table(counters, khz));
    let frames = &counters.frames;
    let _ = writeln!(
        text,
        "frames of 4 KiB: {} in all, {} free ({} never touched), {} page tables, {} kernel, \
         {} anonymous, {} cache",
        frames.total,
        frames.free,
        frames.untouched,
        frames.tables,
        frames.kernel,
        frames.anonymous,
        frames.cache
    );
    let _ = writeln!(
        text,
        "free at power-off: {1} of {0} expected, leaked: {2}",
        frames.free_expected,
        frames.free,
        leaked(finished)
    );
    print_text(&text);
}

/// Standard error may be closed; that is no reason to fail.
fn print_text(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// One event as a line on standard error.
pub(super) fn print_event(event: &Event) {
    let mut line = format!("event {:>6}  pid {:<3} ", event.sequence, event.pid);
    let _ = match event.class {
        EVENT_FAULT => {
            let kind = FaultKind::try_from(event.kind).map_or("unknown kind", FaultKind::name);
            write!(
                line,
                "{kind:<20} at {:#014x} by {:#014x} error {:#x} frame {:#x} -> {:#x} ({} ticks)",
                event.address,
                event.instruction,
                event.error_code,
                event.frame_before,
                event.frame_after,
                event.cost
            )
        }
        EVENT_FORK => write!(line, "began, child of {}", event.detail),
        EVENT_EXEC => write!(line, "runs a new program"),
        EVENT_EXIT => write!(line, "ended with wait status {:#x}", event.detail),
        other => write!(line, "unknown class {other}"),
    };
    line.push('\n');
    print_text(&line);
}

/// The report for machines.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    reason: String,
    exit_status: u8,
    setup_ms: f64,
    running_ms: f64,
    tsc_khz: u64,
    port_exits: u64,
    mmio_exits: u64,
    unanswered_accesses: u64,
    events_delivered: u64,
    events_lost: u64,
    guest: Option<GuestReport<'a>>,
}

#[derive(Serialize)]
struct GuestReport<'a> {
    faults: Vec<KindReport<'a>>,
    events_written: u64,
    frames: FramesReport,
    milestones_ticks: MilestonesReport,
}

#[derive(Serialize)]
struct KindReport<'a> {
    kind: &'a str,
    count: u64,
    ticks: u64,
}

#[derive(Serialize)]
struct FramesReport {
    total: u64,
    free: u64,
    untouched: u64,
    tables: u64,
    kernel: u64,
    anonymous: u64,
    cache: u64,
    free_expected: u64,
    leaked: u64,
}

#[derive(Serialize)]
struct MilestonesReport {
    kernel_entry: u64,
    kernel_ready: u64,
    first_user: u64,
    power_off: u64,
}

fn guest_report(finished: &Finished, counters: &Snapshot) -> GuestReport<'static> {
    let (frames, moments) = (&counters.frames, &counters.milestones);
    let kind = |kind: FaultKind| KindReport {
        kind: kind.name(),
        count: counters.faults.count[kind as usize],
        ticks: counters.faults.cost[kind as usize],
    };
    GuestReport {
        faults: FaultKind::ALL.into_iter().map(kind).collect(),
        events_written: counters.events_written,
        frames: FramesReport {
            total: frames.total,
            free: frames.free,
            untouched: frames.untouched,
            tables: frames.tables,
            kernel: frames.kernel,
            anonymous: frames.anonymous,
            cache: frames.cache,
            free_expected: frames.free_expected,
            leaked: leaked(finished),
        },
        milestones_ticks: MilestonesReport {
            kernel_entry: moments.kernel_entry,
            kernel_ready: moments.kernel_ready,
            first_user: moments.first_user,
            power_off: moments.power_off,
        },
    }
}

/// Writes the report to `path`, or to standard output if that is `-`.
pub(super) fn write_json(path: &Path, finished: &Finished) -> Result<(), Failure> {
    let report = Report {
        version: 1,
        reason: finished.reason.to_string(),
        exit_status: finished.reason.exit_status(),
        setup_ms: finished.setup.as_secs_f64() * 1000.0,
        running_ms: finished.running.as_secs_f64() * 1000.0,
        tsc_khz: finished.tsc_khz,
        port_exits: finished.exits.port,
        mmio_exits: finished.exits.mmio,
        unanswered_accesses: finished.exits.unanswered,
        events_delivered: finished.events.0,
        events_lost: finished.events.1,
        guest: finished.counters.as_ref().map(|counters| guest_report(finished, counters)),
    };
    let mut text = serde_json::to_string_pretty(&report)?;
    text.push('\n');
    let written = if path == Path::new("-") {
        io::stdout().write_all(text.as_bytes())
    } else {
        File::create(path).and_then(|mut file| file.write_all(text.as_bytes()))
    };
    written.map_err(|error| {
        Failure::new(STATUS_LAB_FAILED, format_args!("cannot write {}: {error}", path.display()))
    })
}

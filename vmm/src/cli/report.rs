//! What is printed and written when a lab is over.

use std::fmt::Write as _;
use std::io::{self, Write};

use pagelab_abi::fault::FaultKind;

use super::options::Lab;
use super::say;
use crate::death;
use crate::devices::shared::Snapshot;
use crate::machine::Finished;
use crate::stop::{STATUS_LAB_FAILED, StopReason};

/// Says why the lab ended where that is not plain from the program's output, and
/// gives the exit status.
pub(super) fn conclude(lab: &Lab) -> u8 {
    let finished = &lab.finished;
    say_why(&finished.reason, lab);
    let status = finished.reason.exit_status();
    if finished.events.1 != 0 {
        say(format_args!("{} events were lost", finished.events.1));
    }
    match leaked(finished) {
        0 => status,
        frames => {
            say(format_args!(
                "the guest's kernel leaked {frames} frames: so many more should be free at \
                 power-off"
            ));
            if status == 0 { STATUS_LAB_FAILED } else { status }
        }
    }
}

fn say_why(reason: &StopReason, lab: &Lab) {
    let explanation = || death::explain(reason, &*lab.finished.ram, &lab.kernel);
    match reason {
        // Like any program at the end of a pipe: silently.
        StopReason::PoweredOff(_) | StopReason::OutputClosed => {}
        death if death.is_death() => match explanation() {
            Some(report) => say(format_args!("{report}")),
            None => say(format_args!("{death}")),
        },
        other => {
            say(format_args!("{other}"));
            // Finding functions and lines takes a while: only for who asks.
            if log::log_enabled!(log::Level::Info)
                && let Some(report) = explanation()
            {
                log::info!("{report}");
            }
        }
    }
}

/// Frames that should be free at power-off and are not.
pub(super) fn leaked(finished: &Finished) -> u64 {
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
    text.push_str(&second_level(finished));
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
        "free at power-off: {} of {} expected, leaked: {}",
        frames.free,
        frames.free_expected,
        leaked(finished)
    );
    print_text(&text);
}

/// What KVM counted, where it gives that out.
fn second_level(finished: &Finished) -> String {
    let mut text = String::new();
    let value = |name| finished.statistics.at_end.get(name);
    if let (Some(exits), Some(emulated)) = (value("exits"), value("insn_emulation")) {
        let _ = write!(text, "KVM: {exits} exits, {emulated} guest instructions emulated");
        let _ = match finished.statistics.before_programs.get("insn_emulation") {
            Some(before) => writeln!(text, ", {before} of them before ring 3 began"),
            None => writeln!(text),
        };
    }
    if let (Some(taken), Some(fixed), Some(guest)) =
        (value("pf_taken"), value("pf_fixed"), value("pf_guest"))
    {
        let _ = writeln!(
            text,
            "KVM: {taken} page faults reached it, {fixed} of them its own to repair, {guest} \
             handed on to the guest"
        );
    }
    text
}

/// Standard error may be closed; that is no reason to fail.
fn print_text(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

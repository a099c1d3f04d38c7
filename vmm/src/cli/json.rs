//! What happened in a lab, for machines: the file that `--json` writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pagelab_abi::fault::FaultKind;
use serde::Serialize;

use super::Failure;
use super::report::leaked;
use crate::devices::shared::Snapshot;
use crate::kvm_stats;
use crate::machine::{Finished, VirtioReport};
use crate::share::config::Share;
use crate::share::statistics::ShareStatistics;
use crate::stop::STATUS_LAB_FAILED;

/// KVM's statistics that say something about memory.
const STATISTICS: [&str; 5] = ["exits", "insn_emulation", "pf_taken", "pf_fixed", "pf_guest"];

/// The whole report.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    reason: String,
    exit_status: u8,
    setup_ms: f64,
    running_ms: f64,
    processor_ms: f64,
    tsc_khz: u64,
    port_exits: u64,
    mmio_exits: u64,
    unanswered_accesses: u64,
    /// KVM's own statistics, as many as this host's gives out.
    kvm: BTreeMap<&'a str, u64>,
    /// The same when ring 3 was about to begin.
    kvm_before_ring3: BTreeMap<&'a str, u64>,
    events_delivered: u64,
    events_lost: u64,
    guest: Option<GuestReport<'a>>,
    shares: Vec<ShareReport>,
    swap: Option<SwapReport>,
}

#[derive(Serialize)]
struct ShareReport {
    folder: String,
    place: String,
    read_only: bool,
    requests: BTreeMap<&'static str, u64>,
    errors: u64,
    bytes_read: u64,
    bytes_written: u64,
}

#[derive(Serialize)]
struct SwapReport {
    size: u64,
    reads: u64,
    writes: u64,
    bytes_read: u64,
    bytes_written: u64,
    errors: u64,
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

fn share_reports(devices: &VirtioReport) -> Vec<ShareReport> {
    let report = |(share, counters): &(Share, Arc<ShareStatistics>)| ShareReport {
        folder: share.folder.to_string_lossy().into_owned(),
        place: share.place.clone(),
        read_only: share.read_only,
        requests: counters.requests().collect(),
        errors: counters.errors(),
        bytes_read: counters.bytes_read(),
        bytes_written: counters.bytes_written(),
    };
    devices.shares.iter().map(report).collect()
}

fn swap_report(devices: &VirtioReport) -> Option<SwapReport> {
    let (size, counters) = devices.swap.as_ref()?;
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Some(SwapReport {
        size: *size,
        reads: value(&counters.reads),
        writes: value(&counters.writes),
        bytes_read: value(&counters.bytes_read),
        bytes_written: value(&counters.bytes_written),
        errors: value(&counters.errors),
    })
}

fn statistics(counted: &kvm_stats::Snapshot) -> BTreeMap<&'static str, u64> {
    let value = |name| Some((name, counted.get(name)?));
    STATISTICS.into_iter().filter_map(value).collect()
}

/// Writes the report to `path`, or to standard output if that is `-`.
pub(super) fn write(path: &Path, finished: &Finished) -> Result<(), Failure> {
    let report = Report {
        version: 1,
        reason: finished.reason.to_string(),
        exit_status: finished.reason.exit_status(),
        setup_ms: finished.setup.as_secs_f64() * 1000.0,
        running_ms: finished.running.as_secs_f64() * 1000.0,
        processor_ms: finished.processor_time.as_secs_f64() * 1000.0,
        tsc_khz: finished.tsc_khz,
        port_exits: finished.exits.port,
        mmio_exits: finished.exits.mmio,
        unanswered_accesses: finished.exits.unanswered,
        kvm: statistics(&finished.statistics.at_end),
        kvm_before_ring3: statistics(&finished.statistics.before_programs),
        events_delivered: finished.events.0,
        events_lost: finished.events.1,
        guest: finished.counters.as_ref().map(|counters| guest_report(finished, counters)),
        shares: share_reports(&finished.virtio),
        swap: swap_report(&finished.virtio),
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

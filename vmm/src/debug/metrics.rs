//! All counters in the text form of Prometheus.

use std::fmt::Write as _;

use pagelab_abi::fault::FaultKind;

use super::lab::Lab;
use crate::vstate::control::Activity;

/// The counters now.
#[must_use]
pub fn render(lab: &Lab) -> String {
    let mut text = String::new();
    if let Some(counters) = lab.shared.snapshot() {
        head(
            &mut text,
            "pagelab_guest_faults_total",
            "counter",
            "Page faults of the guest by kind.",
        );
        for kind in FaultKind::ALL {
            let count = counters.faults.count[kind as usize];
            let _ =
                writeln!(text, "pagelab_guest_faults_total{{kind=\"{}\"}} {count}", kind.name());
        }
        if lab.tsc_khz > 0 {
            head(
                &mut text,
                "pagelab_guest_fault_seconds_total",
                "counter",
                "Time in page faults by kind.",
            );
            for kind in FaultKind::ALL {
                #[allow(clippy::cast_precision_loss, reason = "seconds")]
                let seconds =
                    counters.faults.cost[kind as usize] as f64 / (lab.tsc_khz as f64 * 1000.0);
                let _ = writeln!(
                    text,
                    "pagelab_guest_fault_seconds_total{{kind=\"{}\"}} {seconds}",
                    kind.name()
                );
            }
        }
        let frames = counters.frames;
        head(&mut text, "pagelab_guest_frames", "gauge", "Frames of 4 KiB by use.");
        let uses = [
            ("free", frames.free),
            ("page_tables", frames.tables),
            ("kernel", frames.kernel),
            ("anonymous", frames.anonymous),
            ("cache", frames.cache),
        ];
        for (name, count) in uses {
            let _ = writeln!(text, "pagelab_guest_frames{{use=\"{name}\"}} {count}");
        }
        single(
            &mut text,
            "pagelab_guest_events_total",
            "counter",
            "Events that the guest wrote.",
            counters.events_written,
        );
    }
    single(
        &mut text,
        "pagelab_events_lost_total",
        "counter",
        "Events that were not read in time.",
        lab.history.lost(),
    );
    single(
        &mut text,
        "pagelab_clients",
        "gauge",
        "Clients of the debug port.",
        lab.clients.0 as u64,
    );
    let paused = matches!(lab.control.activity(), Activity::Paused(_));
    single(&mut text, "pagelab_paused", "gauge", "Whether the guest is paused.", paused.into());
    if let Some(Ok(statistics)) = lab.statistics.as_ref().map(crate::kvm_stats::KvmStats::read) {
        head(&mut text, "pagelab_kvm", "untyped", "KVM's statistics of the guest's processor.");
        for (name, value) in statistics.iter() {
            let _ = writeln!(text, "pagelab_kvm{{name=\"{name}\"}} {value}");
        }
    }
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn single(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    head(text, name, kind, help);
    let _ = writeln!(text, "{name} {value}");
}

//! The second level: what the host has backed, and its own page faults.

use std::fmt;
use std::io;
use std::sync::Arc;

use pagelab_abi::addr::GuestPhys;
use serde::Serialize;
use serde_json::json;

use crate::debug::answer::{Answer, Format};
use crate::debug::arguments::Arguments;
use crate::debug::lab::Lab;
use crate::debug::protocol::CommandError;
use crate::debug::report::{no_other, report};
use crate::inspect::second_level::advice;
use crate::inspect::second_level::backing::{BackingMap, backing};
use crate::inspect::second_level::history::History;
use crate::inspect::second_level::stats::{StatsReport, explain};
use crate::inspect::second_level::watch::FaultWatch;
use crate::kvm_stats::KvmStats;

type Result = std::result::Result<Answer, CommandError>;

fn host_error(error: &io::Error) -> CommandError {
    CommandError::failed(format!("the host refuses: {error}"))
}

/// What is known of the second level.
#[derive(Serialize)]
struct SecondLevel {
    backing: BackingMap,
    kvm: Option<StatsReport>,
    /// Pages that did not exist, and pages that were not mapped; only while they
    /// are watched.
    host_faults: Option<(u64, u64)>,
}

impl fmt::Display for SecondLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.backing)?;
        match self.host_faults {
            Some((missing, minor)) => writeln!(
                f,
                "page faults of the host (userfaultfd): {missing} pages did not exist, {minor} were not mapped"
            )?,
            None => writeln!(f, "page faults of the host are not watched: ‘host-faults on’")?,
        }
        self.kvm.as_ref().map_or(Ok(()), |kvm| write!(f, "{kvm}"))
    }
}

/// `second-level`.
pub fn second_level(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let contents = arguments.flag("contents");
    let guest_faults = lab.shared.snapshot().map_or(0, |counters| {
        counters.faults.count.iter().fold(0u64, |sum, count| sum.wrapping_add(*count))
    });
    let read = |statistics: &Option<KvmStats>| {
        statistics.as_ref().and_then(|statistics| statistics.read().ok()).unwrap_or_default()
    };
    let (vcpu, vm) = (read(&lab.statistics), read(&lab.vm_statistics));
    let kvm = (!vcpu.is_empty()).then(|| explain(&vcpu, &vm, guest_faults));
    let host_faults = lab.host_faults.as_ref().map(FaultWatch::counts);
    let history = Arc::clone(&lab.backing);
    report(lab, format, no_other, move |source| {
        let backing = backing(&source.ram, contents).map_err(|error| host_error(&error))?;
        if let Ok(mut history) = history.lock() {
            history.add(&backing);
        }
        Ok(SecondLevel { backing, kvm, host_faults })
    })
}

/// How the backing grew.
#[derive(Serialize)]
struct Growth {
    samples: serde_json::Value,
    #[serde(skip)]
    text: String,
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `backing-history`: what `second-level` saw over time.
pub fn backing_history(lab: &mut Lab, _arguments: &Arguments, format: Format) -> Result {
    let history = Arc::clone(&lab.backing);
    report(lab, format, no_other, move |source| {
        let map = backing(&source.ram, false).map_err(|error| host_error(&error))?;
        let mut history =
            history.lock().map_err(|_| CommandError::failed("the history is lost"))?;
        history.add(&map);
        let samples = serde_json::to_value::<&History>(&history)
            .map_err(|error| CommandError::failed(error.to_string()))?;
        Ok(Growth { samples, text: history.to_string() })
    })
}

/// `host-faults`.
pub fn host_faults(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    match arguments.text("what") {
        Some("on") => {
            if lab.host_faults.is_none() {
                let watch = FaultWatch::start(&lab.ram)
                    .map_err(|error| CommandError::failed(error.to_string()))?;
                lab.host_faults = Some(watch);
            }
            Ok(Answer::new(json!({ "watched": true }), "page faults of the host are watched\n"))
        }
        Some("off") => {
            lab.host_faults = None;
            Ok(Answer::new(
                json!({ "watched": false }),
                "page faults of the host are not watched\n",
            ))
        }
        _ => {
            let watch = lab.host_faults.as_ref().ok_or_else(|| {
                CommandError::new(
                    CommandError::STATE,
                    "they are not watched: ‘host-faults on’ first",
                )
            })?;
            let log = watch.log();
            report(lab, format, no_other, move |_| Ok(log))
        }
    }
}

/// `hugepages`.
pub fn hugepages(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let wanted = arguments.text("what") == Some("on");
    report(lab, format, no_other, move |source| {
        advice::use_huge_pages(&source.ram, wanted).map_err(|error| host_error(&error))
    })
}

/// `reclaim`.
pub fn reclaim(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let all = || lab.ram.parts().first().map_or(0..0, |part| part.start.0..part.end().0);
    let range = arguments.range("range").unwrap_or_else(all);
    report(lab, format, no_other, move |source| {
        advice::reclaim(&source.ram, GuestPhys(range.start), range.end - range.start)
            .map_err(|error| host_error(&error))
    })
}

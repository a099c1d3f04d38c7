//! Fault counters and marks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use pagelab_abi::fault::FaultKind;
use pagelab_abi::lab::FaultCounters;
use serde_json::json;

use crate::debug::answer::{Answer, Format, Listed};
use crate::debug::arguments::Arguments;
use crate::debug::lab::{Lab, MOST_MARKS, Mark};
use crate::debug::protocol::CommandError;
use crate::debug::report::kernel_error;
use crate::inspect::kernel::Process;
use crate::inspect::pages::diff::Snapshot as TableSnapshot;
use crate::inspect::pages::scan::Range;

type Result = std::result::Result<Answer, CommandError>;

/// The mark of that name.
///
/// # Errors
///
/// If there is none.
pub fn find_mark<'a>(lab: &'a Lab, name: &str) -> std::result::Result<&'a Mark, CommandError> {
    lab.marks.get(name).ok_or_else(|| {
        CommandError::parameters(format!("there is no mark ‘{name}’; ‘marks’ lists them"))
    })
}

/// `faults`.
pub fn faults(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let since = arguments.text("since").map(|name| find_mark(lab, name)).transpose()?;
    let Some(pid) = arguments.pid()? else {
        let before = since.map(|mark| mark.counters.faults);
        let whose = "the guest";
        return Ok(table(&lab.counters()?.faults, before.as_ref(), lab.tsc_khz, format, whose));
    };
    let process = lab.source().kernel()?.process(pid).map_err(kernel_error)?;
    // One that was not there yet had no faults.
    let before = since.and_then(|mark| mark.processes.get(&pid));
    let now = counters(&process);
    Ok(table(&now, before, lab.tsc_khz, format, &format!("process {pid} ({})", process.name)))
}

fn counters(process: &Process) -> FaultCounters {
    FaultCounters { count: process.faults.count, cost: process.faults.cost }
}

/// A table of counters, less those of a moment before.
pub fn table(
    now: &FaultCounters,
    before: Option<&FaultCounters>,
    tsc_khz: u64,
    format: Format,
    whose: &str,
) -> Answer {
    let since = |now: &[u64], before: Option<&[u64]>, kind: FaultKind| {
        let index = kind as usize;
        now[index].wrapping_sub(before.map_or(0, |before| before[index]))
    };
    let mut total = 0u64;
    let mut rows = Vec::new();
    for kind in FaultKind::ALL {
        let count = since(&now.count, before.map(|before| &before.count[..]), kind);
        let ticks = since(&now.cost, before.map(|before| &before.cost[..]), kind);
        total = total.wrapping_add(count);
        let seconds = seconds(ticks, tsc_khz);
        #[allow(clippy::cast_precision_loss, reason = "an average for people")]
        let each = seconds.map(|seconds| seconds * 1e6 / count.max(1) as f64);
        let shown = each.map_or_else(String::new, |each| format!("{each:.1} µs"));
        let value =
            json!({ "kind": kind.name(), "count": count, "ticks": ticks, "seconds": seconds });
        let text = format!("{count:>10}  {:<22}{shown:>12}  {}", kind.name(), kind.description());
        if count > 0 || format != Format::Text {
            rows.push((value, text));
        }
    }
    let text = format!("page faults of {whose}: {total}\n");
    Answer::new(json!({ "total": total, "level": 1 }), text).with_rows(Listed::new(format, rows))
}

fn seconds(ticks: u64, tsc_khz: u64) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "times for people")]
    (tsc_khz > 0).then(|| ticks as f64 / (tsc_khz as f64 * 1000.0))
}

/// `mark`.
pub fn mark(lab: &mut Lab, arguments: &Arguments, _format: Format) -> Result {
    /// A name, not a text.
    const LONGEST: usize = 64;
    let name = arguments.text("name").unwrap_or_default().to_owned();
    if name.is_empty() || name.len() > LONGEST || name.chars().any(char::is_control) {
        return Err(CommandError::parameters(
            "a mark's name has 1 to 64 characters that can be seen",
        ));
    }
    let counters = lab.counters()?;
    lab.events.drain_running();
    if lab.marks.len() >= MOST_MARKS && !lab.marks.contains_key(&name) {
        return Err(CommandError::failed(format!("there are {MOST_MARKS} marks already")));
    }
    let mut mark = Mark {
        at: Instant::now(),
        counters,
        place: lab.history.end(),
        processes: BTreeMap::new(),
        tables: BTreeMap::new(),
    };
    keep_processes(lab, &name, &mut mark);
    let seconds = mark.at.duration_since(lab.began).as_secs_f64();
    let replaced = lab.marks.insert(name.clone(), mark).is_some();
    let text =
        format!("marked ‘{name}’ at {seconds:.3} s{}\n", if replaced { ", again" } else { "" });
    Ok(Answer::new(json!({ "name": name, "seconds": seconds, "replaced": replaced }), text))
}

/// Keeps the counters and page tables of all processes, as far as there is room.
fn keep_processes(lab: &Lab, name: &str, mark: &mut Mark) {
    /// Tables of 4 KiB in all marks together: 128 MiB.
    const MOST_TABLES: usize = 1 << 15;
    let source = lab.source();
    let Ok(list) = source.kernel().and_then(|kernel| kernel.processes().map_err(kernel_error))
    else {
        return;
    };
    let others = lab.marks.iter().filter(|(other, _)| *other != name);
    let kept = others.flat_map(|(_, mark)| mark.tables.values()).map(|tables| tables.tables());
    let mut room = MOST_TABLES.saturating_sub(kept.sum());
    for process in list.processes {
        mark.processes.insert(process.pid, counters(&process));
        let (Some(root), Some(space)) = (process.root(), &process.space) else { continue };
        if usize::try_from(space.tables).is_ok_and(|tables| tables <= room) {
            let tables = TableSnapshot::take(&*lab.ram, root, Range::USER);
            room = room.saturating_sub(tables.tables());
            mark.tables.insert(process.pid, Arc::new(tables));
        }
    }
}

/// `marks`.
pub fn marks(lab: &mut Lab, _arguments: &Arguments, format: Format) -> Result {
    let row = |(name, mark): (&String, &Mark)| {
        let seconds = mark.at.duration_since(lab.began).as_secs_f64();
        let faults =
            mark.counters.faults.count.iter().fold(0u64, |sum, count| sum.wrapping_add(*count));
        let value = json!({ "name": name, "seconds": seconds, "faults": faults });
        (value, format!("{seconds:>10.3} s  {faults:>10} faults  {name}"))
    };
    let rows = lab.marks.iter().map(row).collect();
    Ok(Answer::default().with_rows(Listed::new(format, rows)))
}

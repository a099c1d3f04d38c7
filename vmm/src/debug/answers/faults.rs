//! Fault counters and marks.

use std::time::Instant;

use pagelab_abi::fault::FaultKind;
use pagelab_abi::lab::FaultCounters;
use serde_json::json;

use crate::debug::answer::{Answer, Format, Listed};
use crate::debug::arguments::Arguments;
use crate::debug::lab::{Lab, MOST_MARKS, Mark};
use crate::debug::protocol::CommandError;

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
    let counters = lab.counters()?;
    let since = arguments.text("since").map(|name| find_mark(lab, name)).transpose()?;
    let before = since.map(|mark| mark.counters.faults);
    Ok(table(&counters.faults, before.as_ref(), lab.tsc_khz, format))
}

/// A table of counters, less those of a moment before.
pub fn table(
    now: &FaultCounters,
    before: Option<&FaultCounters>,
    tsc_khz: u64,
    format: Format,
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
    let text = format!("page faults of the guest: {total}\n");
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
    let mark = Mark { at: Instant::now(), counters, place: lab.history.end() };
    let seconds = mark.at.duration_since(lab.began).as_secs_f64();
    let replaced = lab.marks.insert(name.clone(), mark).is_some();
    let text =
        format!("marked ‘{name}’ at {seconds:.3} s{}\n", if replaced { ", again" } else { "" });
    Ok(Answer::new(json!({ "name": name, "seconds": seconds, "replaced": replaced }), text))
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

/// `frames`.
pub fn frames(lab: &mut Lab, _arguments: &Arguments, format: Format) -> Result {
    let frames = lab.counters()?.frames;
    let uses = [
        ("total", frames.total),
        ("free", frames.free),
        ("untouched", frames.untouched),
        ("page_tables", frames.tables),
        ("kernel", frames.kernel),
        ("anonymous", frames.anonymous),
        ("cache", frames.cache),
    ];
    let row = |(name, count): (&str, u64)| {
        (json!({ "use": name, "frames": count }), format!("{count:>10}  {name}"))
    };
    let rows = uses.into_iter().map(row).collect();
    Ok(Answer::default().with_rows(Listed::new(format, rows)))
}

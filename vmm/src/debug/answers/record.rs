//! Events: watching them, keeping them, traces.

use pagelab_abi::event::Event;
use serde_json::{Map, Value, json};

use super::faults::find_mark;
use crate::debug::answer::{Answer, Effect, Format, Rows, Step};
use crate::debug::arguments::Arguments;
use crate::debug::event_text;
use crate::debug::filter::{ALL_KINDS, FaultFilter};
use crate::debug::lab::Lab;
use crate::debug::protocol::CommandError;
use crate::machine::observer::Recording;

type Result = std::result::Result<Answer, CommandError>;

/// Which events the parameters mean.
///
/// # Errors
///
/// If no process can have that number.
pub fn filter(arguments: &Arguments) -> std::result::Result<FaultFilter, CommandError> {
    let (kinds, range) = (arguments.kinds("kind"), arguments.range("range"));
    let others = !arguments.flag("faults") && kinds.is_none() && range.is_none();
    Ok(FaultFilter { pid: arguments.pid()?, kinds: kinds.unwrap_or(ALL_KINDS), range, others })
}

/// `watch`.
pub fn watch(_lab: &mut Lab, arguments: &Arguments, _format: Format) -> Result {
    let filter = filter(arguments)?;
    let mut answer =
        Answer::new(json!({ "watching": true }), "events follow; ‘unwatch’ ends them\n");
    answer.effect = Effect::Watch(filter);
    Ok(answer)
}

/// `unwatch`.
pub fn unwatch(_lab: &mut Lab, _arguments: &Arguments, _format: Format) -> Result {
    Ok(Answer { effect: Effect::Unwatch, ..Answer::new(json!({ "watching": false }), "") })
}

/// `record`.
pub fn record(lab: &mut Lab, arguments: &Arguments, _format: Format) -> Result {
    let what = arguments.text("what").unwrap_or("off");
    lab.recording = match what {
        "lossless" => Recording::Lossless,
        "on" => Recording::On,
        _ => Recording::Off,
    };
    lab.update_recording();
    Ok(Answer::new(json!({ "recording": what }), format!("recording is {what}\n")))
}

/// How an event becomes a row.
enum Shape {
    Event,
    Trace,
}

/// Kept events as rows.
struct Kept {
    filter: FaultFilter,
    format: Format,
    shape: Shape,
    next: u64,
    end: u64,
    missed: u64,
    written: u64,
    /// The array's end was written.
    ended: bool,
    batch: std::vec::IntoIter<Event>,
}

impl Kept {
    fn new(
        lab: &Lab,
        arguments: &Arguments,
        format: Format,
        shape: Shape,
    ) -> std::result::Result<Self, CommandError> {
        lab.events.drain_running();
        let since = arguments.text("since").map(|name| find_mark(lab, name)).transpose()?;
        Ok(Self {
            filter: filter(arguments)?,
            format,
            shape,
            next: since.map_or(0, |mark| mark.place),
            end: lab.history.end(),
            missed: 0,
            written: 0,
            ended: false,
            batch: Vec::new().into_iter(),
        })
    }

    fn write(&self, event: &Event, tsc_khz: u64, out: &mut String) {
        match (&self.shape, self.format) {
            (Shape::Trace, _) => {
                // In text, the rows are the elements of an array.
                if self.format != Format::Json {
                    out.push(if self.written == 1 { '[' } else { ',' });
                }
                out.push_str(&event_text::trace(event, tsc_khz).to_string());
            }
            (Shape::Event, Format::Json) => out.push_str(&event_text::value(event).to_string()),
            (Shape::Event, _) => out.push_str(&event_text::line(event)),
        }
    }
}

impl Rows for Kept {
    fn next(&mut self, lab: &mut Lab, out: &mut String) -> Step {
        const BATCH: usize = 256;
        for event in self.batch.by_ref() {
            if self.filter.matches(&event) {
                self.written += 1;
                self.write(&event, lab.tsc_khz, out);
                return Step::Row;
            }
        }
        if self.next >= self.end {
            let is_array = matches!(self.shape, Shape::Trace) && self.format != Format::Json;
            if !is_array || std::mem::replace(&mut self.ended, true) {
                return Step::Done;
            }
            out.push_str(if self.written == 0 { "[]" } else { "]" });
            return Step::Row;
        }
        let left = usize::try_from(self.end - self.next).unwrap_or(BATCH);
        let found = lab.history.read(self.next, left.min(BATCH));
        self.missed += found.missed;
        self.next = found.next;
        self.batch = found.events.into_iter();
        Step::Working
    }

    fn trailer(&mut self) -> Map<String, Value> {
        let fields = [("events", self.written), ("overwritten", self.missed)];
        fields.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect()
    }
}

/// `events`.
pub fn events(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let rows = Kept::new(lab, arguments, format, Shape::Event)?;
    Ok(Answer::new(json!({ "lost": lab.history.lost() }), "").with_rows(rows))
}

/// `trace`.
pub fn trace(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let rows = Kept::new(lab, arguments, format, Shape::Trace)?;
    if rows.end == 0 {
        return Err(CommandError::failed("no events were kept: ‘record on’ or ‘watch’ first"));
    }
    Ok(Answer::new(json!({ "lost": lab.history.lost() }), "").with_rows(rows))
}

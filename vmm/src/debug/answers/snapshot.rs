//! What most reports need, in one answer.

use serde_json::{Map, Value, json};

use super::{control, faults, general, processes, second_level};
use crate::debug::answer::{Answer, Format, Rows, Step};
use crate::debug::arguments::Arguments;
use crate::debug::lab::Lab;
use crate::debug::protocol::CommandError;

/// What carries a command out.
type Carry = fn(&mut Lab, &Arguments, Format) -> Result<Answer, CommandError>;

/// The commands whose answers are put together.
const PARTS: [(&str, Carry); 8] = [
    ("version", general::version),
    ("status", general::status),
    ("faults", faults::faults),
    ("marks", faults::marks),
    ("ps", processes::ps),
    ("frames", processes::frames),
    ("second-level", second_level::second_level),
    ("regs", control::regs),
];

/// The answers one after the other, each as one row.
struct Parts {
    format: Format,
    next: usize,
    current: Option<Part>,
}

/// An answer on its way.
struct Part {
    fields: Map<String, Value>,
    rows: Box<dyn Rows>,
    report: bool,
    /// Its rows so far: lines, or JSON values.
    lines: Vec<String>,
    /// The row that is being written.
    line: String,
}

impl Parts {
    fn begin(&mut self, lab: &mut Lab) -> Result<Option<Value>, CommandError> {
        let (_, carry) = PARTS[self.next];
        let answer = carry(lab, &Arguments::default(), self.format)?;
        let mut lines = Vec::new();
        if self.format != Format::Json {
            lines.extend(answer.text.lines().map(str::to_owned));
        }
        match answer.rows {
            None => {
                let whole = Value::Object(answer.fields);
                Ok(Some(if self.format == Format::Json { whole } else { lines.join("\n").into() }))
            }
            Some(rows) => {
                let (fields, report, line) = (answer.fields, answer.report, String::new());
                self.current = Some(Part { fields, rows, report, lines, line });
                Ok(None)
            }
        }
    }

    fn finish(&mut self, result: Result<Value, CommandError>, out: &mut String) -> Step {
        let (name, _) = PARTS[self.next];
        self.next += 1;
        self.current = None;
        match (self.format, result) {
            (Format::Json, Ok(answer)) => {
                out.push_str(&json!({ "part": name, "answer": answer }).to_string())
            }
            (Format::Json, Err(error)) => {
                out.push_str(&json!({ "part": name, "error": error.message }).to_string());
            }
            (_, Ok(answer)) => {
                out.push_str(&format!("== {name}\n{}", answer.as_str().unwrap_or_default()));
            }
            (_, Err(error)) => out.push_str(&format!("== {name}\n{error}")),
        }
        Step::Row
    }
}

impl Part {
    /// The whole answer, once there are no more rows.
    fn whole(&mut self, format: Format) -> Value {
        if !self.line.is_empty() {
            self.lines.push(std::mem::take(&mut self.line));
        }
        if format != Format::Json {
            return self.lines.join("\n").trim_end().into();
        }
        let mut whole = std::mem::take(&mut self.fields);
        let value = |line: &String| serde_json::from_str(line).unwrap_or(Value::Null);
        if self.report {
            whole.insert("report".to_owned(), self.lines.first().map_or(Value::Null, value));
        } else {
            whole.insert("rows".to_owned(), self.lines.iter().map(value).collect());
        }
        Value::Object(whole)
    }
}

impl Rows for Parts {
    fn next(&mut self, lab: &mut Lab, out: &mut String) -> Step {
        if self.next == PARTS.len() {
            return Step::Done;
        }
        let Some(part) = &mut self.current else {
            return match self.begin(lab) {
                Ok(None) => Step::Working,
                Ok(Some(whole)) => self.finish(Ok(whole), out),
                Err(error) => self.finish(Err(error), out),
            };
        };
        match part.rows.next(lab, &mut part.line) {
            Step::Row => {
                part.lines.push(std::mem::take(&mut part.line));
                Step::Working
            }
            Step::Part | Step::Working => Step::Working,
            Step::Blocked => Step::Blocked,
            Step::Done => {
                let whole = part.whole(self.format);
                self.finish(Ok(whole), out)
            }
            Step::Failed(error) => self.finish(Err(error), out),
        }
    }
}

/// `snapshot`.
pub fn snapshot(
    _lab: &mut Lab,
    _arguments: &Arguments,
    format: Format,
) -> Result<Answer, CommandError> {
    if !matches!(format, Format::Text | Format::Json) {
        return Err(CommandError::parameters("a snapshot is text or JSON"));
    }
    Ok(Answer::default().with_rows(Parts { format, next: 0, current: None }))
}

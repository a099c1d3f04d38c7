//! An answer on its way to a client, piece by piece.
//!
//! In JSON: `{"jsonrpc":"2.0","id":…,"result":{fields…,"rows":[…],trailer…,
//! "paused":…,"consistent":…}}` on one line. In text: lines, then one that begins
//! with `-- ok` or `-- error:`, which no other line does.

use serde_json::{Map, Value, json};

use super::answer::{Answer, Effect, Format, Rows, Step};
use super::commands;
use super::lab::Lab;
use super::protocol::{Call, CommandError, Parsed};

/// How a client is answered.
#[derive(Clone, Debug, PartialEq)]
enum Style {
    /// In text.
    Plain,
    /// In JSON, to this id.
    Json(Value),
    /// Not at all: it was a notification.
    Silent,
}

/// See the module's documentation.
pub struct Job {
    style: Style,
    format: Format,
    rows: Option<Box<dyn Rows>>,
    /// Whether a row has been written.
    any: bool,
    /// Whether the last line of a report has no end yet.
    open_line: bool,
    /// How a report begins in JSON, until there is one: it may fail instead.
    head: Vec<u8>,
    /// What ends the rows in JSON: an array's end, or a report's.
    end: &'static str,
    /// Whether the guest stood still when the answer was begun.
    standing: Option<u64>,
    /// Whether the answer is about the moment of its end.
    waited: bool,
    row: String,
}

/// How far an answer has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more at once.
    More,
    /// There is more once something happens.
    Blocked,
    /// It is complete.
    Done,
}

impl Job {
    /// Begins to answer a plain command.
    pub fn plain(
        call: Result<Call, CommandError>,
        lab: &mut Lab,
        out: &mut Vec<u8>,
    ) -> (Self, Effect) {
        Self::begin(Style::Plain, call, lab, out)
    }

    /// Begins to answer a JSON-RPC call.
    pub fn json(call: Parsed, lab: &mut Lab, out: &mut Vec<u8>) -> (Self, Effect) {
        match call {
            Ok(Call { id: Some(id), method, parameters }) => {
                let call = Call { id: None, method, parameters };
                Self::begin(Style::Json(id), Ok(call), lab, out)
            }
            Ok(call) => Self::begin(Style::Silent, Ok(call), lab, out),
            Err((id, error)) => Self::begin(Style::Json(id), Err(error), lab, out),
        }
    }

    /// Whether it is written as JSON, whose line's end is the caller's.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        matches!(self.style, Style::Json(_))
    }

    fn begin(
        style: Style,
        call: Result<Call, CommandError>,
        lab: &mut Lab,
        out: &mut Vec<u8>,
    ) -> (Self, Effect) {
        let standing = lab.control.standing();
        let default = if style == Style::Plain { Format::Text } else { Format::Json };
        let mut job = Self {
            style,
            format: default,
            rows: None,
            any: false,
            open_line: false,
            head: Vec::new(),
            end: "",
            standing,
            waited: false,
            row: String::new(),
        };
        let answer = call.and_then(commands::prepare).and_then(|(command, arguments)| {
            job.format = arguments.format(default);
            command.carry_out(lab, &arguments, job.format)
        });
        match answer {
            Ok(answer) => {
                job.write_head(&answer, out);
                job.rows = answer.rows;
                if job.rows.is_none() {
                    job.write_end(lab, Map::new(), out);
                }
                (job, answer.effect)
            }
            Err(error) => {
                job.write_error(&error, out);
                (job, Effect::None)
            }
        }
    }

    /// Writes the next row, or the end.
    pub fn advance(&mut self, lab: &mut Lab, out: &mut Vec<u8>) -> Progress {
        let Some(rows) = &mut self.rows else { return Progress::Done };
        self.row.clear();
        match rows.next(lab, &mut self.row) {
            Step::Row => {
                self.write_row(out);
                Progress::More
            }
            Step::Part => {
                self.write_part(out);
                Progress::More
            }
            Step::Working => Progress::More,
            Step::Blocked => {
                self.waited = rows.waits_for_a_moment();
                Progress::Blocked
            }
            Step::Done => {
                let trailer = rows.trailer();
                self.rows = None;
                self.write_end(lab, trailer, out);
                Progress::Done
            }
            Step::Failed(error) => {
                self.rows = None;
                self.write_failure(&error, out);
                Progress::Done
            }
        }
    }

    fn write_head(&mut self, answer: &Answer, out: &mut Vec<u8>) {
        let Answer { fields, text, .. } = answer;
        match &self.style {
            Style::Silent => {}
            Style::Plain => match self.format {
                Format::Text | Format::Dot => out.extend_from_slice(text.as_bytes()),
                Format::Json if fields.is_empty() => {}
                Format::Json => {
                    out.extend_from_slice(Value::Object(fields.clone()).to_string().as_bytes());
                    out.push(b'\n');
                }
                Format::Csv => {}
            },
            Style::Json(id) => {
                let mut head =
                    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{").into_bytes();
                for (name, value) in fields {
                    write_field(&mut head, name, value);
                }
                if self.format != Format::Json && !fields.contains_key("text") {
                    write_field(&mut head, "text", &Value::from(text.as_str()));
                }
                let (begin, end) = match (answer.rows.is_some(), answer.report, self.format) {
                    (false, ..) => ("", ""),
                    (true, false, _) => ("\"rows\":[", "],"),
                    (true, true, Format::Json) => ("\"report\":", ","),
                    (true, true, _) => ("\"report\":\"", "\","),
                };
                head.extend_from_slice(begin.as_bytes());
                self.end = end;
                let waits = answer.rows.is_some() && answer.report;
                let place = if waits { &mut self.head } else { out };
                place.append(&mut head);
            }
        }
    }

    fn write_part(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.head);
        self.open_line = !self.row.ends_with('\n');
        match &self.style {
            Style::Silent => {}
            Style::Json(_) if self.format != Format::Json => {
                let quoted = Value::from(self.row.as_str()).to_string();
                out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
            }
            _ => out.extend_from_slice(self.row.as_bytes()),
        }
    }

    fn write_row(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.head);
        match self.style {
            Style::Silent => {}
            Style::Plain => {
                out.extend_from_slice(self.row.as_bytes());
                out.push(b'\n');
            }
            Style::Json(_) => {
                if self.any {
                    out.push(b',');
                }
                if self.format == Format::Json {
                    out.extend_from_slice(self.row.as_bytes());
                } else {
                    out.extend_from_slice(Value::from(self.row.as_str()).to_string().as_bytes());
                }
            }
        }
        self.any = true;
    }

    /// Whether the guest stood still all the while.
    fn is_consistent(&self, lab: &Lab) -> bool {
        let now = lab.control.standing();
        now.is_some() && (self.waited || now == self.standing)
    }

    fn write_end(&mut self, lab: &Lab, trailer: Map<String, Value>, out: &mut Vec<u8>) {
        let consistent = self.is_consistent(lab);
        out.append(&mut self.head);
        match &self.style {
            Style::Silent => {}
            Style::Plain => {
                let mut line = String::from(if self.open_line { "\n" } else { "" });
                line.push_str(match consistent {
                    true => "-- ok, paused: consistent",
                    false => "-- ok, running: not of one moment",
                });
                for (name, value) in trailer.iter().filter(|(_, value)| value.is_number()) {
                    line.push_str(&format!(", {name} {value}"));
                }
                line.push('\n');
                out.extend_from_slice(line.as_bytes());
            }
            Style::Json(_) => {
                self.close_rows(out);
                for (name, value) in &trailer {
                    write_field(out, name, value);
                }
                let paused = lab.control.standing().is_some();
                out.extend_from_slice(
                    format!("\"paused\":{paused},\"consistent\":{consistent}}}}}").as_bytes(),
                );
            }
        }
    }

    fn close_rows(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.end.as_bytes());
    }

    fn write_failure(&self, error: &CommandError, out: &mut Vec<u8>) {
        match &self.style {
            Style::Json(_) if self.head.is_empty() => {
                self.close_rows(out);
                let failure = json!({ "code": error.code, "message": error.message });
                out.extend_from_slice(
                    format!("\"incomplete\":{failure},\"consistent\":false}}}}").as_bytes(),
                );
            }
            _ => self.write_error(error, out),
        }
    }

    fn write_error(&self, error: &CommandError, out: &mut Vec<u8>) {
        match &self.style {
            Style::Silent => {}
            Style::Plain => {
                let message = error.message.replace('\n', " ");
                out.extend_from_slice(format!("-- error: {message}\n").as_bytes());
            }
            Style::Json(id) => {
                let answer = json!({
                    "jsonrpc": "2.0", "id": id,
                    "error": { "code": error.code, "message": error.message },
                });
                out.extend_from_slice(answer.to_string().as_bytes());
            }
        }
    }
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &Value) {
    out.extend_from_slice(format!("{}:{value},", Value::from(name)).as_bytes());
}

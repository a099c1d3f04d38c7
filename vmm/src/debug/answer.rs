//! What a command answers: some fields at once, and rows one after the other.
//!
//! An answer may be far longer than what is kept for a client, so [`Rows`] are
//! asked for one by one as the client reads. Between two rows other clients are
//! served.

use serde_json::{Map, Value};

use super::filter::FaultFilter;
use super::lab::Lab;
use super::protocol::CommandError;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    Text,
    /// JSON.
    Json,
    /// Comma-separated values.
    Csv,
    /// A graph for Graphviz.
    Dot,
}

impl Format {
    /// By its name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "text" => Self::Text,
            "json" => Self::Json,
            "csv" => Self::Csv,
            "dot" => Self::Dot,
            _ => return None,
        })
    }
}

/// What became of asking for a row.
#[derive(Debug)]
pub enum Step {
    /// It was written.
    Row,
    /// A piece of the only row was written, which goes on.
    Part,
    /// Not yet, but soon: there is work to do.
    Working,
    /// Not before something happens.
    Blocked,
    /// There are no more.
    Done,
    /// There are no more because something went wrong.
    Failed(CommandError),
}

/// The rows of an answer.
pub trait Rows: Send {
    /// Writes the next row to `out`: one line without its end, or one JSON value.
    /// To be done in well under a millisecond; what takes longer is
    /// [`Step::Working`].
    fn next(&mut self, lab: &mut Lab, out: &mut String) -> Step;

    /// Whether the answer is about a moment that it waits for.
    fn waits_for_a_moment(&self) -> bool {
        false
    }

    /// Fields that are known only at the end.
    fn trailer(&mut self) -> Map<String, Value> {
        Map::new()
    }
}

/// What happens to the client's connection.
#[derive(Debug, Default, PartialEq)]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// It gets events.
    Watch(FaultFilter),
    /// It gets no more events.
    Unwatch,
    /// It is closed.
    Quit,
}

/// An answer.
#[derive(Default)]
pub struct Answer {
    /// For programs.
    pub fields: Map<String, Value>,
    /// For people: whole lines.
    pub text: String,
    /// The rows.
    pub rows: Option<Box<dyn Rows>>,
    /// Whether the rows are one piece, which JSON calls the report.
    pub report: bool,
    /// What else happens.
    pub effect: Effect,
}

impl Answer {
    /// An answer of one object and its text.
    pub fn new(fields: Value, text: impl Into<String>) -> Self {
        let fields = match fields {
            Value::Object(fields) => fields,
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        Self { fields, text: text.into(), ..Self::default() }
    }

    /// An answer with rows.
    pub fn with_rows(mut self, rows: impl Rows + 'static) -> Self {
        self.rows = Some(Box::new(rows));
        self
    }
}

/// Rows that are there already: a JSON value and a line each.
pub struct Listed {
    format: Format,
    /// CSV's first line, while it has not been written.
    head: Option<String>,
    rows: std::vec::IntoIter<(Value, String)>,
}

impl Listed {
    /// Rows for this format. CSV is made of the values; a graph cannot be.
    #[must_use]
    pub fn new(format: Format, rows: Vec<(Value, String)>) -> Self {
        let names = |value: &Value| {
            value.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>().join(","))
        };
        let head = rows.first().and_then(|(value, _)| names(value));
        let head = head.filter(|_| format == Format::Csv);
        Self { format, head, rows: rows.into_iter() }
    }
}

impl Rows for Listed {
    fn next(&mut self, _lab: &mut Lab, out: &mut String) -> Step {
        if let Some(head) = self.head.take() {
            out.push_str(&head);
            return Step::Row;
        }
        let Some((value, text)) = self.rows.next() else { return Step::Done };
        match self.format {
            Format::Json => out.push_str(&value.to_string()),
            Format::Csv => out.push_str(&csv_line(&value)),
            Format::Text | Format::Dot => out.push_str(&text),
        }
        Step::Row
    }
}

/// The values of an object as a line of CSV.
fn csv_line(value: &Value) -> String {
    let cells = match value {
        Value::Object(fields) => fields.values().map(csv_cell).collect(),
        other => vec![csv_cell(other)],
    };
    cells.join(",")
}

fn csv_cell(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

//! One client: what came from it, what goes to it, and no more than that.
//!
//! Input is kept up to the longest line, output up to [`OUTPUT_ENOUGH`] and one
//! row; a client that does not read gets nothing computed. One command is
//! answered at a time; further lines wait in the input, and then in the socket.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use serde_json::{Value, json};

use super::answer::Effect;
use super::event_text;
use super::filter::FaultFilter;
use super::http;
use super::job::{Job, Progress};
use super::lab::Lab;
use super::listener::Stream;
use super::protocol::{self, Call, CommandError, Line, MAX_LINE, Parameters, Parsed};

/// From here on a client's output waits for it to read.
const OUTPUT_ENOUGH: usize = 32 << 10;
/// How many rows or events are written before others have their turn.
const TURN: usize = 256;

/// What a client has shown of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Nothing yet: its first line must be the token.
    Unknown,
    /// It may ask.
    Granted,
    /// It speaks HTTP.
    Http,
}

/// A batch of calls, answered together.
struct Batch {
    calls: VecDeque<Parsed>,
    any: bool,
}

/// A client that watches.
struct Watch {
    filter: FaultFilter,
    json: bool,
    place: u64,
    /// Events lost in the guest's ring that it has been told of.
    lost: u64,
}

/// See the module's documentation.
pub struct Connection {
    stream: Stream,
    access: Access,
    input: Vec<u8>,
    input_ended: bool,
    output: Vec<u8>,
    sent: usize,
    job: Option<Job>,
    batch: Option<Batch>,
    watch: Option<Watch>,
    request: http::Request,
    /// It gets what is left of the output, then its end.
    closing: bool,
    /// It is gone.
    broken: bool,
    /// Whether it ever asked something.
    pub asked: bool,
    /// Since when it is there.
    pub since: Instant,
    /// What epoll was told.
    pub interest: EventFlags,
}

/// What a client's turn came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// There is more to do at once.
    pub busy: bool,
    /// It waits for something to happen in the lab.
    pub waiting: bool,
}

impl Connection {
    /// A client; one that `must_identify` has to know the token.
    pub fn new(stream: Stream, must_identify: bool) -> Self {
        Self {
            stream,
            access: if must_identify { Access::Unknown } else { Access::Granted },
            input: Vec::new(),
            input_ended: false,
            output: Vec::new(),
            sent: 0,
            job: None,
            batch: None,
            watch: None,
            request: http::Request::default(),
            closing: false,
            broken: false,
            asked: false,
            since: Instant::now(),
            interest: EventFlags::empty(),
        }
    }

    /// The socket.
    pub const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether it has shown nothing yet.
    pub fn is_unknown(&self) -> bool {
        self.access == Access::Unknown
    }

    /// Whether it can be forgotten.
    pub fn is_over(&self) -> bool {
        let all_sent = self.sent == self.output.len();
        self.broken || all_sent && (self.closing || self.input_ended && self.is_idle())
    }

    fn is_idle(&self) -> bool {
        self.job.is_none() && self.batch.is_none() && self.watch.is_none() && self.input.is_empty()
    }

    /// It is gone, or not wanted.
    pub fn break_off(&mut self) {
        self.broken = true;
    }

    /// What epoll should tell about it.
    pub fn wanted(&self) -> EventFlags {
        let mut wanted = EventFlags::empty();
        if !self.input_ended && !self.closing && self.input.len() <= MAX_LINE {
            wanted |= EventFlags::IN;
        }
        if self.sent < self.output.len() {
            wanted |= EventFlags::OUT;
        }
        wanted
    }

    /// Reads what has come, as far as there is room.
    pub fn read(&mut self) {
        let mut buffer = [0; 4096];
        while self.input.len() <= MAX_LINE && !self.closing {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.input_ended = true;
                    return;
                }
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    /// Writes what the client takes.
    pub fn write(&mut self) {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        } else if self.sent >= OUTPUT_ENOUGH {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }

    fn has_room(&self) -> bool {
        self.output.len() - self.sent < OUTPUT_ENOUGH
    }

    /// Does some work for this client.
    pub fn take_turn(&mut self, lab: &mut Lab, token: Option<&str>) -> Turn {
        for _ in 0..TURN {
            if self.closing || self.broken || !self.has_room() {
                return Turn::default();
            }
            if let Some(job) = &mut self.job {
                match job.advance(lab, &mut self.output) {
                    Progress::More => {}
                    Progress::Blocked => return Turn { busy: false, waiting: true },
                    Progress::Done => self.end_job(),
                }
            } else if self.batch.is_some() {
                self.continue_batch(lab);
            } else if let Some(line) = self.next_line() {
                self.take_line(&line, lab, token);
            } else if self.watch.is_some() {
                let busy = self.write_events(lab);
                return Turn { busy, waiting: true };
            } else {
                return Turn::default();
            }
        }
        Turn { busy: true, waiting: false }
    }

    /// The next whole line; at the end of the input also one without an end.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        if let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
            let rest = self.input.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.input, rest);
            line.pop();
            return Some(line);
        }
        if self.input.len() > MAX_LINE {
            let message = format!("a line has at most {MAX_LINE} bytes");
            let error = CommandError::new(CommandError::INVALID, message);
            self.refuse(&error);
            return None;
        }
        (self.input_ended && !self.input.is_empty()).then(|| std::mem::take(&mut self.input))
    }

    /// Says why, and ends the connection.
    pub fn refuse(&mut self, error: &CommandError) {
        let json = self.input.first() == Some(&b'{');
        let line = if json {
            let error = json!({ "code": error.code, "message": error.message });
            format!("{}\n", json!({ "jsonrpc": "2.0", "id": null, "error": error }))
        } else {
            format!("-- error: {error}\n")
        };
        self.output.extend_from_slice(line.as_bytes());
        self.input = Vec::new();
        self.closing = true;
    }

    fn take_line(&mut self, line: &[u8], lab: &mut Lab, token: Option<&str>) {
        match self.access {
            Access::Http => return self.take_header(line, lab, token),
            _ if line.starts_with(b"GET ") && !self.asked => {
                self.access = Access::Http;
                return self.request.begin(line);
            }
            Access::Unknown => return self.identify(line, token),
            Access::Granted => {}
        }
        self.asked = true;
        match protocol::parse(line) {
            Line::Empty => {}
            Line::Plain(call) => {
                let (job, effect) = Job::plain(call, lab, &mut self.output);
                self.start(job, effect, false, lab);
            }
            Line::Json(call) => {
                let (job, effect) = Job::json(call, lab, &mut self.output);
                self.start(job, effect, true, lab);
            }
            Line::Batch(calls) => self.batch = Some(Batch { calls: calls.into(), any: false }),
        }
    }

    /// The first line of somebody who must know the token.
    fn identify(&mut self, line: &[u8], token: Option<&str>) {
        let Some((said, id)) = said_token(line) else {
            let message = "the first line must be: auth TOKEN";
            return self.refuse(&CommandError::new(CommandError::INVALID, message));
        };
        if !token.is_some_and(|token| http::same(&said, token)) {
            return self
                .refuse(&CommandError::new(CommandError::FAILED, "this is not the lab's token"));
        }
        self.access = Access::Granted;
        let answer = match id {
            None => "-- ok\n".to_owned(),
            Some(id) => format!("{}\n", json!({ "jsonrpc": "2.0", "id": id, "result": {} })),
        };
        self.output.extend_from_slice(answer.as_bytes());
    }

    fn take_header(&mut self, line: &[u8], lab: &mut Lab, token: Option<&str>) {
        if self.request.take_header(line) {
            self.output.extend_from_slice(&self.request.answer(lab, token));
            self.closing = true;
        }
    }

    fn start(&mut self, job: Job, effect: Effect, json: bool, lab: &mut Lab) {
        self.job = Some(job);
        match effect {
            Effect::None => {}
            Effect::Watch(filter) => {
                lab.events.drain_running();
                let (place, lost) = (lab.history.end(), lab.history.lost());
                let was_watching =
                    self.watch.replace(Watch { filter, json, place, lost }).is_some();
                lab.watchers += usize::from(!was_watching);
                lab.update_recording();
            }
            Effect::Unwatch => self.end_watch(lab),
            Effect::Quit => {
                self.end_job();
                self.closing = true;
            }
        }
    }

    /// Watches no more.
    pub fn end_watch(&mut self, lab: &mut Lab) {
        if self.watch.take().is_some() {
            lab.watchers -= 1;
            lab.update_recording();
        }
    }

    fn end_job(&mut self) {
        let Some(job) = self.job.take() else { return };
        // In a batch, the batch's end is the line's end.
        if job.is_json() && self.batch.is_none() {
            self.output.push(b'\n');
        }
    }

    fn continue_batch(&mut self, lab: &mut Lab) {
        let Some(batch) = &mut self.batch else { return };
        let Some(call) = batch.calls.pop_front() else {
            if batch.any {
                self.output.extend_from_slice(b"]\n");
            }
            self.batch = None;
            return;
        };
        // A notification gets no place in the array.
        if !matches!(call, Ok(Call { id: None, .. })) {
            self.output.push(if batch.any { b',' } else { b'[' });
            batch.any = true;
        }
        let (job, effect) = Job::json(call, lab, &mut self.output);
        self.start(job, effect, true, lab);
    }

    /// Writes events that came since; whether there may be more.
    fn write_events(&mut self, lab: &Lab) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        let found = lab.history.read(watch.place, TURN);
        let lost = lab.history.lost();
        watch.place = found.next;
        let gone = found.missed + (lost - watch.lost);
        watch.lost = lost;
        if gone > 0 {
            let line = match watch.json {
                true => notification("lost", json!({ "events": gone })),
                false => format!("lost {gone} events\n"),
            };
            self.output.extend_from_slice(line.as_bytes());
        }
        for event in found.events.iter().filter(|event| watch.filter.matches(event)) {
            let line = match watch.json {
                true => notification("event", event_text::value(event)),
                false => event_text::line(event) + "\n",
            };
            self.output.extend_from_slice(line.as_bytes());
        }
        !found.events.is_empty()
    }
}

fn notification(method: &str, params: Value) -> String {
    format!("{}\n", json!({ "jsonrpc": "2.0", "method": method, "params": params }))
}

/// The token in a line, and the id to answer to if it is a JSON-RPC call.
fn said_token(line: &[u8]) -> Option<(String, Option<Value>)> {
    let (call, json) = match protocol::parse(line) {
        Line::Plain(Ok(call)) => (call, false),
        Line::Json(Ok(call)) => (call, true),
        _ => return None,
    };
    if call.method != "auth" {
        return None;
    }
    let token = match call.parameters {
        Parameters::Words(words) => words.into_iter().next()?,
        Parameters::List(list) => list.first()?.as_str()?.to_owned(),
        Parameters::Named(named) => named.get("token")?.as_str()?.to_owned(),
    };
    Some((token, json.then(|| call.id.unwrap_or(Value::Null))))
}

/// Tells a client that there is no room for it, as far as that works at once.
pub fn turn_away(mut stream: Stream) -> io::Result<()> {
    stream.write_all(b"-- error: the lab has too many clients\n")
}

//! The other end of the port: what `pagelab debug` says and shows.
//!
//! A command is sent as it was typed and its answer copied, up to the line that
//! says how it went; or, for programs, as a JSON-RPC call made with the same table
//! of commands. `> FILE` behind a command puts the answer into a file of whoever
//! asks, `memory … save FILE` the bytes themselves: the lab itself writes no files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use vmm_sys_util::signal::register_signal_handler;

use super::address::DebugAddress;
use super::answers::pages::hex_bytes;
use super::commands;
use super::listener::Stream;
use super::protocol::{Call, CommandError, Parameters};

/// Why a command had no good end.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No lab.
    #[error("cannot reach a lab at {address}: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the host said.
        source: io::Error,
    },
    /// A loopback port without a token.
    #[error("the lab at {0} wants the token that it printed: --token TOKEN or PAGELAB_TOKEN")]
    NoToken(String),
    /// The connection broke.
    #[error("the connection to the lab broke: {0}")]
    Connection(io::Error),
    /// The lab is over, or ended the connection.
    #[error("the lab has ended the connection")]
    Ended,
    /// The lab says no.
    #[error("{0}")]
    Refused(String),
    /// Whoever reads the answer has seen enough.
    #[error("nobody reads the answer any more")]
    SeenEnough,
    /// The file for the answer.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

/// A connection to a lab.
pub struct Client {
    reader: BufReader<Stream>,
    json: bool,
    calls: u64,
}

/// Set when the user interrupts a command.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_interrupt(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

impl Client {
    /// Connects to the lab at `address`.
    ///
    /// # Errors
    ///
    /// If there is none, or if it does not accept the token.
    pub fn connect(
        address: &DebugAddress,
        token: Option<&str>,
        json: bool,
    ) -> Result<Self, ClientError> {
        let stream = Stream::connect(address)
            .map_err(|source| ClientError::Unreachable { address: address.to_string(), source })?;
        let mut client = Self { reader: BufReader::new(stream), json, calls: 0 };
        if let DebugAddress::Loopback(_) = address {
            let token = token.ok_or_else(|| ClientError::NoToken(address.to_string()))?;
            client.send(&format!("auth {token}"))?;
            client.copy_plain(&mut io::sink())?;
        }
        Ok(client)
    }

    /// From now on an interrupt ends what is being shown, not the program.
    pub fn keep_interrupts(&self) {
        if let Err(error) = register_signal_handler(libc::SIGINT, note_interrupt) {
            log::debug!("interrupts are not kept: {error}");
        }
    }

    /// Carries out a command and shows its answer.
    ///
    /// # Errors
    ///
    /// If that did not work, or if the lab says no.
    pub fn run(&mut self, words: &[String]) -> Result<(), ClientError> {
        if let [command @ .., save, path] = words
            && save == "save"
            && command.first().is_some_and(|name| name == "memory")
        {
            return self.save(command, Path::new(path));
        }
        let (words, file) = split_file(words);
        let Some(name) = words.first() else { return Ok(()) };
        let watches = name == "watch";
        match file {
            None => self.ask(words, &mut io::stdout().lock(), watches),
            Some(path) => {
                let failed = |source| ClientError::File { path: path.to_owned(), source };
                let mut file = io::BufWriter::new(File::create(path).map_err(failed)?);
                self.ask(words, &mut file, watches)?;
                file.flush().map_err(failed)
            }
        }
    }

    /// Puts the bytes that a command shows into a file.
    fn save(&mut self, command: &[String], path: &Path) -> Result<(), ClientError> {
        self.call(command)?;
        let mut answer = Vec::new();
        self.copy_json(&mut answer)?;
        let bytes = bytes_of(&answer)
            .ok_or_else(|| ClientError::Refused("the lab's answer holds no bytes".to_owned()))?;
        let failed = |source| ClientError::File { path: path.to_owned(), source };
        std::fs::write(path, &bytes).map_err(failed)?;
        println!("{} bytes in {}", bytes.len(), path.display());
        Ok(())
    }

    fn ask(
        &mut self,
        words: &[String],
        out: &mut dyn Write,
        watches: bool,
    ) -> Result<(), ClientError> {
        INTERRUPTED.store(false, Ordering::SeqCst);
        if self.json {
            self.call(words)?;
            self.copy_json(out)?;
        } else {
            self.send(&quote(words))?;
            self.copy_plain(out)?;
        }
        if watches { self.copy_events(out) } else { Ok(()) }
    }

    /// Sends the words as a JSON-RPC call.
    fn call(&mut self, words: &[String]) -> Result<(), ClientError> {
        let refused = |error: CommandError| ClientError::Refused(error.message);
        let (name, rest) =
            words.split_first().map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
        let call = Call {
            id: None,
            method: name.to_owned(),
            parameters: Parameters::Words(rest.to_vec()),
        };
        let (command, arguments) = commands::prepare(call).map_err(refused)?;
        self.calls += 1;
        let call = json!({
            "jsonrpc": "2.0", "id": self.calls, "method": command.name, "params": arguments.to_json(),
        });
        self.send(&call.to_string())
    }

    fn send(&mut self, line: &str) -> Result<(), ClientError> {
        let line = format!("{line}\n");
        self.reader.get_mut().write_all(line.as_bytes()).map_err(lost)
    }

    /// Copies an answer in text, up to the line that says how it went.
    fn copy_plain(&mut self, out: &mut dyn Write) -> Result<(), ClientError> {
        loop {
            let line = self.line()?;
            if let Some(message) = line.strip_prefix("-- error: ") {
                return Err(ClientError::Refused(message.trim_end().to_owned()));
            }
            if line.starts_with("-- ok") {
                if line.trim_end() != "-- ok" {
                    show_note(&line);
                }
                return Ok(());
            }
            write_out(out, &line)?;
        }
    }

    /// Copies an answer in JSON.
    fn copy_json(&mut self, out: &mut dyn Write) -> Result<(), ClientError> {
        loop {
            let line = self.line()?;
            write_out(out, &line)?;
            let Ok(answer) = serde_json::from_str::<Value>(&line) else {
                return Err(ClientError::Refused("the lab's answer is not JSON".to_owned()));
            };
            if answer.get("id").is_none() {
                continue;
            }
            let error = answer.get("error").or_else(|| answer["result"].get("incomplete"));
            return match error {
                None => Ok(()),
                Some(error) => {
                    let message = error["message"].as_str().unwrap_or("it failed");
                    Err(ClientError::Refused(message.to_owned()))
                }
            };
        }
    }

    /// Copies events until the user or the lab ends that.
    fn copy_events(&mut self, out: &mut dyn Write) -> Result<(), ClientError> {
        loop {
            match self.line() {
                Ok(line) => write_out(out, &line)?,
                // The lab is over, and so is what was watched.
                Err(ClientError::Ended) => return Ok(()),
                Err(ClientError::Connection(error)) if error.kind() == ErrorKind::Interrupted => {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        INTERRUPTED.store(false, Ordering::SeqCst);
        if self.json {
            self.call(&["unwatch".to_owned()])?;
            self.copy_json(out)
        } else {
            self.send("unwatch")?;
            self.copy_plain(out)
        }
    }

    /// The next line, with its end.
    fn line(&mut self) -> Result<String, ClientError> {
        let mut line = Vec::new();
        loop {
            if self.reader.buffer().is_empty() {
                self.wait()?;
            }
            let buffer = self.reader.fill_buf().map_err(lost)?;
            if buffer.is_empty() {
                return Err(ClientError::Ended);
            }
            let end = buffer.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
            let count = end.unwrap_or(buffer.len());
            line.extend_from_slice(&buffer[..count]);
            self.reader.consume(count);
            if end.is_some() {
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
        }
    }

    /// Waits until there is something to read, or until the user interrupts.
    fn wait(&self) -> Result<(), ClientError> {
        loop {
            if INTERRUPTED.load(Ordering::SeqCst) {
                return Err(ClientError::Connection(ErrorKind::Interrupted.into()));
            }
            let mut ready = [PollFd::new(self.reader.get_ref(), PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(ClientError::Connection(error.into())),
            }
        }
    }
}

fn lost(error: io::Error) -> ClientError {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => ClientError::Ended,
        _ => ClientError::Connection(error),
    }
}

/// How it went, where it does not disturb.
fn show_note(line: &str) {
    use std::io::IsTerminal;
    if io::stdout().is_terminal() {
        print!("{line}");
    }
}

fn write_out(out: &mut dyn Write, line: &str) -> Result<(), ClientError> {
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(|source| {
        match source.kind() {
            ErrorKind::BrokenPipe => ClientError::SeenEnough,
            _ => ClientError::File { path: PathBuf::from("the answer"), source },
        }
    })
}

/// The bytes of an answer of `memory` in JSON.
fn bytes_of(answer: &[u8]) -> Option<Vec<u8>> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let mut bytes = Vec::new();
    for row in answer["result"]["rows"].as_array()? {
        bytes.extend(hex_bytes(row["bytes"].as_str()?)?);
    }
    Some(bytes)
}

/// Parts a command from the file that its answer goes to: `… > FILE`, and for
/// commands whose answers are made for files also `snapshot FILE`.
fn split_file(words: &[String]) -> (&[String], Option<&Path>) {
    const FOR_FILES: [&str; 2] = ["snapshot", "trace"];
    match words {
        [command @ .., arrow, file] if arrow == ">" && !command.is_empty() => {
            (command, Some(Path::new(file)))
        }
        [name, file] if FOR_FILES.contains(&name.as_str()) && !file.contains('=') => {
            (&words[..1], Some(Path::new(file)))
        }
        _ => (words, None),
    }
}

/// The words as one line that the lab takes apart in the same way.
fn quote(words: &[String]) -> String {
    let quoted = words.iter().map(|word| {
        let plain = !word.is_empty()
            && !word.contains(|c: char| c.is_whitespace() || c == '"' || c == '\'');
        let line_end = |c: char| c == '\n' || c == '\r';
        match (plain, word.contains('\'')) {
            (true, _) => word.clone(),
            (false, false) => format!("'{}'", word.replace(line_end, " ")),
            (false, true) => format!("\"{}\"", word.replace('"', "'").replace(line_end, " ")),
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn files_belong_to_whoever_asks() {
        let split = |text: &str| {
            let words = words(text);
            let (command, file) = split_file(&words);
            (command.join(" "), file.map(|file| file.display().to_string()))
        };
        assert_eq!(split("faults > a.txt"), ("faults".to_owned(), Some("a.txt".to_owned())));
        assert_eq!(split("trace a.json"), ("trace".to_owned(), Some("a.json".to_owned())));
        assert_eq!(split("trace pid=2"), ("trace pid=2".to_owned(), None));
        assert_eq!(split("help trace"), ("help trace".to_owned(), None));
    }

    #[test]
    fn memory_is_saved_as_bytes() {
        let answer = br#"{"result":{"rows":[{"bytes":"00ff"},{"bytes":"10"}]}}"#;
        assert_eq!(bytes_of(answer), Some(vec![0, 0xff, 0x10]));
        assert_eq!(bytes_of(br#"{"result":{"rows":[{"bytes":"0"}]}}"#), None);
        assert_eq!(bytes_of(b"{}"), None);
    }

    #[test]
    fn words_survive_the_way() {
        let words = ["mark".to_owned(), "two words".to_owned(), "it's".to_owned(), String::new()];
        assert_eq!(quote(&words), "mark 'two words' \"it's\" ''");
    }
}

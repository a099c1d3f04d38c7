//! What the debug port costs a program, and how fast it shows page tables.
//!
//! A program is run alone, with a client that asks for the fault counters ten
//! times a second, and with one that watches all events, in turns. Then, while
//! the program stands still, its page tables are dumped through the port and
//! read through the debugger's protocol, as a script in gdb would.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pagelab_abi::layout::PHYSMAP_BASE;
use pagelab_paging::Entry;
use pagelab_paging::entry::ENTRIES;
use serde::Serialize;
use serde_json::{Value, json};

use super::summary::Summary;

/// How often the polling client asks.
const POLL: Duration = Duration::from_millis(100);
/// How long a lab may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum DebugBenchError {
    /// The lab, or a file for it.
    #[error("cannot measure: {0}")]
    Host(#[from] io::Error),
    /// The lab wrote no report.
    #[error("the lab's report makes no sense: {0}")]
    Report(#[from] serde_json::Error),
    /// What the port said was not expected.
    #[error("the lab does not answer as it should: {0}")]
    Answer(String),
}

/// What to measure.
#[derive(Debug)]
pub struct DebugBench {
    /// How often the program is run in each way.
    pub runs: usize,
    /// The program and its arguments.
    pub program: Vec<OsString>,
}

/// What a client does while the program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    None,
    Polling,
    Watching,
}

/// Dumps of the same page tables.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DumpFigures {
    /// Entries that the port's dump read.
    pub entries: u64,
    /// From the question to the end of the answer, in milliseconds.
    pub port_ms: f64,
    /// Entries read through the debugger's protocol.
    pub gdb_entries: u64,
    /// How long that took, in milliseconds.
    pub gdb_ms: f64,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct DebugReport {
    /// Milliseconds in the guest, alone.
    pub alone: Option<Summary>,
    /// With a client that asks ten times a second.
    pub polled: Option<Summary>,
    /// With a client that watches all events.
    pub watched: Option<Summary>,
    /// Page tables; `None` if the program ended too soon.
    pub dump: Option<DumpFigures>,
}

impl DebugBench {
    /// Measures.
    ///
    /// # Errors
    ///
    /// If a lab cannot be run.
    pub fn run(&self) -> Result<DebugReport, DebugBenchError> {
        let folder = std::env::temp_dir().join(format!("pagelab-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let report = self.measure(&folder);
        fs::remove_dir_all(&folder)?;
        report
    }

    fn measure(&self, folder: &Path) -> Result<DebugReport, DebugBenchError> {
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..self.runs {
            for (times, company) in
                times.iter_mut().zip([Company::None, Company::Polling, Company::Watching])
            {
                times.push(self.run_once(folder, company)?);
            }
        }
        let [alone, polled, watched] = times.map(Summary::of);
        Ok(DebugReport { alone, polled, watched, dump: self.dump(folder)? })
    }

    fn start(&self, options: &[&Path]) -> io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run");
        for (name, path) in ["--json", "--debug", "--gdb"].into_iter().zip(options) {
            command.arg(name).arg(path);
        }
        command.arg("--").args(&self.program);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }

    /// Milliseconds that the guest took.
    fn run_once(&self, folder: &Path, company: Company) -> Result<f64, DebugBenchError> {
        let (report, socket) = (folder.join("report"), folder.join("port"));
        let paths = [report.as_path(), socket.as_path()];
        let with_port = company != Company::None;
        let mut lab = self.start(if with_port { &paths } else { &paths[..1] })?;
        let client = with_port.then(|| thread::spawn(move || keep_company(&socket, company)));
        lab.wait()?;
        if let Some(client) = client {
            // It ends with the lab; what it met is no measurement.
            let _ = client.join();
        }
        let report: Value = serde_json::from_slice(&fs::read(report)?)?;
        report["running_ms"].as_f64().ok_or_else(|| DebugBenchError::Answer("no time".to_owned()))
    }

    /// Dumps the page tables of the running program in both ways.
    fn dump(&self, folder: &Path) -> Result<Option<DumpFigures>, DebugBenchError> {
        let (report, socket, gdb) =
            (folder.join("report"), folder.join("port"), folder.join("gdb"));
        let mut lab = self.start(&[&report, &socket, &gdb])?;
        let figures = dump_both(&socket, &gdb);
        lab.kill()?;
        lab.wait()?;
        match figures {
            // The program had ended.
            Err(DebugBenchError::Host(error)) => {
                log::info!("no dump: {error}");
                Ok(None)
            }
            figures => figures.map(Some),
        }
    }
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let began = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Err(_) if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(1)),
            result => return result,
        }
    }
}

/// A client, until the lab ends.
fn keep_company(socket: &Path, company: Company) -> io::Result<()> {
    let mut stream = connect(socket)?;
    if company == Company::Watching {
        stream.write_all(b"watch\n")?;
        io::copy(&mut stream, &mut io::sink())?;
        return Ok(());
    }
    let mut lines = BufReader::new(stream.try_clone()?);
    loop {
        stream.write_all(b"faults\n")?;
        let mut line = String::new();
        while !line.starts_with("-- ") {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        thread::sleep(POLL);
    }
}

/// A JSON-RPC call.
fn call(stream: &mut UnixStream, method: &str, params: Value) -> Result<Value, DebugBenchError> {
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    stream.write_all(format!("{call}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let mut answer: Value = serde_json::from_str(&line)?;
    match answer.get("error") {
        Some(error) => Err(DebugBenchError::Answer(format!("{method}: {error}"))),
        None => Ok(answer["result"].take()),
    }
}

fn dump_both(socket: &Path, gdb: &Path) -> Result<DumpFigures, DebugBenchError> {
    /// Enough for a program to have touched its memory.
    const WARM_UP: Duration = Duration::from_secs(1);
    let mut port = connect(socket)?;
    thread::sleep(WARM_UP);
    call(&mut port, "pause", json!({}))?;
    let processes = call(&mut port, "ps", json!({}))?["report"]["processes"].take();
    let last = processes.as_array().and_then(|list| list.last()).cloned().unwrap_or_default();
    let wrong = || DebugBenchError::Answer("no process has page tables".to_owned());
    let root = last["space"]["root"].as_str().and_then(|text| text.strip_prefix("0x"));
    let root = u64::from_str_radix(root.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
    let began = Instant::now();
    let request = json!({ "target": last["pid"].to_string(), "shape": "runs", "limit": 4_000_000 });
    let dump = call(&mut port, "pt", request)?;
    let port_ms = began.elapsed().as_secs_f64() * 1000.0;
    let entries = dump["report"]["cost"]["entries"].as_u64().unwrap_or(0);
    let mut debugger = Debugger { stream: UnixStream::connect(gdb)?, entries: 0 };
    let began = Instant::now();
    debugger.walk(root, 4)?;
    let gdb_ms = began.elapsed().as_secs_f64() * 1000.0;
    Ok(DumpFigures { entries, port_ms, gdb_entries: debugger.entries, gdb_ms })
}

/// Reads page tables as a script in gdb does: memory, packet by packet.
struct Debugger {
    stream: UnixStream,
    entries: u64,
}

impl Debugger {
    /// Reads the table at `table` and those below it, of a program's half.
    fn walk(&mut self, table: u64, level: u8) -> Result<(), DebugBenchError> {
        /// Half a table: what fits into a packet with room to spare.
        const PIECE: usize = 1024;
        let count = if level == 4 { ENTRIES / 2 } else { ENTRIES };
        let mut bytes = Vec::new();
        while bytes.len() < count * 8 {
            let address = PHYSMAP_BASE + table + bytes.len() as u64;
            bytes.extend(self.memory(address, PIECE)?);
        }
        self.entries += count as u64;
        if level == 1 {
            return Ok(());
        }
        for entry in bytes.chunks_exact(8) {
            let entry =
                Entry(entry.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)));
            let leads_on = entry.is_present() && !entry.has(pagelab_paging::EntryFlags::HUGE);
            if leads_on {
                self.walk(entry.address().0, level - 1)?;
            }
        }
        Ok(())
    }

    fn memory(&mut self, address: u64, length: usize) -> Result<Vec<u8>, DebugBenchError> {
        let packet = format!("m{address:x},{length:x}");
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        self.stream.write_all(format!("${packet}#{sum:02x}").as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while answer.len() < 3 || answer[answer.len() - 3] != b'#' {
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                count => answer.extend_from_slice(&buffer[..count]),
            }
        }
        self.stream.write_all(b"+")?;
        let start = answer.iter().position(|&byte| byte == b'$').map_or(0, |at| at + 1);
        decode(&answer[start..answer.len() - 3])
            .ok_or_else(|| DebugBenchError::Answer("a packet that is no memory".to_owned()))
    }
}

/// Hexadecimal digits, with repeated ones as `*` and a count.
fn decode(packet: &[u8]) -> Option<Vec<u8>> {
    let mut digits: Vec<u8> = Vec::new();
    let mut bytes = packet.iter();
    while let Some(&byte) = bytes.next() {
        if byte == b'*' {
            let (count, last) = (bytes.next()?.checked_sub(29)?, *digits.last()?);
            digits.extend(std::iter::repeat_n(last, count.into()));
        } else {
            digits.push(byte);
        }
    }
    crate::debug::answers::pages::hex_bytes(str::from_utf8(&digits).ok()?)
}

impl fmt::Display for DebugReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let base = self.alone.map(|summary| summary.median);
        let rows = [
            ("alone", self.alone),
            ("asked 10 times a second", self.polled),
            ("watched", self.watched),
        ];
        for (name, summary) in rows {
            let Some(Summary { least, median, greatest }) = summary else { continue };
            let ratio = base.map_or(1.0, |base| median / base);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name:<26}{median:>10.1} ms ({least:.1} to {greatest:.1})  {ratio:>6.3}"
            );
        }
        match &self.dump {
            None => text.push_str("page tables: the program ended before they could be dumped\n"),
            Some(dump) => {
                #[allow(clippy::cast_precision_loss, reason = "rates for people")]
                let rate = |entries: u64, ms: f64| entries as f64 / ms / 1000.0;
                let (port, gdb) =
                    (rate(dump.entries, dump.port_ms), rate(dump.gdb_entries, dump.gdb_ms));
                let _ = writeln!(
                    text,
                    "page tables: {} entries in {:.2} ms through the port ({port:.2} million a second),\n\
                     {} in {:.2} ms through the debugger's protocol ({gdb:.3}): {:.0} times as fast",
                    dump.entries,
                    dump.port_ms,
                    dump.gdb_entries,
                    dump.gdb_ms,
                    port / gdb
                );
            }
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_decoded() {
        assert_eq!(decode(b"0* 7f"), Some(vec![0, 0, 0x7f]));
        assert_eq!(decode(b"E01"), None);
        assert_eq!(decode(b"*"), None);
    }
}

//! What the debug port costs a program, and how fast it shows page tables.
//!
//! A program that faults a lot is run alone, with a client that asks for the fault
//! counters ten times a second, and with one that watches all events, in turns.
//! What counts is the time that the guest's processor took of the host's: on a
//! busy machine, the time until the end says little. Then a process with many
//! pages stands still, and its page tables are dumped through the port, and read
//! by a script in gdb.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::debugger::{self, DebuggerFigures};
use super::programs;
use super::summary::Summary;

/// How often the polling client asks.
const POLL: Duration = Duration::from_millis(100);
/// How long a lab may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a process may take to touch its memory.
const PATIENCE_FOR_PAGES: Duration = Duration::from_secs(120);

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
    /// The program and its arguments; without one, one that does nothing but fault.
    pub program: Vec<OsString>,
    /// How much memory the process has touched whose tables are dumped, in MiB.
    pub touched: u32,
}

/// What a client does while the program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    None,
    Polling,
    Watching,
}

/// Dumps of the same page tables.
#[derive(Clone, Debug, Serialize)]
pub struct DumpFigures {
    /// Entries that the port's dump read.
    pub entries: u64,
    /// From the question to the end of the answer, in milliseconds: the median.
    pub port_ms: f64,
    /// By a script in gdb.
    pub gdb: Option<DebuggerFigures>,
    /// Why not, otherwise.
    pub without_gdb_because: Option<String>,
    /// By the same packets without gdb.
    pub packets: DebuggerFigures,
}

/// A program's times in one of the ways.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// Milliseconds of the host's processor that the guest's took.
    pub processor_ms: Summary,
    /// Milliseconds from its start to its end.
    pub running_ms: Summary,
    /// Processor time in relation to the run alone just before: the median.
    pub ratio: f64,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct DebugReport {
    /// Alone.
    pub alone: Option<Times>,
    /// With a client that asks ten times a second.
    pub polled: Option<Times>,
    /// With a client that watches all events.
    pub watched: Option<Times>,
    /// Page tables.
    pub dump: DumpFigures,
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
        let program = self.program(folder)?;
        let ways = [Company::None, Company::Polling, Company::Watching];
        let mut rounds = Vec::new();
        for _ in 0..self.runs {
            let mut round = [(0.0, 0.0); 3];
            for (times, company) in round.iter_mut().zip(ways) {
                *times = run_once(&program, folder, company)?;
            }
            rounds.push(round);
        }
        let times = |way: usize| {
            Some(Times {
                processor_ms: Summary::of(rounds.iter().map(|round| round[way].0))?,
                running_ms: Summary::of(rounds.iter().map(|round| round[way].1))?,
                ratio: Summary::of(rounds.iter().map(|round| round[way].0 / round[0].0))?.median,
            })
        };
        let (alone, polled, watched) = (times(0), times(1), times(2));
        Ok(DebugReport { alone, polled, watched, dump: self.dump(folder)? })
    }

    /// The program that is slowed down: as many faults as take some seconds here,
    /// which on one host are a hundred times as many as on another.
    fn program(&self, folder: &Path) -> Result<Vec<OsString>, DebugBenchError> {
        const PAGES: u32 = 64;
        const WANTED_MS: f64 = 3000.0;
        const MOST: f64 = 1e6;
        if !self.program.is_empty() {
            return Ok(self.program.clone());
        }
        let path = folder.join("faulting");
        let program = vec![path.clone().into_os_string()];
        let time = |rounds| {
            fs::write(&path, programs::faulting(PAGES, rounds))?;
            Ok::<_, DebugBenchError>(run_once(&program, folder, Company::None)?.0)
        };
        let (few, more) = (time(1)?, time(17)?);
        let rounds = (WANTED_MS / ((more - few) / 16.0).max(1e-3)).clamp(1.0, MOST);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        fs::write(&path, programs::faulting(PAGES, rounds as u32))?;
        Ok(program)
    }

    /// Dumps the page tables of a process in all ways.
    fn dump(&self, folder: &Path) -> Result<DumpFigures, DebugBenchError> {
        /// For the kernel, the tables and the host's rounding.
        const BESIDES: u32 = 64;
        let program = folder.join("standing");
        let pages = self.touched.saturating_mul(256);
        fs::write(&program, programs::standing(pages))?;
        let (socket, gdb) = (folder.join("port"), folder.join("gdb"));
        let mut command = lab()?;
        command.arg("--mem").arg(format!("{}M", self.touched.saturating_add(BESIDES)));
        command.arg("--debug").arg(&socket).arg("--gdb").arg(&gdb).arg("--").arg(&program);
        let mut lab = command.spawn()?;
        let figures = dump_all(&socket, &gdb, pages, folder);
        lab.kill()?;
        lab.wait()?;
        figures
    }
}

/// `pagelab run`, quiet.
fn lab() -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// What the guest's processor took of the host's, and how long it ran, in
/// milliseconds.
fn run_once(
    program: &[OsString],
    folder: &Path,
    company: Company,
) -> Result<(f64, f64), DebugBenchError> {
    let (report, socket) = (folder.join("report"), folder.join("port"));
    let mut command = lab()?;
    command.arg("--json").arg(&report);
    let with_port = company != Company::None;
    if with_port {
        command.arg("--debug").arg(&socket);
    }
    let mut lab = command.arg("--").args(program).spawn()?;
    let client = with_port.then(|| thread::spawn(move || keep_company(&socket, company)));
    lab.wait()?;
    if let Some(client) = client {
        // It ends with the lab; what it met is no measurement.
        let _ = client.join();
    }
    let report: Value = serde_json::from_slice(&fs::read(report)?)?;
    let time = |name: &str| {
        let missing = || DebugBenchError::Answer(format!("no {name}"));
        report[name].as_f64().ok_or_else(missing)
    };
    Ok((time("processor_ms")?, time("running_ms")?))
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

fn dump_all(
    socket: &Path,
    gdb: &Path,
    pages: u32,
    folder: &Path,
) -> Result<DumpFigures, DebugBenchError> {
    const ROUNDS: usize = 5;
    let mut port = connect(socket)?;
    let (pid, root) = touched_process(&mut port, pages)?;
    let request = json!({ "target": pid, "shape": "runs", "limit": 4_000_000 });
    let (mut entries, mut times) = (0, Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let dump = call(&mut port, "pt", request.clone())?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        entries = dump["report"]["cost"]["entries"].as_u64().unwrap_or(0);
    }
    let port_ms = Summary::of(times).map_or(0.0, |summary| summary.median);
    let packets = debugger::without_gdb(gdb, root)?;
    // Whoever leaves lets the guest go on.
    call(&mut port, "pause", json!({}))?;
    let (gdb, without_gdb_because) = match debugger::with_gdb(gdb, root, folder)? {
        Ok(figures) => (Some(figures), None),
        Err(reason) => (None, Some(reason)),
    };
    Ok(DumpFigures { entries, port_ms, gdb, without_gdb_because, packets })
}

/// Pauses the guest once its program has touched all its pages; the process and
/// its root table.
fn touched_process(port: &mut UnixStream, pages: u32) -> Result<(String, u64), DebugBenchError> {
    let began = Instant::now();
    loop {
        // Refused until the kernel has published its structures.
        let answer = call(port, "ps", json!({}));
        let processes = answer.map(|mut ps| ps["report"]["processes"].take()).unwrap_or_default();
        let last = processes.as_array().and_then(|list| list.last()).cloned().unwrap_or_default();
        let root = last["space"]["root"].as_str().and_then(|text| text.strip_prefix("0x"));
        let root = root.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let faults = call(port, "faults", json!({})).unwrap_or_default();
        let rows = faults["rows"].as_array().map_or(&[][..], Vec::as_slice);
        let count: u64 = rows.iter().filter_map(|row| row["count"].as_u64()).sum();
        if let Some(root) = root
            && count >= pages.into()
        {
            call(port, "pause", json!({}))?;
            return Ok((last["pid"].to_string(), root));
        }
        if began.elapsed() > PATIENCE_FOR_PAGES {
            let message = format!("only {count} pages were touched");
            return Err(DebugBenchError::Answer(message));
        }
        thread::sleep(POLL);
    }
}

impl fmt::Display for DebugReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("alone", self.alone),
            ("asked 10 times a second", self.polled),
            ("watched", self.watched),
        ];
        writeln!(f, "a program that faults: processor time, ratio, time until its end")?;
        for (name, times) in rows {
            let Some(Times { processor_ms, running_ms, ratio }) = times else { continue };
            writeln!(
                f,
                "  {name:<26}{:>9.1} ms ({:.1} to {:.1}) {ratio:>7.4} {:>9.1} ms",
                processor_ms.median, processor_ms.least, processor_ms.greatest, running_ms.median
            )?;
        }
        write!(f, "{}", self.dump)
    }
}

impl fmt::Display for DumpFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[allow(clippy::cast_precision_loss, reason = "rates for people")]
        let rate = |entries: u64, ms: f64| entries as f64 / ms / 1000.0;
        let port = rate(self.entries, self.port_ms);
        writeln!(f, "the page tables of a process that stands still: entries, time, speed")?;
        let mut row = |name: &str, entries: u64, ms: f64| {
            let speed = rate(entries, ms);
            writeln!(
                f,
                "  {name:<26}{entries:>9} {ms:>9.2} ms {speed:>9.3} million/s, port {:.0} times as fast",
                port / speed
            )
        };
        row("debug port, runs as JSON", self.entries, self.port_ms)?;
        row("gdb's packets alone", self.packets.entries, self.packets.ms)?;
        if let Some(gdb) = &self.gdb {
            row("a script in gdb", gdb.entries, gdb.ms)?;
        }
        match &self.without_gdb_because {
            Some(reason) => writeln!(f, "  no script in gdb: {reason}"),
            None => Ok(()),
        }
    }
}

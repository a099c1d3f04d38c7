//! A process from exec to exit, on the monotonic clock.

use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::timings::now;

/// A process that ran.
#[derive(Debug)]
pub struct Finished {
    /// Just before exec, in nanoseconds of the monotonic clock.
    pub started: u64,
    /// When its first byte of output arrived.
    pub first_output: Option<u64>,
    /// When it was found to be over.
    pub ended: u64,
    /// How it ended.
    pub status: ExitStatus,
    /// What it said.
    pub output: String,
}

impl Finished {
    /// Milliseconds from exec to a moment.
    #[must_use]
    pub fn since_exec(&self, moment: u64) -> f64 {
        milliseconds(self.started, moment)
    }
}

/// Milliseconds between two moments.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "53 bits of nanoseconds are a hundred days")]
pub fn milliseconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e6
}

/// A process that runs, and is killed if it is forgotten.
#[derive(Debug)]
pub struct Running {
    child: Child,
    started: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be over already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts a process with its standard output and standard error on pipes and
    /// no input.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = now();
        Ok(Self { child: command.spawn()?, started })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its first byte of standard output.
    ///
    /// # Errors
    ///
    /// If none comes within `limit`.
    pub fn wait_for_output(&mut self, limit: Duration) -> io::Result<()> {
        let stdout = self.take_stdout()?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut stdout = stdout;
            // Nobody listens any more once the limit is over.
            let _ = sender.send(stdout.read(&mut [0; 256]));
            stdout
        });
        match receiver.recv_timeout(limit) {
            Ok(Ok(count)) if count > 0 => Ok(()),
            Ok(Ok(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn take_stdout(&mut self) -> io::Result<ChildStdout> {
        self.child.stdout.take().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// If it takes longer than `limit`; it is killed then.
    pub fn finish(mut self, limit: Duration) -> io::Result<Finished> {
        let stdout = self.take_stdout()?;
        let stderr = self.child.stderr.take();
        let reader = thread::spawn(move || read_noting_first(stdout));
        let errors = thread::spawn(move || stderr.map(|mut stderr| read_lossy(&mut stderr)));
        let deadline = self.started.saturating_add(nanoseconds(limit));
        // A pipe reaches its end when the process does, so waiting for the
        // reader first costs no polling of the process.
        while !reader.is_finished() {
            if now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_micros(50));
        }
        let status = self.wait_until(deadline)?;
        let ended = now();
        let (first_output, mut output) = reader.join().unwrap_or_default();
        output.push_str(&errors.join().ok().flatten().unwrap_or_default());
        Ok(Finished { started: self.started, first_output, ended, status, output })
    }

    fn wait_until(&mut self, deadline: u64) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_micros(50));
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn read_noting_first(mut stream: impl Read) -> (Option<u64>, String) {
    let mut first = [0];
    let count = stream.read(&mut first).unwrap_or(0);
    let moment = (count > 0).then(now);
    let mut text = String::from_utf8_lossy(&first[..count]).into_owned();
    text.push_str(&read_lossy(&mut stream));
    (moment, text)
}

/// What a stream says, as far as it can be read.
fn read_lossy(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn times_are_in_order() {
        let finished = Running::start(&mut shell("echo out; sleep 0.05; echo err >&2; exit 3"))
            .unwrap()
            .finish(LIMIT)
            .unwrap();
        let first = finished.first_output.unwrap();
        assert!(finished.started < first);
        assert!(milliseconds(first, finished.ended) > 40.0);
        assert!(finished.since_exec(finished.ended) < 5_000.0);
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.output, "out\nerr\n");
    }

    #[test]
    fn a_process_that_hangs_is_killed() {
        let error = Running::start(&mut shell("exec sleep 100"))
            .unwrap()
            .finish(Duration::from_millis(50))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut silent = Running::start(&mut shell("exec sleep 100")).unwrap();
        let error = silent.wait_for_output(Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn output_can_be_waited_for() {
        let mut talker = Running::start(&mut shell("echo x; exec sleep 100")).unwrap();
        talker.wait_for_output(LIMIT).unwrap();
        assert!(talker.id() > 0);
        let mut mute = Running::start(&mut shell("exit 0")).unwrap();
        let error = mute.wait_for_output(LIMIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

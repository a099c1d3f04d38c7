//! One of the two kernels that are compared: how to run the tester on it.
//!
//! A [`Side`] is a command prefix (nothing for this machine's own Linux,
//! `pagelab run --` for a lab) in front of the tester's binary. [`Side::run`]
//! gives everything that came out of it, also when it crashed or hung: those
//! are answers, too, and are compared like any other. Where programs work on
//! files, each side has a [`Folder`], and what is left in it is part of the answer.

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::folder::{Folder, FolderError};

/// The tester could not be run at all.
#[derive(Debug, Error)]
pub enum SideError {
    /// The command could not be started.
    #[error("cannot start `{command}`")]
    Start {
        /// What was to be run.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// The command ran, but its output or its end could not be had.
    #[error("cannot read from `{command}`")]
    Read {
        /// What was run.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// The folder of a side failed.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an exit status, or none if a signal ended it.
    Exited(Option<i32>),
    /// It was stopped because it took too long.
    TimedOut,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(Some(status)) => write!(f, "exit status {status}"),
            Self::Exited(None) => write!(f, "ended by a signal"),
            Self::TimedOut => write!(f, "stopped after the time limit"),
        }
    }
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Everything on standard output.
    pub output: String,
    /// Everything on standard error; not compared, only shown.
    pub errors: String,
    /// How it ended.
    pub ending: Ending,
    /// What is in the side's folder afterwards, a line for each entry, sorted; none
    /// if it has none here.
    pub files: Option<Vec<String>>,
}

impl Answer {
    /// Whether two kernels gave the same answer.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        let agree = |(one, other): (&Vec<_>, &Vec<_>)| one == other;
        let files = self.files.as_ref().zip(other.files.as_ref());
        self.output == other.output && self.ending == other.ending && files.is_none_or(agree)
    }
}

/// Where the folder's path goes in a side's command.
pub const PLACE: &str = "{folder}";

/// A kernel to run the tester on.
#[derive(Debug)]
pub struct Side {
    /// What to call it in reports.
    pub name: &'static str,
    /// The command and its arguments in front of the tester's binary.
    pub prefix: Vec<String>,
    /// The tester's binary.
    pub program: PathBuf,
    /// Options for the tester on this side only.
    pub extra: Vec<String>,
    /// How long one run may take.
    pub timeout: Duration,
    /// The folder of this machine that stands for [`PLACE`] in the command.
    pub folder: Option<Folder>,
    /// Where programs find a folder to work on files in.
    pub files: Option<String>,
}

impl Side {
    /// Runs the tester with `options` and waits for its end.
    ///
    /// # Errors
    ///
    /// Only if the command cannot be started or read from; a failing tester is
    /// an answer.
    pub fn run(&self, options: &[String]) -> Result<Answer, SideError> {
        self.folder.as_ref().map_or(Ok(()), Folder::clear)?;
        let words = self.words(options);
        let command = words.join(" ");
        let start = |source| SideError::Start { command: command.clone(), source };
        let read = |source| SideError::Read { command: command.clone(), source };
        let (first, rest) = words
            .split_first()
            .ok_or_else(|| start(io::Error::from(io::ErrorKind::InvalidInput)))?;

        let mut child = Command::new(first)
            .args(rest)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        let output = read_in_background(child.stdout.take());
        let errors = read_in_background(child.stderr.take());
        let ending = self.wait(&mut child).map_err(read)?;
        let files = self.folder.as_ref().map(Folder::listing).transpose()?;
        Ok(Answer {
            files,
            output: finish_reading(output).map_err(read)?,
            errors: finish_reading(errors).map_err(read)?,
            ending,
        })
    }

    /// The command line for `options`, as words.
    #[must_use]
    pub fn words(&self, options: &[String]) -> Vec<String> {
        let mut words: Vec<String> =
            self.prefix.iter().map(|word| self.with_folder(word)).collect();
        words.push(self.program.display().to_string());
        words.extend(options.iter().chain(&self.extra).cloned());
        if let Some(folder) = &self.files {
            words.extend(["--files".to_owned(), folder.clone()]);
        }
        words
    }

    /// A word of the command, with the folder's path where [`PLACE`] is.
    fn with_folder(&self, word: &str) -> String {
        let path = self.folder.as_ref().map(|folder| folder.path().display().to_string());
        path.map_or_else(|| word.to_owned(), |path| word.replace(PLACE, &path))
    }

    fn wait(&self, child: &mut Child) -> io::Result<Ending> {
        let deadline = Instant::now() + self.timeout;
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Ending::Exited(status.code()));
            }
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                return Ok(Ending::TimedOut);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

type Reading = thread::JoinHandle<io::Result<Vec<u8>>>;

/// Reads a pipe on a thread of its own, so that none of the two fills up.
fn read_in_background(pipe: Option<impl Read + Send + 'static>) -> Reading {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

fn finish_reading(reading: Reading) -> io::Result<String> {
    let bytes = reading.join().map_err(|_| io::Error::other("the reading thread panicked"))??;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

//! Answers that take long to find or are long themselves: made by a thread of
//! their own and then handed to the client piece by piece.
//!
//! At most [`MOST`] are made or kept at once, so that clients who ask for much
//! and read little do not fill the memory.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use pagelab_abi::addr::GuestPhys;
use serde::Serialize;
use vmm_sys_util::eventfd::EventFd;

use super::answer::{Answer, Format, Rows, Step};
use super::lab::Lab;
use super::protocol::CommandError;
use crate::inspect::kernel::{Kernel, KernelError};
use crate::memory::GuestRam;

/// How many reports there can be at once.
pub const MOST: usize = 8;
/// How much of a report is handed over at a time.
const PIECE: usize = 8 << 10;

/// What a report is made from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The guest's memory.
    pub ram: Arc<GuestRam>,
    /// Where its kernel publishes its structures.
    pub directory: Option<GuestPhys>,
}

impl Source {
    /// The guest's kernel.
    ///
    /// # Errors
    ///
    /// If it publishes nothing.
    pub fn kernel(&self) -> Result<Kernel<'_, GuestRam>, CommandError> {
        Kernel::new(&*self.ram, self.directory).map_err(kernel_error)
    }
}

/// Why the guest's structures cannot be read, in the port's terms.
pub fn kernel_error(error: KernelError) -> CommandError {
    let code = match error {
        KernelError::NotPublished => CommandError::STATE,
        KernelError::NoProcess(_) | KernelError::NoFrame(_) => CommandError::PARAMETERS,
        _ => CommandError::FAILED,
    };
    CommandError::new(code, error.to_string())
}

/// How many reports there are.
#[derive(Clone, Debug, Default)]
pub struct Desk(Arc<AtomicUsize>);

/// One of the places for reports.
struct Place(Desk);

impl Desk {
    fn take_place(&self) -> Option<Place> {
        let before = self.0.fetch_add(1, Ordering::SeqCst);
        let place = Place(self.clone());
        (before < MOST).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A form that a report has besides text and JSON.
pub type OtherForm<T> = fn(&T, Format) -> Option<String>;

/// No other form.
pub fn no_other<T>(_: &T, _: Format) -> Option<String> {
    None
}

/// An answer that `make` makes, in a thread of its own.
///
/// # Errors
///
/// If there are too many already.
pub fn report<T: Serialize + Display + 'static>(
    lab: &Lab,
    format: Format,
    other: OtherForm<T>,
    make: impl FnOnce(&Source) -> Result<T, CommandError> + Send + 'static,
) -> Result<Answer, CommandError> {
    let failed = |error: io::Error| CommandError::failed(format!("cannot make a report: {error}"));
    let place = lab.desk.take_place().ok_or_else(|| {
        CommandError::failed(format!("{MOST} long answers are being made already: try again"))
    })?;
    let source = Source { ram: Arc::clone(&lab.ram), directory: lab.shared.directory() };
    let done = Announcement(lab.control.announcements().try_clone().map_err(failed)?);
    let (sender, receiver) = mpsc::sync_channel(1);
    let work = move || {
        let text = make(&source).and_then(|report| write(&report, format, other));
        // The client may be gone.
        let _ = sender.send(text);
        drop(done);
    };
    thread::Builder::new().name("debug-report".to_owned()).spawn(work).map_err(failed)?;
    let rows = Pieces { receiver, text: None, written: 0, _place: place };
    Ok(Answer { report: true, ..Answer::default() }.with_rows(rows))
}

fn write<T: Serialize + Display>(
    report: &T,
    format: Format,
    other: OtherForm<T>,
) -> Result<String, CommandError> {
    match format {
        Format::Text => {
            let mut text = report.to_string();
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            Ok(text)
        }
        Format::Json => serde_json::to_string(report)
            .map_err(|error| CommandError::failed(format!("the report is no JSON: {error}"))),
        Format::Csv | Format::Dot => other(report, format).ok_or_else(|| {
            CommandError::parameters("this answer has no such format: text and json it has")
        }),
    }
}

/// Wakes the port's thread when it is dropped.
struct Announcement(EventFd);

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Err(error) = self.0.write(1) {
            log::debug!("cannot announce a report: {error}");
        }
    }
}

/// A report that is handed over.
struct Pieces {
    receiver: Receiver<Result<String, CommandError>>,
    text: Option<String>,
    written: usize,
    _place: Place,
}

impl Rows for Pieces {
    fn next(&mut self, _lab: &mut Lab, out: &mut String) -> Step {
        let Some(text) = &self.text else {
            return match self.receiver.try_recv() {
                Ok(Ok(text)) => {
                    self.text = Some(text);
                    Step::Working
                }
                Ok(Err(error)) => Step::Failed(error),
                Err(TryRecvError::Empty) => Step::Blocked,
                Err(TryRecvError::Disconnected) => {
                    Step::Failed(CommandError::failed("the report could not be made"))
                }
            };
        };
        if self.written == text.len() {
            return Step::Done;
        }
        let mut end = text.len().min(self.written + PIECE);
        while !text.is_char_boundary(end) {
            end += 1;
        }
        out.push_str(&text[self.written..end]);
        self.written = end;
        Step::Part
    }
}

//! Processes, their areas, and what frames are used for.

use serde_json::json;

use crate::debug::answer::{Answer, Format};
use crate::debug::arguments::Arguments;
use crate::debug::lab::Lab;
use crate::debug::protocol::CommandError;
use crate::debug::report::{kernel_error, no_other, report};
use crate::inspect::maps;

type Result = std::result::Result<Answer, CommandError>;

fn needed_pid(arguments: &Arguments) -> std::result::Result<u32, CommandError> {
    arguments.pid()?.ok_or_else(|| CommandError::parameters("‘pid’ is missing"))
}

/// `ps`.
pub fn ps(lab: &mut Lab, _arguments: &Arguments, format: Format) -> Result {
    report(lab, format, no_other, |source| source.kernel()?.processes().map_err(kernel_error))
}

/// `maps`.
pub fn maps(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let pid = needed_pid(arguments)?;
    report(lab, format, no_other, move |source| {
        let kernel = source.kernel()?;
        let process = kernel.process(pid).map_err(kernel_error)?;
        maps::maps(&kernel, &process).map_err(kernel_error)
    })
}

/// `smaps`.
pub fn smaps(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let pid = needed_pid(arguments)?;
    report(lab, format, no_other, move |source| {
        let kernel = source.kernel()?;
        let process = kernel.process(pid).map_err(kernel_error)?;
        maps::smaps(&kernel, &process).map_err(kernel_error)
    })
}

/// `frames`.
pub fn frames(lab: &mut Lab, _arguments: &Arguments, format: Format) -> Result {
    report(lab, format, no_other, |source| source.kernel()?.frames().map_err(kernel_error))
}

/// `frame`.
pub fn frame(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let number = arguments.number("number").unwrap_or(0);
    let kernel = arguments.flag("kernel");
    report(lab, format, no_other, move |source| {
        source.kernel()?.mappers(number, kernel).map_err(kernel_error)
    })
}

/// `current`: the process that runs.
pub fn current(lab: &mut Lab, _arguments: &Arguments, _format: Format) -> Result {
    let (pid, thread) = lab.source().kernel()?.current().map_err(kernel_error)?;
    let text = format!("process {pid}, thread {thread}\n");
    Ok(Answer::new(json!({ "pid": pid, "thread": thread }), text))
}

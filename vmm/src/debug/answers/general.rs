//! Help, versions, status, metrics.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::debug::answer::{Answer, Effect, Format, Listed};
use crate::debug::arguments::{Arguments, COMMON, Parameter};
use crate::debug::commands::{self, COMMANDS, Command};
use crate::debug::lab::{Lab, describe};
use crate::debug::metrics;
use crate::debug::protocol::{self, CommandError};
use crate::machine::observer::Recording;

type Result = std::result::Result<Answer, CommandError>;

/// `help`.
pub fn help(_lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let Some(name) = arguments.text("command") else {
        let text = "commands, with parameters in brackets where they can be left out; each also takes\n\
                    format text|json|csv|dot; a line of JSON-RPC 2.0 is answered in JSON\n";
        let rows = COMMANDS.iter().map(|command| {
            (describe_command(command), help_line(&command.usage(), command.summary))
        });
        let fields = json!({ "protocol": protocol::VERSION });
        return Ok(Answer::new(fields, text).with_rows(Listed::new(format, rows.collect())));
    };
    let command = commands::find(name)
        .ok_or_else(|| CommandError::parameters(format!("there is no command ‘{name}’")))?;
    let mut text = format!("{}: {}\n", command.usage(), command.summary);
    for parameter in command.parameters.iter().chain(&COMMON) {
        let _ = writeln!(text, "  {:<12} {}", parameter.name, parameter.help);
    }
    let _ = writeln!(text, "example: {}", command.example);
    Ok(Answer::new(describe_command(command), text))
}

/// A command in the list: what it does stands in a column of its own, below a
/// usage that is too long for that.
fn help_line(usage: &str, summary: &str) -> String {
    const COLUMN: usize = 34;
    if usage.chars().count() < COLUMN {
        format!("  {usage:<COLUMN$} {summary}")
    } else {
        format!("  {usage}\n  {:<COLUMN$} {summary}", "")
    }
}

fn describe_command(command: &Command) -> Value {
    let parameter = |parameter: &Parameter| {
        json!({
            "name": parameter.name, "type": format!("{:?}", parameter.kind),
            "required": parameter.required, "help": parameter.help,
        })
    };
    let parameters: Vec<Value> = command.parameters.iter().chain(&COMMON).map(parameter).collect();
    json!({
        "name": command.name, "summary": command.summary, "usage": command.usage(),
        "parameters": parameters, "example": command.example,
    })
}

/// `version`.
pub fn version(_lab: &mut Lab, _arguments: &Arguments, _format: Format) -> Result {
    let pagelab = env!("CARGO_PKG_VERSION");
    let (protocol, abi) = (protocol::VERSION, pagelab_abi::VERSION);
    Ok(Answer::new(
        json!({ "pagelab": pagelab, "protocol": protocol, "abi": abi }),
        format!("pagelab {pagelab}, debug protocol {protocol}, guest ABI {abi}\n"),
    ))
}

/// `status`.
pub fn status(lab: &mut Lab, _arguments: &Arguments, _format: Format) -> Result {
    let (mut value, state) = describe(lab.control.activity());
    let recording = match lab.events.recording() {
        Recording::Off => "off",
        Recording::On => "on",
        Recording::Lossless => "lossless",
    };
    let kept = lab.history.end();
    let lost = lab.history.lost();
    let seconds = lab.began.elapsed().as_secs_f64();
    value["recording"] = recording.into();
    value["events_kept"] = kept.into();
    value["events_lost"] = lost.into();
    value["clients"] = lab.clients.0.into();
    value["watchers"] = lab.watchers.into();
    value["seconds"] = seconds.into();
    value["memory_bytes"] = lab.ram.size().bytes().into();
    let text = format!(
        "{state}\nevents: recording is {recording}; {kept} kept, {lost} lost\n\
         {} clients, {} of them watching; {seconds:.1} s since the start\n",
        lab.clients.0, lab.watchers
    );
    Ok(Answer::new(value, text))
}

/// `kvm`.
pub fn kvm(lab: &mut Lab, _arguments: &Arguments, format: Format) -> Result {
    let statistics = lab
        .statistics
        .as_ref()
        .ok_or_else(|| CommandError::failed("this host's KVM gives out no statistics"))?;
    let snapshot = statistics.read().map_err(|error| CommandError::failed(error.to_string()))?;
    let row = |(name, value): (&str, u64)| {
        (json!({ "name": name, "value": value }), format!("{value:>14}  {name}"))
    };
    let rows = snapshot.iter().map(row).collect();
    Ok(Answer::default().with_rows(Listed::new(format, rows)))
}

/// `metrics`.
pub fn metrics(lab: &mut Lab, _arguments: &Arguments, _format: Format) -> Result {
    let text = metrics::render(lab);
    Ok(Answer::new(json!({ "text": text }), text))
}

/// `auth`, where no token is needed (any more).
pub fn auth(_lab: &mut Lab, _arguments: &Arguments, _format: Format) -> Result {
    Ok(Answer::default())
}

/// `quit`.
pub fn quit(_lab: &mut Lab, _arguments: &Arguments, _format: Format) -> Result {
    Ok(Answer { effect: Effect::Quit, ..Answer::default() })
}

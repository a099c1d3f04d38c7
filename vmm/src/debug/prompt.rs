//! The prompt of `pagelab debug`: history, completion, and scripts on standard
//! input.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Context, Editor, Helper, Highlighter, Hinter, Validator};

use super::arguments::{COMMON, Kind, Parameter};
use super::client::{Client, ClientError};
use super::commands::{self, COMMANDS};
use pagelab_abi::fault::FaultKind;

/// Why there is no prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The terminal.
    #[error("the terminal cannot be read: {0}")]
    Terminal(#[from] ReadlineError),
    /// Standard input.
    #[error("standard input cannot be read: {0}")]
    Input(#[from] io::Error),
    /// The lab.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Reads commands until there are no more; whether all went well.
///
/// # Errors
///
/// If nothing can be read, or if the lab is gone.
pub fn run(client: &mut Client) -> Result<bool, PromptError> {
    if io::stdin().is_terminal() { interactive(client) } else { script(client) }
}

fn script(client: &mut Client) -> Result<bool, PromptError> {
    let mut all_good = true;
    for line in io::stdin().lock().lines() {
        all_good &= carry_out(client, &line?)?;
    }
    Ok(all_good)
}

/// Carries a line out; whether that went well. What is wrong with it is said.
fn carry_out(client: &mut Client, line: &str) -> Result<bool, PromptError> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(true);
    }
    let words = match super::protocol::split_words(line) {
        Ok(words) => words,
        Err(error) => {
            eprintln!("{error}");
            return Ok(false);
        }
    };
    match client.run(&words) {
        Ok(()) => Ok(true),
        Err(ClientError::Connection(error)) if error.kind() == io::ErrorKind::Interrupted => {
            Err(ClientError::Ended.into())
        }
        Err(error @ (ClientError::Refused(_) | ClientError::File { .. })) => {
            eprintln!("{error}");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn interactive(client: &mut Client) -> Result<bool, PromptError> {
    client.keep_interrupts();
    let config =
        Config::builder().completion_type(CompletionType::List).auto_add_history(true).build();
    let mut editor: Editor<Words, DefaultHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(Words));
    let history = history_file();
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    println!("help lists the commands, Ctrl-D leaves; the lab goes on");
    let end = loop {
        match editor.readline("pagelab> ") {
            Ok(line) if matches!(line.trim(), "quit" | "exit") => break Ok(()),
            Ok(line) => {
                if let Err(error) = carry_out(client, &line) {
                    break Err(error);
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    if let Some(file) = &history
        && let Err(error) = editor.save_history(file)
    {
        log::debug!("the history is not kept: {error}");
    }
    match end {
        // The lab is over: no failure of whoever was looking at it.
        Err(PromptError::Client(ClientError::Ended)) => {
            println!("the lab has ended");
            Ok(true)
        }
        end => end.map(|()| true),
    }
}

/// Where the history is kept, if there is a folder for such things.
fn history_file() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    folder.is_dir().then(|| folder.join("pagelab-debug-history"))
}

/// Completes names of commands and of what they take.
#[derive(Helper, Highlighter, Hinter, Validator)]
struct Words;

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(line.get(..position).unwrap_or(line)))
    }
}

/// Where the word begins that the line ends with, and what it may become.
fn complete(line: &str) -> (usize, Vec<String>) {
    let start = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let (before, word) = line.split_at(start);
    let mut earlier = before.split_whitespace();
    let names: Vec<&str> = match earlier.next() {
        None => COMMANDS.iter().map(|command| command.name).collect(),
        Some("help") => COMMANDS.iter().map(|command| command.name).collect(),
        Some(name) => parameter_words(name, earlier.next_back()),
    };
    // Of kinds joined by commas, the last is completed.
    let last = word.rfind(',').map_or(0, |at| at + 1);
    let begun = &word[last..];
    let matching = names.into_iter().filter(|name| name.starts_with(begun));
    (start + last, matching.map(str::to_owned).collect())
}

/// What may stand in the place behind `previous`.
fn parameter_words(command: &str, previous: Option<&str>) -> Vec<&'static str> {
    let Some(command) = commands::find(command) else { return Vec::new() };
    let parameters = || command.parameters.iter().chain(&COMMON);
    let named =
        parameters().find(|parameter| Some(parameter.name) == previous && parameter.keyword);
    if let Some(parameter) = named {
        return values(parameter);
    }
    parameters()
        .flat_map(|parameter| match parameter.kind {
            _ if parameter.keyword => vec![parameter.name],
            Kind::Flag => vec![parameter.name],
            _ => values(parameter),
        })
        .collect()
}

fn values(parameter: &Parameter) -> Vec<&'static str> {
    match parameter.kind {
        Kind::Choice(words) => words.to_vec(),
        Kind::FaultKinds => FaultKind::ALL.into_iter().map(FaultKind::name).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_parameters_and_values_are_completed() {
        let one = |line: &str| {
            let (start, words) = complete(line);
            assert_eq!(words.len(), 1, "{line}: {words:?}");
            format!("{}{}", &line[..start], words[0])
        };
        assert_eq!(one("sta"), "status");
        assert_eq!(one("help unw"), "help unwatch");
        assert_eq!(one("faults si"), "faults since");
        assert_eq!(one("record lo"), "record lossless");
        assert_eq!(one("watch kind cow_c"), "watch kind cow_copy");
        assert_eq!(one("watch kind spurious,cow_r"), "watch kind spurious,cow_reuse");
        assert_eq!(one("faults format c"), "faults format csv");
        assert_eq!(complete("").1.len(), COMMANDS.len());
        assert!(complete("nothing x").1.is_empty());
    }
}

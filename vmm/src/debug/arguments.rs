//! The parameters of a command, checked against what the command takes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::answer::Format;
use super::filter::{kind_by_name, kind_names};
use super::protocol::{CommandError, Parameters};

/// What a parameter may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number: decimal, or hexadecimal with `0x`.
    Number,
    /// A text.
    Text,
    /// There or not.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Kinds of page fault, joined by commas.
    FaultKinds,
    /// Addresses: `START..END` or `START+LENGTH`.
    Range,
}

/// A parameter of a command.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
    /// Whether a plain command names it: `since MARK`. Others are given in
    /// order.
    pub keyword: bool,
    /// What it is for.
    pub help: &'static str,
}

impl Parameter {
    /// How it is shown: `PID`, `[since TEXT]`.
    #[must_use]
    pub fn usage(&self) -> String {
        let upper = self.name.to_uppercase();
        let shown = match self.kind {
            Kind::Flag => self.name.to_owned(),
            Kind::Choice(words) if self.keyword => format!("{} {}", self.name, words.join("|")),
            Kind::Choice(words) => words.join("|"),
            _ if self.keyword => format!("{} {}", self.name, placeholder(self.kind)),
            _ => upper,
        };
        if self.required { shown } else { format!("[{shown}]") }
    }
}

const fn placeholder(kind: Kind) -> &'static str {
    match kind {
        Kind::Number => "N",
        Kind::FaultKinds => "KIND,…",
        Kind::Range => "START..END",
        _ => "NAME",
    }
}

/// Taken by every command.
pub const COMMON: [Parameter; 1] = [Parameter {
    name: "format",
    kind: Kind::Choice(&["text", "json", "csv", "dot"]),
    required: false,
    keyword: true,
    help: "how the answer is written",
}];

/// A checked value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Checked {
    Number(u64),
    Text(String),
    Flag,
    Kinds(u32),
    Range(u64, u64),
}

/// Checked parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments(BTreeMap<&'static str, Checked>);

impl Arguments {
    /// Checks `given` against the parameters that a command takes.
    ///
    /// # Errors
    ///
    /// What is wrong, for people.
    pub fn check(given: Parameters, taken: &'static [Parameter]) -> Result<Self, CommandError> {
        let mut arguments = Self::default();
        match given {
            Parameters::Words(words) => arguments.take_words(words, taken)?,
            Parameters::List(list) => {
                if list.len() > taken.len() {
                    return Err(too_many());
                }
                for (value, parameter) in list.into_iter().zip(taken) {
                    arguments.take_json(parameter, value)?;
                }
            }
            Parameters::Named(named) => {
                for (name, value) in named {
                    let parameter = find(taken, &name).ok_or_else(|| {
                        CommandError::parameters(format!("there is no parameter ‘{name}’"))
                    })?;
                    arguments.take_json(parameter, value)?;
                }
            }
        }
        for parameter in taken.iter().filter(|parameter| parameter.required) {
            if !arguments.0.contains_key(parameter.name) {
                let message = format!("‘{}’ is missing: {}", parameter.name, parameter.help);
                return Err(CommandError::parameters(message));
            }
        }
        Ok(arguments)
    }

    fn take_words(
        &mut self,
        words: Vec<String>,
        taken: &'static [Parameter],
    ) -> Result<(), CommandError> {
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let named =
                word.split_once('=').and_then(|(name, value)| Some((find(taken, name)?, value)));
            if let Some((parameter, value)) = named {
                self.take_word(parameter, value)?;
                continue;
            }
            match find(taken, &word) {
                Some(flag) if flag.kind == Kind::Flag => self.insert(flag, Checked::Flag)?,
                // A text may be any word, also the name of a parameter.
                Some(parameter) if parameter.keyword || parameter.kind != Kind::Text => {
                    let value = words.next().ok_or_else(|| {
                        CommandError::parameters(format!("what comes behind ‘{word}’ is missing"))
                    })?;
                    self.take_word(parameter, &value)?;
                }
                _ => {
                    let mut positional = taken
                        .iter()
                        .filter(|parameter| !parameter.keyword && parameter.kind != Kind::Flag);
                    let next = positional.find(|parameter| !self.0.contains_key(parameter.name));
                    self.take_word(next.ok_or_else(too_many)?, &word)?;
                }
            }
        }
        Ok(())
    }

    fn take_word(&mut self, parameter: &Parameter, word: &str) -> Result<(), CommandError> {
        let value = check_text(parameter, word)?;
        self.insert_checked(parameter.name_static(), value)
    }

    fn take_json(&mut self, parameter: &Parameter, value: Value) -> Result<(), CommandError> {
        let wrong = || {
            CommandError::parameters(format!("‘{}’: {}", parameter.name, expected(parameter.kind)))
        };
        let checked = match (parameter.kind, value) {
            (_, Value::Null) | (Kind::Flag, Value::Bool(false)) => return Ok(()),
            (Kind::Flag, Value::Bool(true)) => Checked::Flag,
            (Kind::Number, Value::Number(number)) => {
                Checked::Number(number.as_u64().ok_or_else(wrong)?)
            }
            (Kind::FaultKinds, Value::Array(names)) => {
                let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
                check_text(parameter, &names.ok_or_else(wrong)?.join(","))?
            }
            (Kind::Range, Value::Array(ends)) => match ends.as_slice() {
                [start, end] => {
                    let text = |value: &Value| {
                        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
                    };
                    check_text(parameter, &format!("{}..{}", text(start), text(end)))?
                }
                _ => return Err(wrong()),
            },
            (Kind::Flag, _) => return Err(wrong()),
            (_, Value::String(text)) => check_text(parameter, &text)?,
            // `mark 1` and `"mark": 1` name the same.
            (Kind::Text, Value::Number(number)) => Checked::Text(number.to_string()),
            _ => return Err(wrong()),
        };
        self.insert_checked(parameter.name_static(), checked)
    }

    fn insert(&mut self, parameter: &Parameter, value: Checked) -> Result<(), CommandError> {
        self.insert_checked(parameter.name_static(), value)
    }

    fn insert_checked(&mut self, name: &'static str, value: Checked) -> Result<(), CommandError> {
        match self.0.insert(name, value) {
            None => Ok(()),
            Some(_) => Err(CommandError::parameters(format!("‘{name}’ is there twice"))),
        }
    }

    /// As JSON-RPC's named parameters.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let value = |checked: &Checked| match checked {
            Checked::Number(number) => Value::from(*number),
            Checked::Text(text) => Value::from(text.as_str()),
            Checked::Flag => Value::from(true),
            Checked::Kinds(kinds) => kind_names(*kinds).into(),
            Checked::Range(start, end) => Value::from(vec![*start, *end]),
        };
        self.0.iter().map(|(name, checked)| ((*name).to_owned(), value(checked))).collect()
    }

    /// A number, if it was given.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name) {
            Some(Checked::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// A process's number, if it was given.
    ///
    /// # Errors
    ///
    /// If no process can have it.
    pub fn pid(&self) -> Result<Option<u32>, CommandError> {
        let convert = |number| {
            u32::try_from(number).map_err(|_| {
                CommandError::parameters(format!("no process has the number {number}"))
            })
        };
        self.number("pid").map(convert).transpose()
    }

    /// A number that counts something, at most `most`.
    ///
    /// # Errors
    ///
    /// If it is more.
    pub fn count(&self, name: &str, default: usize, most: usize) -> Result<usize, CommandError> {
        let Some(number) = self.number(name) else { return Ok(default) };
        usize::try_from(number).ok().filter(|count| *count <= most).ok_or_else(|| {
            CommandError::parameters(format!("‘{name}’ is {number}; at most {most} is possible"))
        })
    }

    /// A text, if it was given.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Checked::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether a flag was given.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Fault kinds, a bit each, if they were given.
    #[must_use]
    pub fn kinds(&self, name: &str) -> Option<u32> {
        match self.0.get(name) {
            Some(Checked::Kinds(kinds)) => Some(*kinds),
            _ => None,
        }
    }

    /// Addresses, if they were given.
    #[must_use]
    pub fn range(&self, name: &str) -> Option<std::ops::Range<u64>> {
        match self.0.get(name) {
            Some(Checked::Range(start, end)) => Some(*start..*end),
            _ => None,
        }
    }

    /// How the answer is to be written.
    #[must_use]
    pub fn format(&self, default: Format) -> Format {
        self.text("format").and_then(Format::by_name).unwrap_or(default)
    }
}

impl Parameter {
    const fn name_static(&self) -> &'static str {
        self.name
    }
}

fn find(taken: &'static [Parameter], name: &str) -> Option<&'static Parameter> {
    taken.iter().chain(&COMMON).find(|parameter| parameter.name == name)
}

fn too_many() -> CommandError {
    CommandError::parameters("there are more parameters than the command takes")
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::Number => "a number is expected, decimal or with 0x".to_owned(),
        Kind::Text => "a text is expected".to_owned(),
        Kind::Flag => "true or false is expected".to_owned(),
        Kind::Choice(words) => format!("one of {} is expected", words.join(", ")),
        Kind::FaultKinds => {
            "kinds of page fault are expected, as in cow_copy,demand_zero".to_owned()
        }
        Kind::Range => "addresses are expected: START..END or START+LENGTH".to_owned(),
    }
}

fn check_text(parameter: &Parameter, text: &str) -> Result<Checked, CommandError> {
    let wrong = || {
        CommandError::parameters(format!(
            "‘{}’ is ‘{text}’: {}",
            parameter.name,
            expected(parameter.kind)
        ))
    };
    Ok(match parameter.kind {
        Kind::Number => Checked::Number(number(text).ok_or_else(wrong)?),
        Kind::Text => Checked::Text(text.to_owned()),
        Kind::Flag if matches!(text, "true" | "yes" | "1") => Checked::Flag,
        Kind::Flag => return Err(wrong()),
        Kind::Choice(words) if words.contains(&text) => Checked::Text(text.to_owned()),
        Kind::Choice(_) => return Err(wrong()),
        Kind::FaultKinds => {
            let kinds = text.split(',').map(|name| kind_by_name(name).map(|kind| 1 << kind as u32));
            let kinds = kinds.collect::<Option<Vec<u32>>>().ok_or_else(wrong)?;
            Checked::Kinds(kinds.into_iter().fold(0, |all, kind| all | kind))
        }
        Kind::Range => {
            let (start, end) = range(text).ok_or_else(wrong)?;
            Checked::Range(start, end)
        }
    })
}

/// A number: decimal, or hexadecimal with `0x`; `_` may part its digits.
fn number(text: &str) -> Option<u64> {
    let digits = text.replace('_', "");
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => digits.parse().ok(),
    }
}

fn range(text: &str) -> Option<(u64, u64)> {
    let ends = if let Some((start, end)) = text.split_once("..") {
        (number(start)?, number(end)?)
    } else {
        let (start, length) = text.split_once('+')?;
        let start = number(start)?;
        (start, start.checked_add(number(length)?)?)
    };
    (ends.0 < ends.1).then_some(ends)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const fn parameter(name: &'static str, kind: Kind, required: bool, keyword: bool) -> Parameter {
        Parameter { name, kind, required, keyword, help: "for tests" }
    }

    const TAKEN: &[Parameter] = &[
        parameter("address", Kind::Number, true, false),
        parameter("length", Kind::Number, false, false),
        parameter("since", Kind::Text, false, true),
        parameter("physical", Kind::Flag, false, false),
        parameter("kind", Kind::FaultKinds, false, true),
        parameter("range", Kind::Range, false, true),
        parameter("way", Kind::Choice(&["up", "down"]), false, true),
    ];

    fn plain(text: &str) -> Result<Arguments, CommandError> {
        let words = text.split_whitespace().map(str::to_owned).collect();
        Arguments::check(Parameters::Words(words), TAKEN)
    }

    fn named(value: Value) -> Result<Arguments, CommandError> {
        let Value::Object(named) = value else { panic!() };
        Arguments::check(Parameters::Named(named), TAKEN)
    }

    #[test]
    fn words_and_json_come_to_the_same() {
        let words =
            plain("0x1_000 physical since x 16 kind cow_copy,spurious range 0x10+0x10 way=up")
                .unwrap();
        let json = named(json!({
            "address": "0x1000", "length": 16, "physical": true, "since": "x",
            "kind": ["cow_copy", "spurious"], "range": [16, "0x20"], "way": "up",
        }));
        assert_eq!(words, json.unwrap());
        assert_eq!(words, named(words.to_json()).unwrap());
        assert_eq!(words.number("address"), Some(0x1000));
        assert_eq!(words.kinds("kind"), Some(1 << 3 | 1 << 8));
        assert_eq!(words.range("range"), Some(16..32));
        let list = Parameters::List(vec![json!(4096), json!(16)]);
        assert_eq!(Arguments::check(list, TAKEN).unwrap().number("length"), Some(16));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let refused = |text: &str, part: &str| {
            let message = plain(text).unwrap_err().message;
            assert!(message.contains(part), "{message}");
        };
        refused("", "‘address’ is missing");
        refused("x", "a number is expected");
        refused("-1", "a number is expected");
        refused("1 2 3", "more parameters");
        refused("1 address=2", "twice");
        refused("1 since", "is missing");
        refused("1 way left", "one of up, down");
        refused("1 kind wrong", "kinds of page fault");
        refused("1 range 5..5", "addresses are expected");
        refused("1 range 0xffffffffffffffff+2", "addresses are expected");
        assert!(named(json!({"address": -1})).is_err());
        assert!(named(json!({"address": 1, "physical": 1})).is_err());
        assert!(
            named(json!({"address": 1, "else": 1}))
                .unwrap_err()
                .message
                .contains("no parameter ‘else’")
        );
        assert!(named(json!({"address": 1, "range": [1]})).is_err());
        assert!(plain("1").unwrap().count("length", 7, 10).is_ok_and(|count| count == 7));
        assert!(plain("1 11").unwrap().count("length", 7, 10).is_err());
    }

    proptest! {
        #[test]
        fn any_words_are_taken_or_refused(words in prop::collection::vec("[a-z0-9x=.+,_-]{0,12}", 0..8)) {
            let _ = Arguments::check(Parameters::Words(words), TAKEN);
        }

        #[test]
        fn numbers_come_back(value in any::<u64>()) {
            prop_assert_eq!(number(&value.to_string()), Some(value));
            prop_assert_eq!(number(&format!("{value:#x}")), Some(value));
        }
    }
}

//! What a line from a client says: JSON-RPC 2.0, or a plain command.
//!
//! A line that begins with `{` or `[` is JSON-RPC, one call or a batch; any other
//! is a plain command: words, separated by blanks, with quotes where a word has
//! blanks itself. Nothing here knows which commands there are.

use serde_json::{Map, Value};

/// Longest line that is read.
pub const MAX_LINE: usize = 16 << 10;
/// Most calls in one batch.
pub const MAX_BATCH: usize = 64;
/// Version of the protocol: changed when something is removed or gets another
/// meaning, not when something is added.
pub const VERSION: u32 = 1;

/// What went wrong, in JSON-RPC's terms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// JSON-RPC's number.
    pub code: i32,
    /// What to tell people.
    pub message: String,
}

impl CommandError {
    /// The line is not JSON.
    pub const PARSE: i32 = -32700;
    /// JSON, but no call.
    pub const INVALID: i32 = -32600;
    /// There is no such command.
    pub const UNKNOWN: i32 = -32601;
    /// The parameters are wrong.
    pub const PARAMETERS: i32 = -32602;
    /// The command failed.
    pub const FAILED: i32 = -32000;
    /// The command needs a paused guest, or a running one.
    pub const STATE: i32 = -32001;

    /// An error with a code.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Wrong parameters.
    pub fn parameters(message: impl Into<String>) -> Self {
        Self::new(Self::PARAMETERS, message)
    }

    /// The command failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Self::FAILED, message)
    }
}

/// The parameters as they came.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameters {
    /// Of a plain command.
    Words(Vec<String>),
    /// By position.
    List(Vec<Value>),
    /// By name.
    Named(Map<String, Value>),
}

/// A command that is to be carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// JSON-RPC's id; none for a notification, which gets no answer.
    pub id: Option<Value>,
    /// The command's name.
    pub method: String,
    /// Its parameters.
    pub parameters: Parameters,
}

/// A call, or what is wrong with it and the id to say so to.
pub type Parsed = Result<Call, (Value, CommandError)>;

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// Nothing but blanks, or a comment.
    Empty,
    /// A plain command, answered in text.
    Plain(Result<Call, CommandError>),
    /// One call.
    Json(Parsed),
    /// Several calls, answered together.
    Batch(Vec<Parsed>),
}

/// Takes a line, without its end, apart.
#[must_use]
pub fn parse(line: &[u8]) -> Line {
    let line = line.trim_ascii();
    match line.first() {
        None | Some(b'#') => Line::Empty,
        Some(b'{' | b'[') => parse_json(line),
        Some(_) => Line::Plain(parse_plain(line)),
    }
}

fn parse_json(line: &[u8]) -> Line {
    match serde_json::from_slice(line) {
        Err(error) => {
            let message = format!("this is not JSON: {error}");
            Line::Json(Err((Value::Null, CommandError::new(CommandError::PARSE, message))))
        }
        Ok(Value::Array(calls)) if calls.is_empty() => {
            Line::Json(invalid(Value::Null, "a batch of no calls"))
        }
        Ok(Value::Array(calls)) if calls.len() > MAX_BATCH => {
            Line::Json(invalid(Value::Null, &format!("a batch of more than {MAX_BATCH} calls")))
        }
        Ok(Value::Array(calls)) => Line::Batch(calls.into_iter().map(parse_call).collect()),
        Ok(call) => Line::Json(parse_call(call)),
    }
}

fn invalid(id: Value, what: &str) -> Parsed {
    Err((
        id,
        CommandError::new(CommandError::INVALID, format!("this is no JSON-RPC 2.0 call: {what}")),
    ))
}

fn parse_call(call: Value) -> Parsed {
    let Value::Object(mut call) = call else {
        return invalid(Value::Null, "it is not an object");
    };
    let id = call.remove("id");
    match id {
        None | Some(Value::Null | Value::String(_) | Value::Number(_)) => {}
        Some(_) => return invalid(Value::Null, "its id is neither a string nor a number"),
    }
    let answer_to = || id.clone().unwrap_or(Value::Null);
    if call.get("jsonrpc") != Some(&Value::from("2.0")) {
        return invalid(answer_to(), "its ‘jsonrpc’ is not \"2.0\"");
    }
    let Some(Value::String(method)) = call.remove("method") else {
        return invalid(answer_to(), "its ‘method’ is not a string");
    };
    let parameters = match call.remove("params") {
        None => Parameters::Named(Map::new()),
        Some(Value::Array(list)) => Parameters::List(list),
        Some(Value::Object(named)) => Parameters::Named(named),
        Some(_) => return invalid(answer_to(), "its ‘params’ are neither an array nor an object"),
    };
    Ok(Call { id, method, parameters })
}

fn parse_plain(line: &[u8]) -> Result<Call, CommandError> {
    let text = str::from_utf8(line)
        .map_err(|_| CommandError::new(CommandError::PARSE, "a command is UTF-8 text"))?;
    let mut words = split_words(text)?;
    if words.is_empty() {
        return Err(CommandError::new(CommandError::INVALID, "the command is empty"));
    }
    let method = words.remove(0);
    Ok(Call { id: Some(Value::Null), method, parameters: Parameters::Words(words) })
}

/// Splits at blanks; `"…"` and `'…'` keep theirs.
///
/// # Errors
///
/// If a quote has no end.
pub fn split_words(text: &str) -> Result<Vec<String>, CommandError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in text.chars() {
        match quote {
            Some(end) if character == end => quote = None,
            Some(_) => word.get_or_insert_default().push(character),
            None if character == '"' || character == '\'' => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            None if character.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err(CommandError::new(CommandError::PARSE, "a quote has no end"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        split_words(text).unwrap()
    }

    #[test]
    fn plain_commands_are_words() {
        assert_eq!(parse(b"  "), Line::Empty);
        assert_eq!(parse(b"# a note"), Line::Empty);
        assert_eq!(words("faults 3  since 'a b'c \"\""), ["faults", "3", "since", "a bc", ""]);
        let Line::Plain(Ok(call)) = parse(b" mark x\r") else { panic!() };
        assert_eq!(
            (call.method.as_str(), &call.parameters),
            ("mark", &Parameters::Words(vec!["x".to_owned()]))
        );
        assert!(matches!(parse(b"mark 'x"), Line::Plain(Err(_))));
        assert!(matches!(parse(b"\xff\xfe"), Line::Plain(Err(_))));
    }

    #[test]
    fn calls_are_told_from_what_is_none() {
        let Line::Json(Ok(call)) = parse(br#"{"jsonrpc":"2.0","id":7,"method":"ps"}"#) else {
            panic!()
        };
        assert_eq!((call.id, call.method.as_str()), (Some(Value::from(7)), "ps"));
        let Line::Json(Ok(call)) = parse(br#"{"jsonrpc":"2.0","method":"ps"}"#) else { panic!() };
        assert_eq!(call.id, None);
        let code = |line: &[u8]| match parse(line) {
            Line::Json(Err((id, error))) => (id, error.code),
            other => panic!("{other:?}"),
        };
        assert_eq!(code(b"{"), (Value::Null, CommandError::PARSE));
        assert_eq!(code(b"[]"), (Value::Null, CommandError::INVALID));
        assert_eq!(code(br#"{"id":1,"method":"ps"}"#), (Value::from(1), CommandError::INVALID));
        assert_eq!(code(br#"{"jsonrpc":"2.0","id":{},"method":"ps"}"#).1, CommandError::INVALID);
        assert_eq!(code(br#"{"jsonrpc":"2.0","id":2,"method":3}"#).0, Value::from(2));
        assert_eq!(code(br#"{"jsonrpc":"2.0","id":2,"method":"a","params":3}"#).0, Value::from(2));
        let deep = [b'['; 4096];
        assert_eq!(code(&deep).1, CommandError::PARSE);
        let Line::Batch(calls) = parse(b"[1,{}]") else { panic!() };
        assert!(calls.len() == 2 && calls.iter().all(Result::is_err));
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_line(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&line);
        }

        #[test]
        fn any_json_is_answered_once(line in "[\\[{][\\[\\]{}\":,a-z0-9. -]{0,60}") {
            prop_assert!(matches!(parse(line.as_bytes()), Line::Json(_) | Line::Batch(_)));
        }

        #[test]
        fn quoting_keeps_every_word(list in prop::collection::vec("[a-z0-9 =\"]{0,8}", 1..6)) {
            let text: Vec<String> = list.iter().map(|word| format!("'{word}'")).collect();
            prop_assert_eq!(words(&text.join(" ")), list);
        }

        #[test]
        fn calls_come_back(id in any::<u32>(), method in "[a-z]{1,12}", words in prop::collection::vec("\\PC{0,10}", 0..4)) {
            let call = serde_json::json!({"jsonrpc": "2.0", "id": id, "method": method, "params": words});
            let Line::Json(Ok(parsed)) = parse(call.to_string().as_bytes()) else {
                return Err(TestCaseError::fail("no call"));
            };
            prop_assert_eq!(parsed.id, Some(Value::from(id)));
            prop_assert_eq!(parsed.method, method);
            prop_assert_eq!(parsed.parameters, Parameters::List(words.into_iter().map(Value::from).collect()));
        }
    }
}

//! Anything as lines from a client.
//!
//! No line may do more than be answered; and what a line means is the same when
//! it comes back as the JSON-RPC call that `pagelab debug --json` would make.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pagelab::debug::commands;
use pagelab::debug::http::Request;
use pagelab::debug::protocol::{self, Call, Line, Parameters, Parsed};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let mut request = Request::default();
    request.begin(data);
    for line in data.split(|&byte| byte == b'\n') {
        request.take_header(line);
        match protocol::parse(line) {
            Line::Empty | Line::Plain(Err(_)) => {}
            Line::Plain(Ok(call)) => understand(call),
            Line::Json(parsed) => answer(parsed),
            Line::Batch(calls) => calls.into_iter().for_each(answer),
        }
    }
});

fn answer(parsed: Parsed) {
    match parsed {
        Ok(call) => understand(call),
        Err((id, _)) => assert!(matches!(id, Value::Null | Value::String(_) | Value::Number(_))),
    }
}

fn understand(call: Call) {
    let Ok((command, arguments)) = commands::prepare(call) else { return };
    let Value::Object(named) = arguments.to_json() else { panic!("parameters have names") };
    let again =
        Call { id: None, method: command.name.to_owned(), parameters: Parameters::Named(named) };
    let Ok((same, repeated)) = commands::prepare(again) else {
        panic!("{arguments:?} of ‘{}’ is not understood again", command.name);
    };
    assert_eq!((same.name, repeated), (command.name, arguments));
}

//! The protocol: JSON and text, batches, streams, HTTP, tokens, the client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, Debugged, PATIENCE, PROGRAM};
use crate::common::programs::{self, ARENA};
use crate::common::{Lab, binary};

#[test]
fn every_command_says_what_it_takes_and_answers() {
    let (_lab, mut client) = Debugged::with_known_faults();
    client.call("pause", json!({}));
    client.call("mark", json!({ "name": "before-fork" }));
    client.call("mark", json!({ "name": "after-fork" }));
    let commands = client.call("help", json!({}))["rows"].as_array().unwrap().clone();
    assert!(commands.len() > 30);
    for command in &commands {
        let name = command["name"].as_str().unwrap();
        assert!(!command["summary"].as_str().unwrap().is_empty());
        let (lines, _) = client.plain(&format!("help {name}"));
        assert!(lines.iter().any(|line| line.starts_with("example: ")), "{lines:?}");
        // Its own example, as it stands, in both forms.
        if matches!(name, "quit" | "watch" | "wait" | "resume" | "host-faults") {
            continue;
        }
        let example = command["example"].as_str().unwrap().split(" > ").next().unwrap();
        let (_, end) = client.plain(example);
        assert!(end.starts_with("-- "), "{example}: {end}");
        let (_, end) = client.plain(&format!("{example} format json"));
        assert!(end.starts_with("-- "), "{example}: {end}");
        // What a step left behind must not disturb the next.
        client.call("unbreak", json!({}));
    }
    let (_, end) = client.plain("nonsense");
    assert_eq!(end, "-- error: there is no command ‘nonsense’; ‘help’ lists them");
}

#[test]
fn calls_are_answered_as_json_rpc_says() {
    let lab = Debugged::start(&programs::spin(), &[]);
    let mut client = lab.client();
    let version = client.call("version", json!({}));
    assert_eq!(version["protocol"], 1);
    let code = |answer: Value| answer["error"]["code"].as_i64().unwrap();
    assert_eq!(code(client.answer("nothing", json!({}))), -32601);
    assert_eq!(code(client.answer("record", json!({ "what": "perhaps" }))), -32602);
    assert_eq!(code(client.answer("regs", json!({}))), -32001);
    client.send(b"{\"jsonrpc\":\"2.0\",\"id\":1\n");
    let answer: Value = serde_json::from_str(&client.line()).unwrap();
    assert_eq!((&answer["id"], answer["error"]["code"].as_i64()), (&Value::Null, Some(-32700)));
    // A batch is answered in one line, its notifications are not.
    let batch = json!([
        { "jsonrpc": "2.0", "id": "a", "method": "version" },
        { "jsonrpc": "2.0", "method": "version" },
        { "jsonrpc": "2.0", "id": "b", "method": "marks" },
        { "no": "call" },
    ]);
    client.send(format!("{batch}\n").as_bytes());
    let answers: Vec<Value> = serde_json::from_str(&client.line()).unwrap();
    assert_eq!(answers.len(), 3);
    assert_eq!((&answers[0]["id"], &answers[1]["id"]), (&json!("a"), &json!("b")));
    assert_eq!(answers[2]["error"]["code"], -32600);
    client.send(b"{\"jsonrpc\":\"2.0\",\"method\":\"version\"}\n");
    client.send(b"[{\"jsonrpc\":\"2.0\",\"method\":\"version\"}]\n\n# nothing\n");
    assert_eq!(client.plain("version").0.len(), 1);
    // Several lines at once, the last without an end, then no more input.
    client.send(b"version\nversion\nversion");
    client.reader.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    let rest = String::from_utf8(client.rest()).unwrap();
    assert_eq!(rest.matches("-- ok").count(), 3, "{rest}");
}

#[test]
fn events_are_streamed_as_they_happen() {
    let lab = Debugged::start(&programs::known_faults(), &["--paused"]);
    let mut control = lab.client();
    control.call("record", json!({ "what": "lossless" }));
    let mut watcher = lab.client();
    let range = json!([ARENA, ARENA + 0x20000]);
    watcher.call(
        "watch",
        json!({ "pid": PROGRAM, "range": range, "kind": ["demand_zero", "cow_reuse"] }),
    );
    let mut people = lab.client();
    assert!(people.plain("watch kind zero_page_read faults").1.starts_with("-- ok"));
    control.call("resume", json!({}));
    let mut kinds = Vec::new();
    for _ in 0..16 {
        let event: Value = serde_json::from_str(&watcher.line()).unwrap();
        assert_eq!((&event["method"], event.get("id")), (&json!("event"), None));
        kinds.push(event["params"]["kind"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds.iter().filter(|kind| *kind == "demand_zero").count(), 8);
    for _ in 0..5 {
        assert!(people.line().contains("zero_page_read"));
    }
    // Commands are answered while events come.
    assert_eq!(watcher.call("unwatch", json!({}))["watching"], false);
    control.wait_until_done();
    let trace = control.call("trace", json!({ "pid": PROGRAM }));
    let rows = trace["rows"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["name"] == "demand_zero" && row["ph"] == "X"), "{trace}");
    // With nobody who watches or records, the guest writes no events.
    control.call("record", json!({ "what": "off" }));
    drop(people);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(control.call("status", json!({}))["recording"], "off");
}

#[test]
fn what_is_not_there_yet_is_an_error_in_json_too() {
    // Before its first instruction, the kernel has published nothing.
    let lab = Debugged::start(&programs::spin(), &["--paused"]);
    let mut client = lab.client();
    for (method, params) in [
        ("ps", json!({})),
        ("frames", json!({ "format": "text" })),
        ("pt", json!({ "target": "2" })),
        ("pt", json!({ "target": "kernel", "format": "csv" })),
        ("maps", json!({ "pid": 1 })),
    ] {
        assert!(client.refused(method, params).contains("publishes nothing"), "{method}");
    }
    assert_eq!(client.call("status", json!({}))["state"], "paused");
}

#[test]
fn metrics_are_served_by_http() {
    let (lab, mut client) = Debugged::with_known_faults();
    let get = |path: &str| {
        let mut stream = lab.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = get("/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("# TYPE pagelab_guest_faults_total counter"));
    let total = client.call("faults", json!({}))["rows"].as_array().unwrap().clone();
    for row in total {
        let line = format!("pagelab_guest_faults_total{{kind={}}} {}\n", row["kind"], row["count"]);
        assert!(answer.contains(&line), "‘{line}’ is not in:\n{answer}");
    }
    assert!(get("/other").starts_with("HTTP/1.1 404"));
}

/// A lab with its port at a loopback address: the lab, the address, the token.
fn on_loopback() -> (crate::common::Running, String, String) {
    let mut lab = Lab::new(&["run", "--timeout", "50", "--debug", "127.0.0.1:0"]);
    let program = lab.file("program", &programs::spin());
    lab.command.arg(program);
    let mut running = lab.start();
    let mut said = Vec::new();
    let stderr = running.child.stderr.as_mut().unwrap();
    let mut byte = [0];
    while said.last() != Some(&b'\n') && stderr.read(&mut byte).unwrap() == 1 {
        said.push(byte[0]);
    }
    let said = String::from_utf8(said).unwrap();
    let words: Vec<&str> = said.split_whitespace().collect();
    // pagelab: debug port at ADDRESS, token TOKEN
    let address = words[4].trim_end_matches(',').to_owned();
    (running, address, words[6].to_owned())
}

#[test]
fn a_loopback_port_wants_its_token() {
    let (mut running, address, token) = on_loopback();
    let talk = |first: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{first}\nversion\nquit\n").as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    assert!(talk(&format!("auth {token}")).contains("debug protocol 1"));
    for wrong in ["version", "auth wrong", "auth", "", "{}", &format!("auth {}", &token[1..])] {
        let answer = talk(wrong);
        assert!(!answer.contains("debug protocol"), "{wrong}: {answer}");
    }
    let json = json!({ "jsonrpc": "2.0", "id": 1, "method": "auth", "params": { "token": token } });
    assert!(talk(&json.to_string()).contains("debug protocol 1"));
    let metrics = |how: &str| talk(&format!("GET /metrics{how} HTTP/1.1\r\n\r"));
    assert!(metrics("").starts_with("HTTP/1.1 401"));
    assert!(metrics(&format!("?token={token}")).starts_with("HTTP/1.1 200"));
    // The client knows how to say it.
    let ask = |options: &[&str]| {
        let mut command = std::process::Command::new(binary());
        command.arg("debug").args(options).args([&address, "version"]).env_remove("PAGELAB_TOKEN");
        command.output().unwrap()
    };
    assert!(ask(&["--token", &token]).status.success());
    assert_eq!(ask(&["--token", "wrong"]).status.code(), Some(125));
    assert_eq!(ask(&[]).status.code(), Some(125));
    running.child.kill().unwrap();
    running.child.wait().unwrap();
}

#[test]
fn the_socket_belongs_to_its_owner_and_to_one_lab() {
    let lab = Debugged::start(&programs::spin(), &[]);
    let mode = std::fs::metadata(&lab.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let socket = lab.socket.to_str().unwrap();
    let again = |address: &str| {
        let mut lab = Lab::new(&["run", "--timeout", "20", "--debug", address]);
        let program = lab.file("program", &programs::exit_42());
        lab.command.arg(program);
        lab.run()
    };
    again(socket).expect(125, &["somebody else listens"]);
    assert!(lab.client().call("version", json!({})).is_object());
    let folder = tempfile::tempdir().unwrap();
    let stale = folder.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    again(stale.to_str().unwrap()).expect(42, &[]);
    assert!(!stale.exists());
    std::fs::write(&stale, "precious").unwrap();
    again(stale.to_str().unwrap()).expect(125, &["no socket"]);
    again("0.0.0.0:0").expect(2, &["not a loopback address"]);
    again("/nonexistent/lab.sock").expect(125, &["cannot listen at /nonexistent/lab.sock"]);
}

#[test]
fn the_client_takes_commands_and_scripts() {
    let (lab, _client) = Debugged::with_known_faults();
    let socket = lab.socket.to_str().unwrap().to_owned();
    let run = |options: &[&str], input: &str| {
        let mut command = std::process::Command::new(binary());
        command.arg("debug").args(options).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (status, out, err) = run(&[&socket, "faults"], "");
    assert!(status == Some(0) && out.starts_with("page faults of the guest"), "{out}{err}");
    let (status, out, _) = run(&["--json", &socket, "faults", "pid=2"], "");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert!(status == Some(0) && answer["result"]["total"].as_u64() > Some(20));
    let (status, _, err) = run(&[&socket, "faults", "since", "never"], "");
    assert!(status == Some(1) && err.contains("no mark ‘never’"), "{err}");
    let (status, out, err) = run(&[&socket], "mark a\n# a note\n\nmarks\nnonsense\nversion\n");
    assert_eq!(status, Some(1));
    assert!(
        out.contains("marked ‘a’") && out.contains("debug protocol") && err.contains("nonsense")
    );
    assert_eq!(run(&[&socket], "version\n").0, Some(0));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace.json");
    let file = file.to_str().unwrap();
    let (status, _, err) = run(&[&socket, "trace", file], "");
    assert_eq!(status, Some(0), "{err}");
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert!(trace.as_array().unwrap().iter().any(|row| row["ph"] == "X"), "{trace}");
    // Nothing that matches is an array, too.
    let (_, out, err) = run(&[&socket, "trace", "pid=77"], "");
    assert_eq!((out.trim(), err.as_str()), ("[]", ""));
    // Memory as it is: the program's first instruction, mov qword ptr [0x401000], 1.
    let arguments = [&socket, "memory", "0x400000", "12", "of", "2", "save", file];
    let (status, out, err) = run(&arguments, "");
    assert!(status == Some(0) && out.starts_with("12 bytes"), "{out}{err}");
    let saved = std::fs::read(file).unwrap();
    assert_eq!(saved, [0x48, 0xc7, 0x04, 0x25, 0, 0x10, 0x40, 0, 1, 0, 0, 0]);
    assert_eq!(run(&[&socket, "version", ">", "/nonexistent/file"], "").0, Some(1));
    let (status, _, err) = run(&["/nonexistent/lab.sock", "version"], "");
    assert!(status == Some(125) && err.contains("cannot reach a lab"), "{err}");
    // Events until the lab is over.
    let mut watcher = Client::new(lab.connect());
    watcher.plain("watch");
    assert_eq!(lab.stop("-TERM"), 143);
    assert!(watcher.rest().is_empty());
}

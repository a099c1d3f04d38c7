//! An event as a line for people, as JSON, and as a piece of a trace.

use std::fmt::Write as _;

use pagelab_abi::event::{EVENT_EXEC, EVENT_EXIT, EVENT_FAULT, EVENT_FORK, Event};
use pagelab_abi::fault::FaultKind;
use serde_json::{Value, json};

fn kind_name(event: &Event) -> &'static str {
    FaultKind::try_from(event.kind).map_or("unknown", FaultKind::name)
}

/// One event as a line.
#[must_use]
pub fn line(event: &Event) -> String {
    let mut line = format!("event {:>6}  pid {:<3} ", event.sequence, event.pid);
    // Writing to a string cannot fail.
    let _ = match event.class {
        EVENT_FAULT => write!(
            line,
            "{:<20} at {:#014x} by {:#014x} error {:#x} frame {:#x} -> {:#x} ({} ticks)",
            kind_name(event),
            event.address,
            event.instruction,
            event.error_code,
            event.frame_before,
            event.frame_after,
            event.cost
        ),
        EVENT_FORK => write!(line, "began, child of {}", event.detail),
        EVENT_EXEC => write!(line, "runs a new program"),
        EVENT_EXIT => write!(line, "ended with wait status {:#x}", event.detail),
        other => write!(line, "unknown class {other}"),
    };
    line
}

/// One event as JSON. Addresses are texts: they may have more bits than a
/// number has in most programs that read JSON.
#[must_use]
pub fn value(event: &Event) -> Value {
    let mut value = json!({ "sequence": event.sequence, "tsc": event.tsc, "pid": event.pid });
    match event.class {
        EVENT_FAULT => {
            value["class"] = "fault".into();
            value["kind"] = kind_name(event).into();
            value["address"] = format!("{:#x}", event.address).into();
            value["instruction"] = format!("{:#x}", event.instruction).into();
            value["error_code"] = event.error_code.into();
            value["frame_before"] = event.frame_before.into();
            value["frame_after"] = event.frame_after.into();
            value["ticks"] = event.cost.into();
        }
        EVENT_FORK => {
            value["class"] = "fork".into();
            value["parent"] = event.detail.into();
        }
        EVENT_EXEC => value["class"] = "exec".into(),
        EVENT_EXIT => {
            value["class"] = "exit".into();
            value["wait_status"] = event.detail.into();
        }
        other => value["class"] = other.into(),
    }
    value
}

/// One event of Chrome's and Perfetto's trace format; times in microseconds.
#[must_use]
pub fn trace(event: &Event, tsc_khz: u64) -> Value {
    let khz = tsc_khz.max(1);
    #[allow(clippy::cast_precision_loss, reason = "microseconds for a picture")]
    let micros = |ticks: u64| ticks as f64 * 1000.0 / khz as f64;
    let (name, phase) = match event.class {
        EVENT_FAULT => (kind_name(event), "X"),
        EVENT_FORK => ("fork", "i"),
        EVENT_EXEC => ("exec", "i"),
        EVENT_EXIT => ("exit", "i"),
        _ => ("unknown", "i"),
    };
    let mut trace = json!({
        "name": name, "cat": "guest", "ph": phase, "ts": micros(event.tsc),
        "pid": event.pid, "tid": event.pid, "args": value(event),
    });
    if phase == "X" {
        trace["dur"] = micros(event.cost.into()).into();
    } else {
        trace["s"] = "p".into();
    }
    trace
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_every_class_have_a_text() {
        let fault = Event {
            class: EVENT_FAULT,
            kind: 3,
            pid: 2,
            address: 0x5000,
            cost: 2000,
            tsc: 4000,
            ..Event::default()
        };
        assert!(line(&fault).contains("cow_copy             at 0x000000005000"));
        assert_eq!(
            (&value(&fault)["kind"], &value(&fault)["address"]),
            (&json!("cow_copy"), &json!("0x5000"))
        );
        let trace = trace(&fault, 2_000_000);
        assert_eq!(
            (&trace["ts"], &trace["dur"], &trace["ph"]),
            (&json!(2.0), &json!(1.0), &json!("X"))
        );
        for class in [EVENT_FORK, EVENT_EXEC, EVENT_EXIT, 99] {
            let event = Event { class, kind: 200, ..Event::default() };
            assert!(!line(&event).is_empty() && !value(&event)["class"].is_null());
        }
    }
}

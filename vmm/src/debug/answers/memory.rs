//! Bytes, instructions and walks.

use std::fmt::Write as _;

use pagelab_abi::addr::{GuestPhys, GuestVirt, PAGE_SIZE};
use serde_json::{Value, json};

use crate::debug::answer::{Answer, Format, Listed, Rows, Step};
use crate::debug::arguments::Arguments;
use crate::debug::lab::{Lab, state_error};
use crate::debug::protocol::CommandError;
use crate::inspect::symbols::Symbols;
use crate::inspect::{AddressSpace, disassemble, walk as walks};

type Result = std::result::Result<Answer, CommandError>;

/// Bytes in a row.
const ROW: u64 = 16;

/// A range of memory, row by row.
struct Dump {
    format: Format,
    /// The root table; none for physical addresses.
    root: Option<GuestPhys>,
    next: u64,
    end: u64,
}

impl Dump {
    fn bytes(&self, lab: &Lab, count: u64) -> Vec<u8> {
        let length = usize::try_from(count).unwrap_or(0);
        match self.root {
            Some(root) => {
                AddressSpace { memory: &*lab.ram, root }.read(GuestVirt(self.next), length)
            }
            None => {
                let mut bytes = vec![0; length];
                lab.ram.read(GuestPhys(self.next), &mut bytes).map(|()| bytes).unwrap_or_default()
            }
        }
    }
}

impl Rows for Dump {
    fn next(&mut self, lab: &mut Lab, out: &mut String) -> Step {
        if self.next >= self.end {
            return Step::Done;
        }
        let count = (ROW - self.next % ROW).min(self.end - self.next);
        let bytes = self.bytes(lab, count);
        if bytes.is_empty() {
            let message = format!("nothing can be read at {:#x}", self.next);
            return Step::Failed(CommandError::failed(message));
        }
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // Writing to a string cannot fail.
        let _ = match self.format {
            Format::Json => write!(
                out,
                "{}",
                json!({ "address": format!("{:#x}", self.next), "bytes": hex.concat() })
            ),
            Format::Csv => write!(out, "{:#x},{}", self.next, hex.concat()),
            Format::Text | Format::Dot => {
                let shown =
                    |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
                let text: String = bytes.iter().map(shown).collect();
                write!(out, "{:016x}  {:<47}  {text}", self.next, hex.join(" "))
            }
        };
        self.next += bytes.len() as u64;
        Step::Row
    }
}

/// `memory`.
pub fn memory(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let start = arguments.number("address").unwrap_or(0);
    let length = arguments.number("length").unwrap_or(64);
    let end = start.checked_add(length).ok_or_else(|| {
        CommandError::parameters(format!(
            "{length} bytes from {start:#x} on leave the address space"
        ))
    })?;
    let root = match arguments.flag("physical") {
        true => None,
        false => Some(lab.space(arguments.text("of"))?.root),
    };
    let fields = json!({ "address": format!("{start:#x}"), "length": length });
    Ok(Answer::new(fields, "").with_rows(Dump { format, root, next: start, end }))
}

/// `disas`.
pub fn disas(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    const MOST: usize = 256;
    let count = arguments.count("count", 16, MOST)?;
    let address = match arguments.number("address") {
        Some(address) => address,
        None => lab.control.registers().map_err(state_error)?.rip,
    };
    let space = lab.space(arguments.text("of"))?;
    let lines = disassemble::around(&space, GuestVirt(address), None, 0, count);
    if lines.is_empty() {
        return Err(CommandError::failed(format!("nothing can be read at {address:#x}")));
    }
    let symbol =
        Symbols::new(&lab.kernel).lookup(GuestVirt(address)).map(|symbol| symbol.to_string());
    let heading = symbol.as_ref().map_or_else(String::new, |symbol| format!("{symbol}:\n"));
    let row = |line: &disassemble::Line| {
        let bytes: String = line.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let value = json!({ "address": format!("{:#x}", line.address.0), "bytes": bytes, "text": line.text });
        (value, line.to_string())
    };
    let rows = lines.iter().map(row).collect();
    Ok(Answer::new(json!({ "symbol": symbol }), heading).with_rows(Listed::new(format, rows)))
}

/// `walk`.
pub fn walk(lab: &mut Lab, arguments: &Arguments, _format: Format) -> Result {
    let address = GuestVirt(arguments.number("address").unwrap_or(0));
    let space = lab.space(arguments.text("of"))?;
    let shown = walks::show(&space, address);
    let steps: Vec<Value> = shown
        .walk
        .steps()
        .map(|step| {
            json!({
                "level": step.level as u8, "at": format!("{:#x}", step.address.0),
                "entry": format!("{:#x}", step.entry.0), "flags": walks::flag_letters(step.entry.flags()),
            })
        })
        .collect();
    let physical = shown.walk.physical().map(|physical| format!("{:#x}", physical.0));
    let fields = json!({
        "address": format!("{:#x}", address.0), "page_offset": address.0 % PAGE_SIZE,
        "steps": steps, "physical": physical, "conclusion": shown.conclusion(),
    });
    Ok(Answer::new(fields, format!("{shown}\n")))
}

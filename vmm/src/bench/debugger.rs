//! Page tables read through a debugger's protocol, as a script in gdb does it: the
//! way without a debug port.
//!
//! gdb itself runs such a script ([`with_gdb`]). Where there is no gdb, or none
//! with Python, the same packets are sent without it ([`without_gdb`]), which is
//! faster than gdb.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use pagelab_abi::layout::PHYSMAP_BASE;
use pagelab_paging::Entry;
use pagelab_paging::entry::ENTRIES;
use serde::Serialize;

use super::debug::DebugBenchError;

/// What reading the tables took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DebuggerFigures {
    /// Entries that were read.
    pub entries: u64,
    /// How long that took, in milliseconds, without the debugger's own start.
    pub ms: f64,
}

/// The script: tables are read whole, as any good script does, and followed.
const SCRIPT: &str = r#"
import gdb, struct, time
gdb.execute("set pagination off")
gdb.execute("set architecture i386:x86-64")
gdb.execute("target remote @SOCKET@")
memory = gdb.selected_inferior()
entries = 0
def walk(table, level):
    global entries
    count = 256 if level == 4 else 512
    data = bytes(memory.read_memory(@PHYSMAP@ + table, count * 8))
    entries += count
    if level == 1:
        return
    for entry in struct.unpack("<%dQ" % count, data):
        if entry & 1 and not entry & 0x80:
            walk(entry & 0x000ffffffffff000, level - 1)
began = time.monotonic()
walk(@ROOT@, 4)
print("read", entries, (time.monotonic() - began) * 1000)
gdb.execute("disconnect")
"#;

/// Has gdb read the tables below `root` from the guest at `socket`; why not, if
/// there is no gdb that can.
///
/// # Errors
///
/// If the host fails.
pub fn with_gdb(
    socket: &Path,
    root: u64,
    folder: &Path,
) -> Result<Result<DebuggerFigures, String>, DebugBenchError> {
    let script = folder.join("read-tables.py");
    let text = SCRIPT
        .replace("@SOCKET@", &socket.display().to_string())
        .replace("@PHYSMAP@", &PHYSMAP_BASE.to_string())
        .replace("@ROOT@", &root.to_string());
    fs::write(&script, text)?;
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-x"]).arg(&script).stdin(Stdio::null());
    let output = match gdb.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Err("gdb is not installed".to_owned()));
        }
        result => result?,
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let figures = said.lines().find_map(|line| {
        let (entries, ms) = line.strip_prefix("read ")?.split_once(' ')?;
        Some(DebuggerFigures { entries: entries.parse().ok()?, ms: ms.parse().ok()? })
    });
    Ok(figures.ok_or_else(|| {
        let problem = String::from_utf8_lossy(&output.stderr);
        format!("gdb did not read them: {}", problem.lines().next().unwrap_or("no Python?"))
    }))
}

/// Reads the tables below `root` from the guest at `socket`, packet by packet.
///
/// # Errors
///
/// If the connection breaks or says nonsense.
pub fn without_gdb(socket: &Path, root: u64) -> Result<DebuggerFigures, DebugBenchError> {
    let mut debugger = Debugger { stream: UnixStream::connect(socket)?, entries: 0 };
    let began = Instant::now();
    debugger.walk(root, 4)?;
    let ms = began.elapsed().as_secs_f64() * 1000.0;
    Ok(DebuggerFigures { entries: debugger.entries, ms })
}

/// A debugger that only reads memory.
struct Debugger {
    stream: UnixStream,
    entries: u64,
}

impl Debugger {
    /// Reads the table at `table` and those below it, of a program's half.
    fn walk(&mut self, table: u64, level: u8) -> Result<(), DebugBenchError> {
        /// Half a table: what fits into a packet with room to spare.
        const PIECE: usize = 1024;
        let count = if level == 4 { ENTRIES / 2 } else { ENTRIES };
        let mut bytes = Vec::new();
        while bytes.len() < count * 8 {
            let address = PHYSMAP_BASE + table + bytes.len() as u64;
            bytes.extend(self.memory(address, PIECE)?);
        }
        self.entries += count as u64;
        if level == 1 {
            return Ok(());
        }
        for entry in bytes.chunks_exact(8) {
            let entry =
                Entry(entry.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)));
            let leads_on = entry.is_present() && !entry.has(pagelab_paging::EntryFlags::HUGE);
            if leads_on {
                self.walk(entry.address().0, level - 1)?;
            }
        }
        Ok(())
    }

    fn memory(&mut self, address: u64, length: usize) -> Result<Vec<u8>, DebugBenchError> {
        let packet = format!("m{address:x},{length:x}");
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        self.stream.write_all(format!("${packet}#{sum:02x}").as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while answer.len() < 3 || answer[answer.len() - 3] != b'#' {
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                count => answer.extend_from_slice(&buffer[..count]),
            }
        }
        self.stream.write_all(b"+")?;
        let start = answer.iter().position(|&byte| byte == b'$').map_or(0, |at| at + 1);
        decode(&answer[start..answer.len() - 3])
            .ok_or_else(|| DebugBenchError::Answer("a packet that is no memory".to_owned()))
    }
}

/// Hexadecimal digits, with repeated ones as `*` and a count.
fn decode(packet: &[u8]) -> Option<Vec<u8>> {
    let mut digits: Vec<u8> = Vec::new();
    let mut bytes = packet.iter();
    while let Some(&byte) = bytes.next() {
        if byte == b'*' {
            let (count, last) = (bytes.next()?.checked_sub(29)?, *digits.last()?);
            digits.extend(std::iter::repeat_n(last, count.into()));
        } else {
            digits.push(byte);
        }
    }
    crate::debug::answers::pages::hex_bytes(str::from_utf8(&digits).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_decoded() {
        assert_eq!(decode(b"0* 7f"), Some(vec![0, 0, 0x7f]));
        assert_eq!(decode(b"E01"), None);
        assert_eq!(decode(b"*"), None);
    }
}

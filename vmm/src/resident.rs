//! Resident memory of a process, told apart by what it is (`/proc/PID/smaps`).

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// What the name of guest RAM's mapping contains: pagelab's memfd, and that of
/// QEMU's `memory-backend-memfd`.
const GUEST_RAM: [&str; 2] = ["/memfd:pagelab-ram", "/memfd:memory-backend-memfd"];

/// Resident memory in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResidentMemory {
    /// Guest RAM that was touched.
    pub guest_ram_kib: u64,
    /// Pages of files, such as the program itself and its libraries: they may be
    /// shared with other processes.
    pub files_kib: u64,
    /// Everything else: heap, stacks, tables.
    pub anonymous_kib: u64,
}

impl ResidentMemory {
    /// Measures a process, by its number or as `self`.
    ///
    /// # Errors
    ///
    /// If there is no such process or it may not be looked at.
    pub fn of_process(process: &str) -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(format!("/proc/{process}/smaps"))?))
    }

    /// What the process needs beyond guest RAM.
    #[must_use]
    pub const fn beyond_guest_ram_kib(&self) -> u64 {
        self.files_kib + self.anonymous_kib
    }

    fn parse(smaps: &str) -> Self {
        let mut memory = Self::default();
        let mut mapping = "";
        for line in smaps.lines() {
            if let Some(size) = line.strip_prefix("Rss:") {
                let kib = size.split_whitespace().next().and_then(|kib| kib.parse().ok());
                *memory.counter(mapping) += kib.unwrap_or(0);
            } else if is_mapping(line) {
                mapping = line.splitn(6, ' ').nth(5).unwrap_or("").trim();
            }
        }
        memory
    }

    fn counter(&mut self, mapping: &str) -> &mut u64 {
        if GUEST_RAM.iter().any(|name| mapping.starts_with(name)) {
            &mut self.guest_ram_kib
        } else if mapping.starts_with('/') {
            &mut self.files_kib
        } else {
            &mut self.anonymous_kib
        }
    }
}

/// Whether a line begins a mapping (`7f00-7f01 r-xp …`) instead of telling
/// something about it (`Rss: 4 kB`).
fn is_mapping(line: &str) -> bool {
    let first = line.split(' ').next().unwrap_or("");
    first.contains('-') && !first.ends_with(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_told_apart() {
        let smaps = "\
7f0000000000-7f0008000000 rw-s 00000000 00:01 1026     /memfd:pagelab-ram (deleted)
Size:             131072 kB
Rss:                1024 kB
Pss:                1024 kB
7f0009000000-7f0009100000 r-xp 00000000 08:01 99       /usr/bin/pagelab
Rss:                 300 kB
7f000a000000-7f000a100000 rw-p 00000000 00:00 0
Rss:                  20 kB
7f000b000000-7f000b100000 rw-p 00000000 00:00 0        [heap]
Rss:                   7 kB
VmFlags: rd wr
";
        let memory = ResidentMemory::parse(smaps);
        let expected = ResidentMemory { guest_ram_kib: 1024, files_kib: 300, anonymous_kib: 27 };
        assert_eq!(memory, expected);
        assert_eq!(memory.beyond_guest_ram_kib(), 327);
    }

    #[test]
    fn this_process_has_files_and_anonymous_memory() {
        let memory = ResidentMemory::of_process("self").unwrap();
        assert!(memory.files_kib > 0 && memory.anonymous_kib > 0);
        assert!(ResidentMemory::of_process("0").is_err());
    }
}

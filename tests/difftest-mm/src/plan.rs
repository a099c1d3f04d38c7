//! What the tester would do: its answer to `--plan`.

use thiserror::Error;

/// The tester said something that is no plan.
#[derive(Debug, Error)]
#[error("line {number} of the plan makes no sense: {line}")]
pub(crate) struct PlanError {
    number: usize,
    line: String,
}

/// One operation, with the tester's own names for its members.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) index: u32,
    pub(crate) address: u64,
    pub(crate) length: u64,
    pub(crate) new_address: u64,
    pub(crate) new_length: u64,
    pub(crate) protection: u32,
    pub(crate) flags: u32,
    pub(crate) byte: u8,
    pub(crate) block: u32,
    /// How the transcript shows it; the first word is its kind.
    pub(crate) text: String,
}

impl Operation {
    /// The name of its kind.
    pub(crate) fn kind(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }
}

/// A program.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) seed: u64,
    /// Where the windows start.
    pub(crate) windows: [u64; 3],
    /// In the order of their indices, which need not be all.
    pub(crate) operations: Vec<Operation>,
}

impl Program {
    /// The index behind the last operation.
    pub(crate) fn end(&self) -> u32 {
        self.operations.last().map_or(0, |operation| operation.index + 1)
    }

    /// The first operation at `index` or later.
    pub(crate) fn from(&self, index: u32) -> Option<&Operation> {
        let position = self.operations.partition_point(|operation| operation.index < index);
        self.operations.get(position)
    }
}

/// Reads the plans of a batch.
pub(crate) fn parse(text: &str) -> Result<Vec<Program>, PlanError> {
    let mut programs: Vec<Program> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        parse_line(&mut programs, line)
            .ok_or_else(|| PlanError { number, line: line.to_owned() })?;
    }
    Ok(programs)
}

fn parse_line(programs: &mut Vec<Program>, line: &str) -> Option<()> {
    if let Some(seed) = line.strip_prefix("program ") {
        let seed = seed.parse().ok()?;
        programs.push(Program { seed, windows: [0; 3], operations: Vec::new() });
    } else if let Some(starts) = line.strip_prefix("windows ") {
        let starts: Option<Vec<u64>> = starts.split(' ').map(hex).collect();
        programs.last_mut()?.windows = starts?.try_into().ok()?;
    } else {
        programs.last_mut()?.operations.push(parse_operation(line)?);
    }
    Some(())
}

fn parse_operation(line: &str) -> Option<Operation> {
    let mut words = line.splitn(10, ' ');
    let mut next = || hex(words.next()?);
    let mut small = || u32::try_from(next()? & 0xffff_ffff).ok();
    let index = small()?;
    let (address, length, new_address, new_length) = (next()?, next()?, next()?, next()?);
    let mut small = || u32::try_from(next()? & 0xffff_ffff).ok();
    let (protection, flags, byte, block) = (small()?, small()?, small()?, small()?);
    let byte = u8::try_from(byte).ok()?;
    let text = words.next()?.to_owned();
    Some(Operation {
        index,
        address,
        length,
        new_address,
        new_length,
        protection,
        flags,
        byte,
        block,
        text,
    })
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "program 7\nwindows 0x1000 0x2000 0x3000\n\
        0x2 0x1000 0x5000 0x0 0x0 0x3 0xffffffffffffffff 0xec 0x2 mmap_fixed A+0x0 5p rw- PRIVATE\n\
        0x5 0x1000 0x1000 0x0 0x0 0x3 0x0 0x1 0x2 munmap A+0x0 1p\n";

    #[test]
    fn a_plan_is_read() {
        let programs = parse(PLAN).unwrap();
        let [program] = &programs[..] else { panic!("{programs:?}") };
        assert_eq!((program.seed, program.windows), (7, [0x1000, 0x2000, 0x3000]));
        let first = &program.operations[0];
        assert_eq!((first.index, first.length, first.flags), (2, 0x5000, u32::MAX));
        assert_eq!((first.byte, first.kind()), (0xec, "mmap_fixed"));
        assert_eq!(first.text, "mmap_fixed A+0x0 5p rw- PRIVATE");
        assert_eq!(program.end(), 6);
        assert_eq!(program.from(3).map(|operation| operation.index), Some(5));
        assert!(program.from(6).is_none());
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for text in ["0x1 0x2\n", "program x\n", "program 1\nwindows 0x1\n", "program 1\nhello\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

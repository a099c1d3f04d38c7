//! Functions and lines from the kernel's ELF.
//!
//! Nothing is read until the first question is asked, because only a guest that
//! died (or somebody who debugs it) has questions. Line numbers come from DWARF
//! where the ELF has it; names also from the symbol table. A damaged ELF means
//! fewer answers, never an error: whoever asks is already reporting one.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use addr2line::{Context, LookupContinuation, LookupResult};
use elf::ElfBytes;
use elf::abi::{SHF_COMPRESSED, STT_FUNC};
use elf::endian::LittleEndian;
use gimli::{EndianSlice, SectionId};
use pagelab_abi::addr::GuestVirt;

type Slice<'data> = EndianSlice<'data, gimli::LittleEndian>;

/// How many functions inlined into each other one address reports.
const MAX_INLINED: usize = 16;

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The function's name, without hash.
    pub function: String,
    /// File and line, as `kernel/src/main.rs:12`.
    pub line: Option<String>,
}

/// What an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// The places, innermost first: more than one where functions were inlined.
    pub places: Vec<Place>,
    /// Where the function that is not inlined begins.
    pub start: Option<GuestVirt>,
    /// How far into that function the address is.
    pub offset: Option<u64>,
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in self.places.iter().enumerate() {
            if index > 0 {
                f.write_str(", inlined into ")?;
            }
            f.write_str(&place.function)?;
            if index + 1 == self.places.len()
                && let Some(offset) = self.offset
            {
                write!(f, "+{offset:#x}")?;
            }
            if let Some(line) = &place.line {
                write!(f, " ({line})")?;
            }
        }
        Ok(())
    }
}

/// A function of the symbol table.
#[derive(Clone, Copy, Debug)]
struct Function<'data> {
    start: u64,
    size: u64,
    name: &'data str,
}

struct Loaded<'data> {
    functions: Vec<Function<'data>>,
    lines: Option<Context<Slice<'data>>>,
}

/// The symbols of an ELF, read when first asked for.
pub struct Symbols<'data> {
    elf: &'data [u8],
    loaded: OnceCell<Loaded<'data>>,
}

impl fmt::Debug for Symbols<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbols").field("loaded", &self.loaded.get().is_some()).finish()
    }
}

impl<'data> Symbols<'data> {
    /// Symbols of `elf`; nothing is read yet.
    #[must_use]
    pub const fn new(elf: &'data [u8]) -> Self {
        Self { elf, loaded: OnceCell::new() }
    }

    /// What `address` is; `None` if it is in no function of this ELF.
    #[must_use]
    pub fn lookup(&self, address: GuestVirt) -> Option<Symbol> {
        // The last address there is holds no function, and addr2line adds one.
        if address.0 == u64::MAX {
            return None;
        }
        let loaded = self.loaded.get_or_init(|| Loaded::read(self.elf));
        let function = loaded.function(address.0);
        let mut places = loaded.places(address.0);
        if let Some(function) = function
            && places.is_empty()
        {
            places.push(Place { function: demangle(function.name), line: None });
        }
        if places.is_empty() {
            return None;
        }
        Some(Symbol {
            places,
            start: function.map(|function| GuestVirt(function.start)),
            offset: function.map(|function| address.0 - function.start),
        })
    }

    /// What called: the same for a return address, which may already lie behind
    /// the calling function.
    #[must_use]
    pub fn lookup_caller(&self, return_address: GuestVirt) -> Option<Symbol> {
        let mut symbol = self.lookup(GuestVirt(return_address.0.checked_sub(1)?))?;
        symbol.offset = symbol.offset.and_then(|offset| offset.checked_add(1));
        Some(symbol)
    }
}

impl<'data> Loaded<'data> {
    fn read(bytes: &'data [u8]) -> Self {
        let Ok(file) = ElfBytes::<LittleEndian>::minimal_parse(bytes) else {
            return Self { functions: Vec::new(), lines: None };
        };
        Self { functions: functions(&file), lines: lines(&file) }
    }

    fn function(&self, address: u64) -> Option<Function<'data>> {
        let behind = self.functions.partition_point(|function| function.start <= address);
        let function = *self.functions.get(behind.checked_sub(1)?)?;
        // Assembly routines often have no size: those reach to the next symbol.
        let inside = function.size == 0 || address - function.start < function.size;
        inside.then_some(function)
    }

    fn places(&self, address: u64) -> Vec<Place> {
        let Some(lines) = &self.lines else { return Vec::new() };
        let mut lookup = lines.find_frames(address);
        let frames = loop {
            match lookup {
                LookupResult::Output(frames) => break frames,
                // Debug information in other files: there are none.
                LookupResult::Load { continuation, .. } => lookup = continuation.resume(None),
            }
        };
        let mut places = Vec::new();
        let Ok(mut frames) = frames else { return places };
        while places.len() < MAX_INLINED
            && let Ok(Some(frame)) = frames.next()
        {
            let Some(function) = frame.function else { continue };
            let Ok(name) = function.demangle().map(Cow::into_owned) else { continue };
            let line = frame.location.and_then(|location| {
                let file = short_path(location.file?);
                Some(location.line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}")))
            });
            places.push(Place { function: without_hash(&name), line });
        }
        places
    }
}

fn functions<'data>(file: &ElfBytes<'data, LittleEndian>) -> Vec<Function<'data>> {
    let Ok(Some((symbols, names))) = file.symbol_table() else { return Vec::new() };
    let mut functions: Vec<_> = symbols
        .iter()
        .filter(|symbol| symbol.st_symtype() == STT_FUNC && !symbol.is_undefined())
        .filter_map(|symbol| {
            let name = names.get(symbol.st_name as usize).ok().filter(|name| !name.is_empty())?;
            Some(Function { start: symbol.st_value, size: symbol.st_size, name })
        })
        .collect();
    functions.sort_by_key(|function| function.start);
    functions
}

fn lines<'data>(file: &ElfBytes<'data, LittleEndian>) -> Option<Context<Slice<'data>>> {
    let section = |id: SectionId| -> Result<Slice<'data>, gimli::Error> {
        let bytes = file
            .section_header_by_name(id.name())
            .ok()
            .flatten()
            .filter(|header| header.sh_flags & u64::from(SHF_COMPRESSED) == 0)
            .and_then(|header| file.section_data(&header).ok())
            .map_or(&[][..], |(bytes, _)| bytes);
        Ok(EndianSlice::new(bytes, gimli::LittleEndian))
    };
    let dwarf = gimli::Dwarf::load(section).ok()?;
    Context::from_dwarf(dwarf).ok()
}

fn demangle(name: &str) -> String {
    let name = addr2line::demangle_auto(Cow::Borrowed(name), None);
    without_hash(&name)
}

/// `path::name::h0123456789abcdef` without its last part.
fn without_hash(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((rest, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            rest.to_owned()
        }
        _ => name.to_owned(),
    }
}

/// The last few parts of a path: enough to recognise the file, and the same on
/// every machine.
fn short_path(path: &str) -> &str {
    const PARTS: usize = 4;
    match path.rmatch_indices('/').nth(PARTS - 1) {
        Some((index, _)) => &path[index + 1..],
        None => path,
    }
}

#[cfg(test)]
mod tests;

//! Page tables: dumps, differences, translations, searches.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::event::Event;
use pagelab_abi::layout::USER_END;
use serde::Serialize;
use serde_json::json;

use super::faults::find_mark;
use crate::debug::answer::{Answer, Format};
use crate::debug::arguments::Arguments;
use crate::debug::lab::{Lab, Mark};
use crate::debug::protocol::CommandError;
use crate::debug::report::{Source, kernel_error, no_other, report};
use crate::debug::target::Target;
use crate::inspect::pages::alias::{Alias, aliases as find_aliases};
use crate::inspect::pages::diff::{Difference, Snapshot, diff};
use crate::inspect::pages::dump::{Dump, DumpRequest, Shape, dump};
use crate::inspect::pages::filter::{CacheType, Filter};
use crate::inspect::pages::scan::Range;
use crate::inspect::pages::search::{Pattern, SearchRequest, search as find, search_physical};
use crate::inspect::translate::translate as translate_address;

type Result = std::result::Result<Answer, CommandError>;

/// Rows of a dump, unless more are asked for.
const ROWS: usize = 1 << 16;
/// Most rows of a dump.
const MOST_ROWS: usize = 1 << 22;

fn wrong(message: impl Into<String>) -> CommandError {
    CommandError::parameters(message)
}

/// `pt`.
pub fn pt(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let target = Target::given(lab, arguments.text("target"))?;
    let shape = match arguments.text("shape") {
        Some("runs") => Shape::Runs,
        Some("rights") => Shape::Rights,
        Some("entries") => Shape::Entries,
        _ => Shape::Tree,
    };
    let request = DumpRequest {
        shape,
        ranges: vec![arguments.range("range").map_or_else(|| target.range(), range)],
        filter: filter(arguments)?,
        absent: arguments.flag("absent"),
        limit: arguments.count("limit", ROWS, MOST_ROWS)?,
    };
    let other = |dump: &Dump, format| match format {
        Format::Csv => Some(dump.csv()),
        Format::Dot => Some(dump.dot()),
        _ => None,
    };
    report(lab, format, other, move |source| {
        let root = target.root(source)?;
        Ok(dump(&*source.ram, root, &request))
    })
}

const fn range(range: std::ops::Range<u64>) -> Range {
    Range { first: range.start, last: range.end - 1 }
}

/// Which pages are meant.
fn filter(arguments: &Arguments) -> std::result::Result<Filter, CommandError> {
    let mut filter = Filter {
        has: arguments.number("has"),
        before: arguments.number("before"),
        after: arguments.number("after"),
        physical: arguments.range("physical").map(|range| (range.start, range.end - 1)),
        ..Filter::default()
    };
    for word in
        arguments.text("only").unwrap_or_default().split(',').filter(|word| !word.is_empty())
    {
        let (name, wanted) = word.strip_prefix('!').map_or((word, true), |name| (name, false));
        let (place, wanted) = match name {
            "w" | "writable" => (&mut filter.writable, wanted),
            "ro" => (&mut filter.writable, !wanted),
            "x" | "executable" => (&mut filter.executable, wanted),
            "u" | "user" => (&mut filter.user, wanted),
            "s" | "supervisor" => (&mut filter.user, !wanted),
            "a" | "accessed" => (&mut filter.accessed, wanted),
            "d" | "dirty" => (&mut filter.dirty, wanted),
            "g" | "global" => (&mut filter.global, wanted),
            "huge" => (&mut filter.huge, wanted),
            "cow" => (&mut filter.copy_on_write, wanted),
            "soft-dirty" => (&mut filter.soft_dirty, wanted),
            "zero" => (&mut filter.special, wanted),
            "wb" | "wt" | "uc-" | "uc" if wanted => {
                filter.cache = Some(cache_type(name));
                continue;
            }
            _ => {
                return Err(wrong(format!(
                    "‘{word}’ is no property of pages: w, ro, x, user, supervisor, accessed, dirty, \
                     global, huge, cow, soft-dirty, zero, wb, wt, uc-, uc; ! before it means not"
                )));
            }
        };
        *place = Some(wanted);
    }
    Ok(filter)
}

fn cache_type(name: &str) -> CacheType {
    match name {
        "wt" => CacheType::WriteThrough,
        "uc-" => CacheType::UncachedMinus,
        "uc" => CacheType::Uncached,
        _ => CacheType::WriteBack,
    }
}

/// What changed in the page tables of some processes.
#[derive(Serialize)]
struct Differences {
    processes: Vec<ProcessDifference>,
}

#[derive(Serialize)]
struct ProcessDifference {
    pid: u32,
    #[serde(flatten)]
    difference: Difference,
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.processes
            .iter()
            .try_for_each(|one| write!(f, "process {}\n{}", one.pid, one.difference))
    }
}

/// `pt diff`: what changed between two marks, or since one; of a process, or of
/// all that were there at one of the two moments.
pub fn pt_diff(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let limit = arguments.count("limit", ROWS, MOST_ROWS)?;
    let from = find_mark(lab, arguments.text("from").unwrap_or_default())?;
    let to = arguments.text("to").map(|name| find_mark(lab, name)).transpose()?;
    let (start, end) = (from.place, to.map_or_else(|| lab.history.end(), |mark| mark.place));
    let count = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
    let events: Vec<Event> = lab.history.read(start, count).events;
    if let Some(pid) = arguments.pid()? {
        let known = |mark: &Mark| mark.processes.contains_key(&pid);
        if to.is_some_and(|to| !known(from) && !known(to)) {
            return Err(wrong(format!("there was no process {pid} at either mark")));
        }
        let before = kept_tables(from, pid)?;
        let after = to.map(|mark| kept_tables(mark, pid)).transpose()?;
        return report(lab, format, no_other, move |source| {
            let after = after.map_or_else(|| tables_now(source, pid), Ok)?;
            let mut difference: Difference = diff(&before, &after, limit);
            difference.attribute(pid, &events);
            Ok(difference)
        });
    }
    let before = from.tables.clone();
    let after = to.map(|mark| mark.tables.clone());
    report(lab, format, no_other, move |source| {
        let after = after.map_or_else(|| all_tables_now(source), Ok)?;
        let pids: BTreeSet<u32> = before.keys().chain(after.keys()).copied().collect();
        let nothing = Snapshot::default();
        let mut left = limit;
        let mut processes = Vec::new();
        for pid in pids {
            let at = |tables: &'_ BTreeMap<u32, Arc<Snapshot>>| tables.get(&pid).cloned();
            let (old, new) = (at(&before), at(&after));
            let (old, new) =
                (old.as_deref().unwrap_or(&nothing), new.as_deref().unwrap_or(&nothing));
            let mut difference = diff(old, new, left);
            difference.attribute(pid, &events);
            left = left.saturating_sub(difference.changes.len());
            if !difference.changes.is_empty() || difference.truncated {
                processes.push(ProcessDifference { pid, difference });
            }
        }
        Ok(Differences { processes })
    })
}

/// A process's tables as a mark kept them: none if it was not there then.
fn kept_tables(mark: &Mark, pid: u32) -> std::result::Result<Arc<Snapshot>, CommandError> {
    match (mark.tables.get(&pid), mark.processes.contains_key(&pid)) {
        (Some(tables), _) => Ok(Arc::clone(tables)),
        (None, false) => Ok(Arc::default()),
        (None, true) => Err(wrong(format!(
            "the mark has no page tables of process {pid}: it had ended, or its tables were too \
             many to keep"
        ))),
    }
}

fn tables_now(source: &Source, pid: u32) -> std::result::Result<Arc<Snapshot>, CommandError> {
    let root = Target::Process(pid).root(source)?;
    Ok(Arc::new(Snapshot::take(&*source.ram, root, Range::USER)))
}

fn all_tables_now(
    source: &Source,
) -> std::result::Result<BTreeMap<u32, Arc<Snapshot>>, CommandError> {
    let list = source.kernel()?.processes().map_err(kernel_error)?;
    let roots = list.processes.iter().filter_map(|process| Some((process.pid, process.root()?)));
    Ok(roots
        .map(|(pid, root)| (pid, Arc::new(Snapshot::take(&*source.ram, root, Range::USER))))
        .collect())
}

/// `translate`.
pub fn translate(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let target = Target::given(lab, arguments.text("target"))?;
    let address = arguments.number("address").unwrap_or(0);
    // KVM translates with the tables that the processor uses right now; without
    // virtualization hardware only what is the kernel's; and with the rights of the
    // kernel, which programs' memory is closed to by SMAP.
    const SMAP: u64 = 1 << 21;
    let programs_too = !lab.debug_host.lets_programs_exceptions_through()
        && lab.control.registers().is_ok_and(|registers| registers.cr4 & SMAP == 0);
    let kvm_can = programs_too || address >= USER_END.0;
    let root = target.root(&lab.source())?;
    let mut fields = serde_json::Map::new();
    if kvm_can
        && lab.control.registers().is_ok_and(|registers| registers.cr3 == root.0)
        && let Ok(kvm) = lab.control.translate(address)
    {
        let physical = (kvm.valid != 0).then(|| format!("{:#x}", kvm.physical_address));
        fields.insert("kvm".to_owned(), json!({ "physical": physical }));
    }
    let answer = report(lab, format, no_other, move |source| {
        Ok(translate_address(&source.ram, root, GuestVirt(address)))
    })?;
    Ok(Answer { fields, ..answer })
}

/// All virtual addresses of a frame in one set of tables.
#[derive(Serialize)]
struct Aliases {
    aliases: Vec<Alias>,
}

impl fmt::Display for Aliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.aliases.iter().try_for_each(|alias| writeln!(f, "{alias}"))
    }
}

/// `aliases`.
pub fn aliases(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let target = Target::given(lab, arguments.text("target"))?;
    let physical = pagelab_abi::addr::GuestPhys(arguments.number("physical").unwrap_or(0));
    report(lab, format, no_other, move |source| {
        let root = target.root(source)?;
        Ok(Aliases { aliases: find_aliases(&*source.ram, root, physical, Range::ALL) })
    })
}

/// `search`.
pub fn search(lab: &mut Lab, arguments: &Arguments, format: Format) -> Result {
    let everywhere = arguments.text("target") == Some("physical");
    let target =
        if everywhere { Target::Kernel } else { Target::given(lab, arguments.text("target"))? };
    let whole = if everywhere { Range::ALL } else { target.range() };
    let request = SearchRequest {
        pattern: pattern(arguments)?,
        alignment: arguments.number("align").unwrap_or(1),
        range: arguments.range("range").map_or(whole, range),
        filter: filter(arguments)?,
        limit: arguments.count("limit", 1000, ROWS)?,
    };
    report(lab, format, no_other, move |source| {
        if everywhere {
            let parts = source.ram.parts().iter().map(|part| (part.start, part.length));
            return Ok(search_physical(&*source.ram, parts.collect::<Vec<_>>(), &request));
        }
        Ok(find(&*source.ram, target.root(source)?, &request))
    })
}

/// What is looked for.
fn pattern(arguments: &Arguments) -> std::result::Result<Pattern, CommandError> {
    let given = (
        arguments.text("text"),
        arguments.text("hex"),
        arguments.number("u32"),
        arguments.number("u64"),
    );
    match given {
        (Some(text), None, None, None) => {
            Pattern::bytes(text.as_bytes()).map_err(|error| wrong(error.to_string()))
        }
        (None, Some(hex), None, None) => {
            let bytes = hex_bytes(hex)
                .ok_or_else(|| wrong("‘hex’: pairs of hexadecimal digits are expected"))?;
            Pattern::bytes(&bytes).map_err(|error| wrong(error.to_string()))
        }
        (None, None, Some(value), None) => {
            u32::try_from(value).map(Pattern::four_bytes).map_err(|_| wrong("‘u32’ has four bytes"))
        }
        (None, None, None, Some(value)) => Ok(Pattern::eight_bytes(value)),
        _ => Err(wrong("what is looked for? One of: text TEXT, hex DIGITS, u32 N, u64 N")),
    }
}

/// Bytes in hexadecimal.
pub fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks_exact(2).map(pair).collect()
}

//! A dump as text for people, as CSV, and as a graph for Graphviz.

use std::fmt::{self, Write};

use pagelab_paging::Entry;

use super::dump::{Dump, Row, RowKind, Shape};
use crate::inspect::value::{Bytes, Hex};
use crate::inspect::walk::LEGEND;

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "root table {}", self.root)?;
        for row in &self.rows {
            match self.shape {
                Shape::Tree => tree_row(f, row)?,
                Shape::Runs | Shape::Entries => page_row(f, row)?,
                Shape::Rights => {
                    writeln!(f, "{} {} {:>6}", Span(row), row.rights, Bytes(row.bytes()))?;
                }
            }
        }
        if self.truncated {
            writeln!(f, "... and more")?;
        }
        for problem in &self.problems {
            writeln!(f, "! {problem}")?;
        }
        if self.problems_left_out > 0 {
            writeln!(f, "! and {} more problems", self.problems_left_out)?;
        }
        let pages = self.pages;
        writeln!(
            f,
            "{} pages of 4 KiB, {} of 2 MiB, {} of 1 GiB; {} tables, {} entries read",
            pages.small, pages.large, pages.giant, self.cost.tables, self.cost.entries
        )?;
        if self.shape == Shape::Rights { Ok(()) } else { writeln!(f, "{LEGEND}") }
    }
}

/// First and last address of a row.
struct Span<'a>(&'a Row);

impl fmt::Display for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.0.first.0, self.0.last.0)
    }
}

fn tree_row(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    const MARGIN: usize = 14;
    let depth = usize::from(4_u8.saturating_sub(row.level));
    let last = u64::from(row.index) + row.entries - 1;
    let mut place = format!("{:depth$}{}[{:03x}", "", row.level, row.index);
    if row.entries > 1 {
        write!(place, "-{last:03x}")?;
    }
    place.push(']');
    write!(
        f,
        "{place:<MARGIN$} {} {:>6} {} {}",
        Span(row),
        Bytes(row.bytes()),
        row.flags,
        row.rights
    )?;
    target(f, row)
}

fn page_row(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    write!(f, "{} {:>6} {} {}", Span(row), Bytes(row.bytes()), row.flags, row.rights)?;
    target(f, row)
}

fn target(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    let outside = if row.in_memory { "" } else { ", not memory" };
    match row.kind {
        RowKind::Table => writeln!(f, " table {}{outside}", row.physical),
        RowKind::Absent => match Entry(row.entry.0).swap_slot() {
            Some(slot) => writeln!(f, " swapped out, slot {slot}"),
            None => writeln!(f, " absent, holds {}", row.entry),
        },
        RowKind::Page => {
            let last = row.physical.0.saturating_add(row.bytes() - 1);
            let size = match row.level {
                1 => "",
                2 => " (2 MiB pages)",
                _ => " (1 GiB pages)",
            };
            writeln!(f, " -> {}-{}{size}{outside}", row.physical, Hex(last))
        }
    }
}

impl Dump {
    /// The rows as comma-separated values with a line of names.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "kind,level,entry_address,index,entries,first,last,entry,physical,flags,rights,\
             in_memory\n",
        );
        for row in &self.rows {
            let kind = match row.kind {
                RowKind::Table => "table",
                RowKind::Page => "page",
                RowKind::Absent => "absent",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{kind},{},{},{},{},{},{},{},{},{},{},{}",
                row.level,
                row.entry_address,
                row.index,
                row.entries,
                row.first,
                row.last,
                row.entry,
                row.physical,
                row.flags,
                row.rights,
                row.in_memory
            );
        }
        text
    }

    /// The tree as a graph: tables and runs of pages are nodes, entries are
    /// edges. Of a dump in another shape than [`Shape::Tree`] there are only the
    /// tables that hold the shown entries.
    #[must_use]
    pub fn dot(&self) -> String {
        let mut text = String::from(
            "digraph pages {\n  rankdir=LR;\n  node [shape=record, fontname=monospace];\n",
        );
        let root = self.root.0;
        let _ = writeln!(text, "  t{root:x} [label=\"root table\\n{root:#x}\"];");
        for (number, row) in self.rows.iter().enumerate() {
            let table = row.entry_address.0 & !0xfff;
            let last = u64::from(row.index) + row.entries - 1;
            let edge = if row.entries > 1 {
                format!("{:x}-{last:x}", row.index)
            } else {
                format!("{:x}", row.index)
            };
            let node = match row.kind {
                RowKind::Table => format!("t{:x}", row.physical.0),
                RowKind::Page | RowKind::Absent => format!("p{number}"),
            };
            let label = match row.kind {
                RowKind::Table => {
                    format!("table of level {}\\n{}", row.level.saturating_sub(1), row.physical)
                }
                RowKind::Page => format!(
                    "{}\\n{} at {}\\n{} {}",
                    row.first,
                    Bytes(row.bytes()),
                    row.physical,
                    row.rights,
                    row.flags
                ),
                RowKind::Absent => format!("{}\\nabsent: {}", row.first, row.entry),
            };
            let _ = writeln!(text, "  {node} [label=\"{label}\"];");
            let _ = writeln!(text, "  t{table:x} -> {node} [label=\"{edge}\"];");
        }
        text.push_str("}\n");
        text
    }
}

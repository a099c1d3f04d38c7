//! Batches: many programs at once, compared by the hashes of their
//! transcripts and by the files that they leave behind.

use std::thread;

use crate::folder::of_program;
use crate::side::{Answer, Side, SideError};

/// What selects and makes the programs, alike on both sides.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Operations of each program.
    pub operations: u32,
    /// Options handed on to the tester on both sides.
    pub options: Vec<String>,
}

impl Programs {
    /// The tester's options for a batch of `count` programs from `seed` on.
    #[must_use]
    pub fn batch(&self, seed: u64, count: u64) -> Vec<String> {
        let mut words: Vec<String> = ["--hash-only", "--seed"].map(str::to_owned).into();
        words.push(seed.to_string());
        words.push("--programs".to_owned());
        words.push(count.to_string());
        self.with_common(words)
    }

    /// The tester's options for one program of which only the operations in
    /// `kept` run, with its transcript.
    #[must_use]
    pub fn replay(&self, seed: u64, kept: &[u32]) -> Vec<String> {
        let indices: Vec<String> = kept.iter().map(ToString::to_string).collect();
        let words = ["--replay".to_owned(), seed.to_string(), "--keep".to_owned()];
        self.with_common(words.into_iter().chain([indices.join(",")]).collect())
    }

    fn with_common(&self, mut words: Vec<String>) -> Vec<String> {
        words.push("--ops".to_owned());
        words.push(self.operations.to_string());
        words.extend(self.options.iter().cloned());
        words
    }
}

/// One line of a batch's output: `seed hash operations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line<'a> {
    seed: u64,
    hash: &'a str,
    operations: u64,
}

fn parse_line(line: &str) -> Option<Line<'_>> {
    let mut words = line.split(' ');
    let line = Line {
        seed: words.next()?.parse().ok()?,
        hash: words.next()?,
        operations: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(line)
}

/// The outcome of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Operations of the programs on which both sides agree.
    pub operations: u64,
    /// Seeds of programs on which they do not.
    pub differing: Vec<u64>,
    /// The first seed that was not compared because a side ended early there.
    /// That seed is among the differing ones.
    pub stopped_at: Option<u64>,
}

/// Runs a batch on both sides at the same time and compares.
///
/// # Errors
///
/// If one of the commands cannot be run at all.
pub fn compare_batch(
    sides: &[Side; 2],
    programs: &Programs,
    seed: u64,
    count: u64,
) -> Result<Comparison, SideError> {
    let [one, other] = run_both(sides, &programs.batch(seed, count))?;
    Ok(compare_answers(&one, &other, seed, count))
}

/// Runs the tester with the same options on both sides at the same time.
///
/// # Errors
///
/// If one of the commands cannot be run at all.
pub fn run_both(sides: &[Side; 2], options: &[String]) -> Result<[Answer; 2], SideError> {
    let [one, other] = sides;
    thread::scope(|scope| {
        let other = scope.spawn(|| other.run(options));
        let one = one.run(options)?;
        match other.join() {
            Ok(answer) => Ok([one, answer?]),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn compare_answers(one: &Answer, other: &Answer, seed: u64, count: u64) -> Comparison {
    let mut result = Comparison { operations: 0, differing: Vec::new(), stopped_at: None };
    let files = one.files.as_ref().zip(other.files.as_ref());
    let same_files =
        |seed| files.is_none_or(|(one, other)| of_program(one, seed) == of_program(other, seed));
    let mut lines = one.output.lines().map(parse_line).zip(other.output.lines().map(parse_line));

    for expected in seed..seed.saturating_add(count) {
        match lines.next() {
            Some((Some(one), Some(other))) if one.seed == expected && other.seed == expected => {
                if one == other && same_files(expected) {
                    result.operations += one.operations;
                } else {
                    result.differing.push(expected);
                }
            }
            _ => {
                result.differing.push(expected);
                result.stopped_at = Some(expected);
                break;
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side::Ending;

    fn compare(one: &str, other: &str, seed: u64, count: u64) -> Comparison {
        let [one, other] = [one, other].map(|output| answer(output, &[]));
        compare_answers(&one, &other, seed, count)
    }

    fn answer(output: &str, files: &[&str]) -> Answer {
        Answer {
            output: output.to_owned(),
            errors: String::new(),
            ending: Ending::Exited(Some(0)),
            files: Some(files.iter().map(|&line| line.to_owned()).collect()),
        }
    }

    #[test]
    fn programs_that_leave_other_files_differ() {
        let text = "5 aa 60\n6 bb 60\n";
        let one = answer(text, &["5/a 1 bytes: 01", "6/a 1 bytes: 01"]);
        let other = answer(text, &["5/a 1 bytes: 01", "6/a 1 bytes: 02"]);
        assert_eq!(compare_answers(&one, &other, 5, 2).differing, [6]);
        assert!(compare_answers(&one, &one, 5, 2).differing.is_empty());
    }

    #[test]
    fn agreeing_batches_count_their_operations() {
        let text = "5 aa 60\n6 bb 40\n";
        let result = compare(text, text, 5, 2);
        assert_eq!(result, Comparison { operations: 100, differing: vec![], stopped_at: None });
    }

    #[test]
    fn each_differing_program_is_named() {
        let result = compare("5 aa 60\n6 bb 60\n", "5 aa 60\n6 cc 60\n", 5, 2);
        assert_eq!(result, Comparison { operations: 60, differing: vec![6], stopped_at: None });
    }

    #[test]
    fn a_side_that_ends_early_differs_where_it_ended() {
        let result = compare("5 aa 60\n6 bb 60\n7 cc 60\n", "5 aa 60\n", 5, 3);
        assert_eq!(result, Comparison { operations: 60, differing: vec![6], stopped_at: Some(6) });
    }

    #[test]
    fn both_sides_saying_nothing_is_no_agreement() {
        let result = compare("", "", 5, 3);
        assert_eq!(result.differing, [5]);
        let result = compare("cannot\n", "cannot\n", 5, 3);
        assert_eq!(result.differing, [5]);
    }
}

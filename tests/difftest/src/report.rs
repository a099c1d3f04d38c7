//! What a person sees of a difference: the minimal program, and both
//! transcripts side by side.

use std::fmt::Write as _;

use crate::side::Answer;

/// The index at the start of a transcript's line, such as 12 in
/// `  12 write …`; lines of tables have none.
fn index_of(line: &str) -> Option<u32> {
    let word = line.trim_start().split(' ').next()?;
    word.parse().ok()
}

/// The index of the operation in whose lines two transcripts differ first.
///
/// None if the transcripts are equal or differ outside of any operation.
#[must_use]
pub fn first_difference(one: &str, other: &str) -> Option<u32> {
    let mut index = None;
    let mut others = other.lines();

    for line in one.lines() {
        let other = others.next();
        index = index_of(line).or(index);
        if other != Some(line) {
            // A line that is missing or extra belongs to the later one.
            return index.max(other.and_then(index_of));
        }
    }
    others.next().and_then(index_of).or(index)
}

/// The program alone: what each operation is, without what came out of it.
#[must_use]
pub fn program_of(transcript: &str) -> String {
    let mut text = String::new();
    for line in transcript.lines() {
        if let Some((operation, _)) = line.split_once(" = ")
            && index_of(operation).is_some()
        {
            text.push_str("  ");
            text.push_str(operation);
            text.push('\n');
        }
    }
    text
}

/// Both transcripts as one text: common lines once, differing ones marked with
/// each side's name.
#[must_use]
pub fn side_by_side(names: [&str; 2], answers: [&Answer; 2]) -> String {
    let [one, other] = answers.map(|answer| answer.output.lines().collect::<Vec<_>>());
    let width = names.map(str::len).into_iter().max().unwrap_or(0);
    let mut text = String::new();
    let mut show = |name: &str, line: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:width$} | {line}");
    };

    let (mut i, mut j) = (0, 0);
    for (a, b) in common_lines(&one, &other).into_iter().chain([(one.len(), other.len())]) {
        one[i..a].iter().for_each(|line| show(names[0], line));
        other[j..b].iter().for_each(|line| show(names[1], line));
        if let Some(line) = one.get(a) {
            show("", line);
        }
        (i, j) = (a + 1, b + 1);
    }
    for (name, answer, other) in
        [(names[0], answers[0], answers[1]), (names[1], answers[1], answers[0])]
    {
        if let (Some(here), Some(there)) = (&answer.files, &other.files) {
            let only_here = here.iter().filter(|line| !there.contains(line));
            only_here.for_each(|line| show(name, &format!("leaves {line}")));
        }
        show(name, &format!("({})", answer.ending));
        answer.errors.lines().for_each(|line| show(name, &format!("stderr: {line}")));
    }
    text
}

/// Pairs of equal lines' positions, in order, as many as can be: the longest
/// common subsequence. Transcripts of single programs are short.
fn common_lines(one: &[&str], other: &[&str]) -> Vec<(usize, usize)> {
    let columns = other.len() + 1;
    let mut longest = vec![0u32; (one.len() + 1) * columns];
    for i in (0..one.len()).rev() {
        for j in (0..other.len()).rev() {
            longest[i * columns + j] = if one[i] == other[j] {
                longest[(i + 1) * columns + j + 1] + 1
            } else {
                longest[(i + 1) * columns + j].max(longest[i * columns + j + 1])
            };
        }
    }

    let (mut pairs, mut i, mut j) = (Vec::new(), 0, 0);
    while i < one.len() && j < other.len() {
        if one[i] == other[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if longest[(i + 1) * columns + j] >= longest[i * columns + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side::Ending;

    fn answer(output: &str) -> Answer {
        Answer {
            output: output.to_owned(),
            errors: String::new(),
            ending: Ending::Exited(Some(0)),
            files: None,
        }
    }

    #[test]
    fn the_first_difference_is_found_by_operation() {
        let one = "0 mmap = A\n3 maps = \n    A B rw-p\n5 read = 1\n";
        assert_eq!(first_difference(one, one), Some(5), "equal: the last operation");
        assert_eq!(first_difference(one, "0 mmap = A\n3 maps = \n5 read = 1\n"), Some(5));
        assert_eq!(first_difference(one, "0 mmap = B\n"), Some(0));
        assert_eq!(
            first_difference(one, "0 mmap = A\n3 maps = \n    A C rw-p\n5 read = 1\n"),
            Some(3)
        );
        assert_eq!(first_difference(one, "0 mmap = A\n"), Some(3));
    }

    #[test]
    fn the_program_is_the_operations_without_results() {
        let text = "0 mmap A = A faults 0\n1 maps = \n    A B rw-p\n  2 read A = 0x0 faults 1\n1 child ended 0x0\n";
        assert_eq!(program_of(text), "  0 mmap A\n  1 maps\n    2 read A\n");
    }

    #[test]
    fn files_that_differ_are_shown() {
        let (mut one, mut other) = (answer("a\n"), answer("a\n"));
        one.files = Some(vec!["1/".to_owned(), "1/a 1 bytes: 01".to_owned()]);
        other.files = Some(vec!["1/".to_owned(), "1/a 1 bytes: 02".to_owned()]);
        let text = side_by_side(["linux", "lab"], [&one, &other]);
        assert!(text.contains("linux | leaves 1/a 1 bytes: 01\n"), "{text}");
        assert!(text.contains("lab   | leaves 1/a 1 bytes: 02\n"), "{text}");
        assert_eq!(text.matches("leaves").count(), 2, "{text}");
    }

    #[test]
    fn common_lines_are_shown_once() {
        let (one, other) = (answer("a\nb\nc\n"), answer("a\nx\nc\ny\n"));
        let text = side_by_side(["linux", "lab"], [&one, &other]);
        let expected = "        | a\n  linux | b\n  lab   | x\n        | c\n  lab   | y\n";
        assert!(text.starts_with(expected), "{text}");
    }
}

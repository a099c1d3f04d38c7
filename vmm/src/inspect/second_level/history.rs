//! How the backing of guest memory grew.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::backing::BackingMap;

/// The backing at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// When, since the history began.
    pub time: Duration,
    /// Pages that exist.
    pub backed: u64,
    /// Those of them that the VMM maps.
    pub mapped: u64,
    /// Those of them that it maps as part of large ones.
    pub huge: u64,
}

/// Samples of the backing, the oldest dropped when there are many.
#[derive(Debug)]
pub struct History {
    began: Instant,
    samples: VecDeque<Sample>,
}

/// How many samples are kept.
const MOST: usize = 4096;

impl Default for History {
    fn default() -> Self {
        Self { began: Instant::now(), samples: VecDeque::new() }
    }
}

impl History {
    /// Adds what was just seen, unless nothing changed.
    pub fn add(&mut self, map: &BackingMap) {
        let BackingMap { backed, mapped, huge, .. } = *map;
        let sample = Sample { time: self.began.elapsed(), backed, mapped, huge };
        let same = |last: &Sample| (last.backed, last.mapped, last.huge) == (backed, mapped, huge);
        if self.samples.back().is_some_and(same) {
            return;
        }
        if self.samples.len() == MOST {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The samples, oldest first.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }
}

impl Serialize for History {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.samples)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>10} {:>9} {:>9} {:>9}", "SECONDS", "BACKED", "MAPPED", "HUGE")?;
        for Sample { time, backed, mapped, huge } in &self.samples {
            writeln!(f, "{:>10.3} {backed:>9} {mapped:>9} {huge:>9}", time.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_kept() {
        let mut history = History::default();
        for backed in [1, 1, 2, 2, 1] {
            history.add(&BackingMap { backed, ..BackingMap::default() });
        }
        let backed: Vec<_> = history.samples().map(|sample| sample.backed).collect();
        assert_eq!(backed, [1, 2, 1]);
    }
}

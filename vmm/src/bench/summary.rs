//! Least and median: what a benchmark on a busy machine can say.

use serde::Serialize;

/// Of several measurements of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The least.
    pub least: f64,
    /// As many were above as below.
    pub median: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Summary {
    /// Of these values; `None` if there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (&least, &greatest) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { least, median, greatest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = Summary::of([3.0, 1.0, 100.0]).unwrap();
        assert_eq!((odd.least, odd.median, odd.greatest), (1.0, 3.0, 100.0));
        assert_eq!(Summary::of([4.0, 2.0]).unwrap().median, 3.0);
        assert_eq!(Summary::of([]), None);
    }
}

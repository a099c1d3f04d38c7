//! Shrinking: the fewest operations that still show a difference.
//!
//! Delta debugging: larger parts of the program are left out first, then ever
//! smaller ones, until leaving out any single operation makes the difference
//! go away. What is left out never changes what the other operations do, as
//! each is made from the seed and its own index.

/// Leaves out of `items` what is not needed for `differs` to stay true, in at
/// most `attempts` calls of it.
///
/// `differs` is taken to be true for all of `items`. The result keeps their
/// order; unless the attempts ran out, no single item of it can be left out.
///
/// # Errors
///
/// The first error of `differs`.
pub fn shrink<E>(
    items: Vec<u32>,
    mut attempts: u32,
    mut differs: impl FnMut(&[u32]) -> Result<bool, E>,
) -> Result<Vec<u32>, E> {
    let mut kept = items;
    let mut chunk = kept.len().div_ceil(2);

    while chunk > 0 {
        let mut removed_any = false;
        // From the end: what comes last depends on what came before it.
        let mut end = kept.len();
        while end > 0 && attempts > 0 {
            let start = end.saturating_sub(chunk);
            let candidate = [&kept[..start], &kept[end..]].concat();
            attempts -= 1;
            if differs(&candidate)? {
                kept = candidate;
                removed_any = true;
            }
            end = start;
        }
        if attempts == 0 {
            break;
        }
        chunk = match chunk {
            1 if removed_any => 1,
            1 => 0,
            _ => chunk.div_ceil(2),
        };
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn shrink_to(needed: &[u32], count: u32, attempts: u32) -> (Vec<u32>, u32) {
        let mut calls = 0;
        let result: Result<_, Infallible> = shrink((0..count).collect(), attempts, |items| {
            calls += 1;
            Ok(needed.iter().all(|item| items.contains(item)))
        });
        let Ok(kept) = result;
        (kept, calls)
    }

    #[test]
    fn exactly_what_is_needed_remains() {
        for needed in [&[0][..], &[59], &[3, 17, 42], &[0, 1, 2, 3], &[10, 58, 59]] {
            let (kept, calls) = shrink_to(needed, 60, 1000);
            assert_eq!(kept, needed);
            assert!(calls < 200, "{calls} calls for {needed:?}");
        }
    }

    #[test]
    fn nothing_remains_if_nothing_is_needed() {
        assert_eq!(shrink_to(&[], 60, 1000).0, [0u32; 0]);
    }

    #[test]
    fn attempts_are_limited_and_the_result_still_differs() {
        let (kept, calls) = shrink_to(&[3, 17, 42], 60, 10);
        assert_eq!(calls, 10);
        assert!([3, 17, 42].iter().all(|item| kept.contains(item)));
    }

    #[test]
    fn what_only_single_removals_open_up_is_found() {
        // 7 can only go once 9 has gone.
        let result: Result<_, Infallible> = shrink((0..12).collect(), 1000, |items| {
            Ok(items.contains(&2) && (items.contains(&7) || !items.contains(&9)))
        });
        assert_eq!(result, Ok(vec![2]));
    }

    #[test]
    fn an_error_ends_it() {
        let result = shrink((0..4).collect(), 100, |_| Err("broken"));
        assert_eq!(result, Err("broken"));
    }
}

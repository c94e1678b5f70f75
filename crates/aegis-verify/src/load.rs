//! How much of the device the tasks of a partition use, and how that compares with all of it.
//!
//! Shares are kept in units of 2^-63 and rounded up, so their sum settles every set but one that uses
//! the device to within a few of these units. Such a set is summed over the common multiple of its
//! periods, exactly, or not decided.

use std::cmp::Ordering;

use crate::charge::Task;
use crate::fault::{Fault, LONGEST_WINDOW, Time};

/// All of the device.
pub(crate) const ONE: Time = 1 << 63;

/// `cost / period` in units of 2^-63, rounded up, 2^64 - 1 at most.
pub(crate) fn share(cost: Time, period: Time) -> u64 {
    u64::try_from((cost * ONE).div_ceil(period)).unwrap_or(u64::MAX)
}

/// The shares of all tasks together, 2^64 - 1 at most.
pub(crate) fn shares(tasks: &[Task]) -> u64 {
    tasks.iter().fold(0, |sum, task| sum.saturating_add(share(task.cost, task.period)))
}

/// How `sum C/T` compares with 1.
pub(crate) fn load(place: &str, tasks: &[Task]) -> Result<Ordering, Fault> {
    // Each share is rounded up by less than one unit.
    let (up, count) = (Time::from(shares(tasks)), tasks.len() as Time);
    if up < ONE {
        return Ok(Ordering::Less);
    }
    if up >= ONE + count {
        return Ok(Ordering::Greater);
    }
    let exact = || {
        let all = tasks.iter().try_fold(1, |all, task| common(all, task.period))?;
        let add =
            |sum: Time, task: &Task| sum.checked_add(task.cost.checked_mul(all / task.period)?);
        Some(tasks.iter().try_fold(0, add)?.cmp(&all))
    };
    let why = "whether the device is used completely cannot be told in 128 bits";
    exact().ok_or(Fault::Senseless { place: place.to_owned(), why })
}

/// After which time all releases repeat: the least common multiple of the periods.
pub(crate) fn cycle(place: &str, tasks: &[Task]) -> Result<Time, Fault> {
    let all = tasks.iter().try_fold(1, |all, task| common(all, task.period));
    let why = "the device is used completely, and the periods have no common multiple below 2^63";
    let all = all.filter(|all| *all < LONGEST_WINDOW);
    all.ok_or(Fault::Senseless { place: place.to_owned(), why })
}

/// The least common multiple, if 128 bits hold it.
fn common(a: Time, b: Time) -> Option<Time> {
    let (mut divisor, mut rest) = (a, b);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor).checked_mul(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(shares: &[(Time, Time)]) -> Vec<Task> {
        let task = |(cost, period): &(Time, Time)| Task {
            model: 0,
            cost: *cost,
            longest: *cost,
            last: *cost,
            period: *period,
            deadline: *period,
            jitter: 0,
            urgency: 0,
        };
        shares.iter().map(task).collect()
    }

    #[test]
    fn seven_sevenths_are_one_and_a_part_in_ten_to_the_eight_counts() {
        let load = |shares: &[(Time, Time)]| load("here", &tasks(shares)).expect("decided");
        assert_eq!(load(&[(1, 7); 7]), Ordering::Equal);
        assert_eq!(load(&[(1, 7); 6]), Ordering::Less);
        assert_eq!(load(&[(1, 2), (50_000_001, 100_000_000)]), Ordering::Greater);
        assert_eq!(load(&[(1, 2), (49_999_999, 100_000_000)]), Ordering::Less);
        let third = ((1 << 62) - 1) / 3;
        assert_eq!(load(&[(1, 3), (2 * third, 3 * third)]), Ordering::Equal);
        assert_eq!(load(&[(1, 3), (2 * third + 1, 3 * third)]), Ordering::Greater);
        assert_eq!(load(&[]), Ordering::Less);
        assert_eq!(load(&[(3, 1)]), Ordering::Greater);
    }

    #[test]
    fn what_128_bits_do_not_hold_is_not_decided() {
        // Thirds that add up to all of the device within a unit, of periods without a common multiple.
        let odd = [((1u128 << 62) - 1, 0), ((1 << 62) - 3, 0), ((1 << 62) - 5, 1)];
        let whole: Vec<_> = odd.iter().map(|(period, more)| (period / 3 + more, *period)).collect();
        assert!(load("here", &tasks(&whole)).is_err());
        assert!(cycle("here", &tasks(&whole)).is_err());
        assert_eq!(cycle("here", &tasks(&[(1, 4), (1, 6)])), Ok(12));
    }
}

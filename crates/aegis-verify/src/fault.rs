//! What is wrong with a certificate, and where.

use std::fmt::Display;

use aegis_trace::Category;

/// A time, or work, in nanoseconds. In 128 bits nothing overflows: times are at most 2^62, and sums
/// saturate.
pub(crate) type Time = u128;

/// The longest period, deadline, jitter or cost that is read: 2^62 ns, about 146 years.
pub(crate) const LONGEST: Time = 1 << 62;
/// How many jobs of one busy period anybody looks at. A set whose busy period holds more, or is longer
/// than the longest window, may be left without an answer.
pub const JOBS_MAX: u64 = 1 << 17;
/// The longest window that is looked at.
pub(crate) const LONGEST_WINDOW: Time = 1 << 63;
/// How much a check may cost, in terms: one task at one window, or one pair of tensors. Some
/// seconds, and a thousand times what the certificate of 24 models takes.
const WORK_MAX: u64 = 1 << 28;

/// The first thing that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A number is not what follows from the others.
    #[error("{place}: the certificate says {stated}, and what follows is {found}")]
    Differs {
        /// Where: a path of keys.
        place: String,
        /// What is written there.
        stated: String,
        /// What should be.
        found: String,
    },
    /// An inequality that must hold does not, or the other way round.
    #[error("{place}: {what}, and here it is {left} against {right}")]
    Inequality {
        /// Where: a path of keys.
        place: String,
        /// What must hold.
        what: &'static str,
        /// Its left side.
        left: String,
        /// Its right side.
        right: String,
    },
    /// The entry makes no sense there.
    #[error("{place}: {why}")]
    Senseless {
        /// Where: a path of keys.
        place: String,
        /// What would be right.
        why: &'static str,
    },
    /// The numbers hold together, and are not the ones that were sealed.
    #[error("seal: the content was changed after it was written")]
    Seal,
    /// More work than this program does for one certificate.
    #[error("{place}: checking this takes more than {limit} steps, which this program does not do")]
    TooMuch {
        /// Where: a path of keys.
        place: String,
        /// The limit.
        limit: u64,
    },
}

impl Fault {
    /// Always [`Category::Permanent`]: the file must change.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Differs { .. }
            | Self::Inequality { .. }
            | Self::Senseless { .. }
            | Self::Seal
            | Self::TooMuch { .. } => Category::Permanent,
        }
    }
}

/// `Ok` if what is written is what follows.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    place: impl Display,
    stated: T,
    found: T,
) -> Result<(), Fault> {
    if stated == found {
        return Ok(());
    }
    let (stated, found) = (format!("{stated:?}"), format!("{found:?}"));
    Err(Fault::Differs { place: place.to_string(), stated, found })
}

/// `Ok` if `left <= right`, which is what `what` says.
pub(crate) fn at_most(
    place: impl Display,
    what: &'static str,
    left: impl Into<Time>,
    right: impl Into<Time>,
) -> Result<(), Fault> {
    ordered(place, what, left.into(), right.into(), |left, right| left <= right)
}

/// `Ok` if `left > right`, which is what `what` says.
pub(crate) fn exceeds(
    place: impl Display,
    what: &'static str,
    left: impl Into<Time>,
    right: impl Into<Time>,
) -> Result<(), Fault> {
    ordered(place, what, left.into(), right.into(), |left, right| left > right)
}

fn ordered(
    place: impl Display,
    what: &'static str,
    left: Time,
    right: Time,
    holds: fn(Time, Time) -> bool,
) -> Result<(), Fault> {
    if holds(left, right) {
        return Ok(());
    }
    let (left, right) = (left.to_string(), right.to_string());
    Err(Fault::Inequality { place: place.to_string(), what, left, right })
}

/// `Ok` if `holds`; `why` says what would be right.
pub(crate) fn require(place: impl Display, why: &'static str, holds: bool) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault::Senseless { place: place.to_string(), why }) }
}

/// Work that is left.
pub(crate) struct Work {
    left: u64,
}

impl Work {
    pub(crate) fn new() -> Self {
        Self { left: WORK_MAX }
    }

    /// Takes `terms`, and one at least, so that no loop is free.
    pub(crate) fn spend(&mut self, place: &str, terms: usize) -> Result<(), Fault> {
        let terms = u64::try_from(terms).unwrap_or(u64::MAX).max(1);
        self.left = self
            .left
            .checked_sub(terms)
            .ok_or_else(|| Fault::TooMuch { place: place.to_owned(), limit: WORK_MAX })?;
        Ok(())
    }
}

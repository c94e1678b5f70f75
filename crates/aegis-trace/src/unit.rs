//! Time and size: the only places that know a unit.
//!
//! Lengths of time are [`Nanos`], points on the trace clock are [`Timestamp`], sizes are
//! [`Bytes`]; all are unsigned 64-bit integers, so analyses are exact, simulations can invent
//! points, and traces replay. 2^64 ns are 584 years.
//!
//! # Invariants
//! 1. `+`, `-` and `*` panic on overflow in every build (the workspace keeps `overflow-checks` on
//!    in release): a wrapped bound would be a false promise. Use `checked_*` or `saturating_*`
//!    where the input is not yet known to be sane.
//! 2. `Timestamp - Timestamp = Nanos` and `Timestamp + Nanos = Timestamp`; nothing else mixes.
//! 3. Text is parsed with an explicit unit and without floating point.
//! 4. A time is shown against ourselves, and this file alone knows how: rounded up, since most are
//!    costs, demands, bounds and responses; what is room to spare (windows, deadlines, slack, margins)
//!    asks for [`Nanos::cut`]. [`Nanos::shown`] is the length that the text says, read back exactly.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Rem, Sub, SubAssign};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::UnitError;

/// A length of time in whole nanoseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// The smallest positive length, 1 ns: the tick of dense-time arguments.
    pub const EPSILON: Self = Self(1);
    /// The longest length; also "for ever".
    pub const MAX: Self = Self(u64::MAX);

    /// `n` microseconds.
    #[must_use]
    pub const fn from_micros(n: u64) -> Self {
        Self(n * 1_000)
    }

    /// `n` milliseconds.
    #[must_use]
    pub const fn from_millis(n: u64) -> Self {
        Self(n * 1_000_000)
    }

    /// `n` seconds.
    #[must_use]
    pub const fn from_secs(n: u64) -> Self {
        Self(n * 1_000_000_000)
    }

    /// Whether it is no time at all.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// The count of nanoseconds.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Milliseconds as a float, for display alone.
    #[must_use]
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// `self + other`, or `None` past 2^64 ns.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// `self - other`, or `None` when `other` is longer.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// `self * count`, or `None` past 2^64 ns.
    #[must_use]
    pub const fn checked_mul(self, count: u64) -> Option<Self> {
        match self.0.checked_mul(count) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// `self + other`, at most [`Nanos::MAX`].
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// `self - other`, at least zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self * count`, at most [`Nanos::MAX`].
    #[must_use]
    pub const fn saturating_mul(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// The length that `Display` says for this one: the least of three decimals that is not shorter,
    /// at most [`Nanos::MAX`]. What is offered in print is offered at this length, so that who types it
    /// in asks for just that.
    #[must_use]
    pub const fn shown(self) -> Self {
        match self.0.checked_next_multiple_of(self.scale().0.div_ceil(1_000)) {
            Some(n) => Self(n),
            None => Self::MAX,
        }
    }

    /// The same length for display rounded down: of room to spare, which is never shown larger than it
    /// is.
    #[must_use]
    pub const fn cut(self) -> Cut {
        Cut(self)
    }

    /// The largest unit that keeps a whole part, in nanoseconds and by its name.
    const fn scale(self) -> (u64, &'static str) {
        match self.0 {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "us"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        }
    }

    /// How many whole or begun `step`s fit: `ceil(self / step)`.
    ///
    /// # Panics
    /// When `step` is zero.
    #[must_use]
    pub const fn div_ceil(self, step: Self) -> u64 {
        self.0.div_ceil(step.0)
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Nanos {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Nanos {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl SubAssign for Nanos {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Mul<u64> for Nanos {
    type Output = Self;
    fn mul(self, count: u64) -> Self {
        Self(self.0 * count)
    }
}

/// How many whole times the divisor fits.
impl Div for Nanos {
    type Output = u64;
    fn div(self, other: Self) -> u64 {
        self.0 / other.0
    }
}

impl Rem for Nanos {
    type Output = Self;
    fn rem(self, other: Self) -> Self {
        Self(self.0 % other.0)
    }
}

impl Sum for Nanos {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

/// Rounds nothing: a [`Duration`] is whole nanoseconds too. Saturates past 2^64 ns.
impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Nanos> for Duration {
    fn from(nanos: Nanos) -> Self {
        Self::from_nanos(nanos.0)
    }
}

/// Three decimals at most, rounded up, in the largest unit that keeps a whole part: `12.5 ms`,
/// `800 ns`. See [`Nanos::cut`] for the other direction.
impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown().cut().fmt(f)
    }
}

/// A length that is shown rounded down: see [`Nanos::cut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut(Nanos);

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scale, unit) = self.0.scale();
        f.pad(&decimal(self.0.0, scale, unit))
    }
}

/// Which way a time is rounded where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Costs, demands, bounds, blocking.
    Up,
    /// Room to spare: windows, deadlines, budgets, slack.
    Down,
}

impl Rounding {
    /// `time` in words.
    #[must_use]
    pub fn words(self, time: Nanos) -> String {
        match self {
            Self::Up => time.to_string(),
            Self::Down => time.cut().to_string(),
        }
    }
}

/// `"33ms"`, `"1.5s"`, `"200us"`, `"10 ns"`, `"2min"`, `"1h"`: a decimal number and a unit. Digits
/// finer than a nanosecond are refused rather than rounded.
impl FromStr for Nanos {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        const UNITS: &[(&str, u64)] = &[
            ("ns", 1),
            ("us", 1_000),
            ("µs", 1_000),
            ("ms", 1_000_000),
            ("s", 1_000_000_000),
            ("min", 60_000_000_000),
            ("h", 3_600_000_000_000),
        ];
        parse_scaled(text, UNITS, "ns, us, ms, s, min or h").map(Self)
    }
}

/// A point on the trace clock: nanoseconds since the clock's origin.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);
    /// A point that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The length from `earlier` to `self`; zero when `earlier` is the later one.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point `after` this one, at most [`Timestamp::NEVER`].
    #[must_use]
    pub const fn saturating_add(self, after: Nanos) -> Self {
        Self(self.0.saturating_add(after.0))
    }

    /// The point `before` this one, at least [`Timestamp::ZERO`].
    #[must_use]
    pub const fn saturating_sub(self, before: Nanos) -> Self {
        Self(self.0.saturating_sub(before.0))
    }
}

impl Add<Nanos> for Timestamp {
    type Output = Self;
    fn add(self, after: Nanos) -> Self {
        Self(self.0 + after.0)
    }
}

impl Sub for Timestamp {
    type Output = Nanos;
    fn sub(self, earlier: Self) -> Nanos {
        Nanos(self.0 - earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{:09} s", self.0 / 1_000_000_000, self.0 % 1_000_000_000))
    }
}

/// A size in bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// `n` binary kilobytes.
    #[must_use]
    pub const fn from_kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` binary megabytes.
    #[must_use]
    pub const fn from_mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` binary gigabytes.
    #[must_use]
    pub const fn from_gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The count of bytes.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The count as an index of this machine.
    ///
    /// # Panics
    /// When the size exceeds the address space, which no size that was allocated does.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).expect("a size in memory fits the address space")
    }

    /// `self + other`, or `None` past 2^64 bytes.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// `self - other`, at least zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The next multiple of `alignment`, or `None` past 2^64 bytes.
    ///
    /// # Panics
    /// When `alignment` is zero.
    #[must_use]
    pub const fn checked_align_up(self, alignment: u64) -> Option<Self> {
        match self.0.checked_next_multiple_of(alignment) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }
}

impl Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Bytes {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

/// Three decimals at most, in the largest binary unit that keeps a whole part: `1.5 GiB`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = match self.0 {
            0..0x400 => (0, "B"),
            0x400..0x10_0000 => (10, "KiB"),
            0x10_0000..0x4000_0000 => (20, "MiB"),
            _ => (30, "GiB"),
        };
        f.pad(&decimal(self.0, 1 << shift, unit))
    }
}

/// `"8GiB"`, `"1.5 MiB"`, `"4096B"`, `"2GB"`: a decimal number and a unit, binary or decimal.
impl FromStr for Bytes {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        const UNITS: &[(&str, u64)] = &[
            ("B", 1),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("kB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
        ];
        parse_scaled(text, UNITS, "B, KiB, MiB, GiB, kB, MB or GB").map(Self)
    }
}

/// `value / scale` with up to three decimals, trailing zeros dropped, cut and not rounded.
fn decimal(value: u64, scale: u64, unit: &str) -> String {
    let whole = value / scale;
    let thousandths = u128::from(value % scale) * 1_000 / u128::from(scale);
    let fraction = format!("{thousandths:03}");
    match fraction.trim_end_matches('0') {
        "" => format!("{whole} {unit}"),
        digits => format!("{whole}.{digits} {unit}"),
    }
}

/// Parses `<decimal><unit>` exactly.
fn parse_scaled(
    text: &str,
    units: &[(&str, u64)],
    expected: &'static str,
) -> Result<u64, UnitError> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err(UnitError::Negative { text: text.into() });
    }
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim_start());
    if unit.is_empty() {
        return Err(UnitError::MissingUnit { text: text.into(), expected });
    }
    let Some(&(_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::UnknownUnit { unit: unit.into(), expected });
    };
    let malformed = || UnitError::NotANumber { text: text.into() };
    let too_large = || UnitError::TooLarge { text: text.into() };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(malformed());
    }
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let fraction = fraction.trim_end_matches('0');
    let digits = u32::try_from(fraction.len()).map_err(|_| malformed())?;
    let numerator: u64 =
        if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| malformed())? };
    let denominator = 10u64.checked_pow(digits).ok_or_else(malformed)?;
    let scaled = u128::from(numerator) * u128::from(scale);
    if !scaled.is_multiple_of(u128::from(denominator)) {
        return Err(UnitError::TooFine { text: text.into() });
    }
    let fraction = u64::try_from(scaled / u128::from(denominator)).map_err(|_| too_large())?;
    whole.checked_mul(scale).and_then(|n| n.checked_add(fraction)).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_exactly_or_not_at_all() {
        let ok = |text: &str| text.parse::<Nanos>().expect(text).as_nanos();
        assert_eq!(ok("33ms"), 33_000_000);
        assert_eq!(ok("1.5 s"), 1_500_000_000);
        assert_eq!(ok("0.001us"), 1);
        assert_eq!(ok("2min"), 120_000_000_000);
        let err = |text: &str| text.parse::<Nanos>().expect_err(text).to_string();
        assert_eq!(err("-5ms"), "`-5ms` is negative");
        assert_eq!(err("33"), "`33` has no unit; write one of ns, us, ms, s, min or h");
        assert_eq!(err("33 parsecs"), "`parsecs` is no unit; write one of ns, us, ms, s, min or h");
        assert_eq!(err("0.5ns"), "`0.5ns` is finer than the smallest unit");
        assert_eq!(err("999999999999h"), "`999999999999h` is too large");
        assert_eq!(err("1.2.3ms"), "`1.2.3ms` is not a decimal number with a unit");
        assert_eq!(err("ms"), "`ms` is not a decimal number with a unit");
    }

    #[test]
    fn sizes_parse_in_binary_and_decimal_units() {
        assert_eq!("8GiB".parse::<Bytes>().expect("size"), Bytes::from_gib(8));
        assert_eq!("1.5 MiB".parse::<Bytes>().expect("size"), Bytes(3 << 19));
        assert_eq!("2GB".parse::<Bytes>().expect("size"), Bytes(2_000_000_000));
        assert!("8G".parse::<Bytes>().is_err());
    }

    #[test]
    fn a_time_is_shown_no_shorter_and_room_no_longer_than_it_is() {
        assert_eq!(Nanos(5_214_782).to_string(), "5.215 ms");
        assert_eq!(Nanos(5_214_782).cut().to_string(), "5.214 ms");
        assert_eq!(Nanos(999_999_999).to_string(), "1 s", "the next unit, where it comes to that");
        assert_eq!(Nanos(999_999_999).cut().to_string(), "999.999 ms");
        assert_eq!(Nanos::MAX.shown(), Nanos::MAX);
        assert_eq!(Nanos(12_500_000).to_string(), "12.5 ms");
        assert_eq!(Nanos(800).to_string(), "800 ns");
        assert_eq!(Bytes(1536).to_string(), "1.5 KiB");
        assert_eq!(format!("{:>8}|", Nanos(5_000)), "    5 us|");
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_reads_back_as_said_and_lies_on_the_right_side(
            digits in 0u32..19, n in 0u64..=u64::MAX
        ) {
            let time = Nanos(n / 10u64.pow(digits));
            let up = time.to_string().parse::<Nanos>();
            let down = time.cut().to_string().parse::<Nanos>().expect("whole nanoseconds");
            proptest::prop_assert!(down <= time);
            if time.shown() < Nanos::MAX {
                proptest::prop_assert_eq!(up, Ok(time.shown()));
                proptest::prop_assert!(time <= time.shown());
                let step = time.shown().0 - down.0;
                proptest::prop_assert!(u128::from(step) * 1_000 <= u128::from(time.0).max(1_000));
            }
        }

        #[test]
        fn whole_nanoseconds_round_trip_through_text(n in 0u64..=u64::MAX) {
            proptest::prop_assert_eq!(format!("{n}ns").parse::<Nanos>(), Ok(Nanos(n)));
        }
    }
}

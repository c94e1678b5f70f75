//! Shares between zero and one, exact to the twelfth decimal.
//!
//! A coverage of 0.999 as a binary float is a little less or a little more than 0.999, and the
//! number of samples it needs can differ by one for that. So a [`Share`] is a whole number of
//! trillionths, read from decimal digits.

use std::fmt;
use std::str::FromStr;

use aegis_trace::Category;
use serde::{Deserialize, Serialize};

/// A share `s` with `0 < s < 1`, in trillionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share {
    trillionths: u64,
}

/// Digits behind the point.
const DIGITS: usize = 12;
/// One, in trillionths.
const ONE: u64 = 1_000_000_000_000;

/// Why a text is no share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// It is not a decimal number.
    #[error(
        "`{text}` is no share; write a decimal number between 0 and 1, or a percentage, as 0.999 or 99.9%"
    )]
    NotDecimal {
        /// What was written, shortened.
        text: String,
    },
    /// It is zero, one, or beyond.
    #[error("`{text}` is not strictly between 0 and 1 (0% and 100%)")]
    OutOfRange {
        /// What was written.
        text: String,
    },
    /// It has more decimals than are kept.
    #[error("`{text}` has more than 12 decimals; a share is kept in trillionths")]
    TooFine {
        /// What was written, shortened.
        text: String,
    },
}

impl ShareError {
    /// Always [`Category::Permanent`].
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::NotDecimal { .. } | Self::OutOfRange { .. } | Self::TooFine { .. } => {
                Category::Permanent
            }
        }
    }
}

impl Share {
    /// 0.99.
    pub const P99: Self = Self { trillionths: 990_000_000_000 };
    /// 0.95.
    pub const P95: Self = Self { trillionths: 950_000_000_000 };

    /// `trillionths` of one; `None` unless strictly between zero and one.
    #[must_use]
    pub const fn from_trillionths(trillionths: u64) -> Option<Self> {
        if trillionths == 0 || trillionths >= ONE { None } else { Some(Self { trillionths }) }
    }

    /// The whole number of trillionths.
    #[must_use]
    pub const fn trillionths(self) -> u64 {
        self.trillionths
    }

    /// What is missing to one.
    #[must_use]
    pub const fn complement(self) -> Self {
        Self { trillionths: ONE - self.trillionths }
    }

    /// The nearest float, off by at most one unit in its last place.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.trillionths as f64 / ONE as f64
    }

    /// The least `k` with `k >= self * n`: the nearest rank of a quantile. From one to `n`.
    #[must_use]
    pub fn rank_of(self, n: usize) -> usize {
        let scaled = u128::from(self.trillionths) * n as u128;
        usize::try_from(scaled.div_ceil(u128::from(ONE))).unwrap_or(n)
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let shown = || text.chars().take(40).collect::<String>();
        let number = text.trim();
        let (number, places) = match number.strip_suffix('%') {
            Some(number) => (number.trim_end(), DIGITS - 2),
            None => (number, DIGITS),
        };
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(decimals) || (whole.len() + decimals.len()) == 0 {
            return Err(ShareError::NotDecimal { text: shown() });
        }
        let decimals = decimals.trim_end_matches('0');
        if decimals.len() > places {
            return Err(ShareError::TooFine { text: shown() });
        }
        let digits = format!("{whole}{decimals:0<places$}");
        let trillionths = digits.parse::<u64>().unwrap_or(u64::MAX);
        Self::from_trillionths(trillionths).ok_or_else(|| ShareError::OutOfRange { text: shown() })
    }
}

/// A decimal number without trailing zeros: `0.999`.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:012}", self.trillionths);
        write!(f, "0.{}", digits.trim_end_matches('0'))
    }
}

impl TryFrom<String> for Share {
    type Error = ShareError;
    fn try_from(text: String) -> Result<Self, ShareError> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        text.parse::<Share>().map(|share| share.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn decimals_and_percentages_are_exact() {
        assert_eq!(read("0.999"), Ok("0.999".into()));
        assert_eq!(read(".5"), Ok("0.5".into()));
        assert_eq!(read("99.9%"), Ok("0.999".into()));
        assert_eq!(read("99.99 %"), Ok("0.9999".into()));
        assert_eq!(read("0.999999999999"), Ok("0.999999999999".into()));
        assert_eq!(read("0.9000000000000000000"), Ok("0.9".into()));
        assert_eq!("0.99".parse(), Ok(Share::P99));
        assert_eq!("95%".parse(), Ok(Share::P95));
    }

    #[test]
    fn what_is_no_share_is_refused_by_kind() {
        for text in ["", "%", ".", "NaN", "inf", "-0.5", "+0.5", "1e-3", "0,99", "0x1", "0.9.9"] {
            assert!(read(text).is_err_and(|error| error.contains("is no share")), "{text}");
        }
        for text in ["0", "1", "0.0", "1.0", "100%", "99.9", "99999999999999999999999999"] {
            assert!(read(text).is_err_and(|error| error.contains("strictly between")), "{text}");
        }
        assert!(read("0.9999999999999").is_err_and(|error| error.contains("more than 12")));
        assert!(read("99.99999999999%").is_err_and(|error| error.contains("more than 12")));
    }

    #[test]
    fn ranks_round_up_without_floats() {
        assert_eq!(Share::P99.rank_of(100), 99);
        assert_eq!(Share::P99.rank_of(101), 100);
        assert_eq!(Share::P99.rank_of(1), 1);
        let third: Share = "0.3".parse().expect("a share");
        assert_eq!(third.rank_of(10), 3); // 0.3 * 10 as floats is more than 3.
    }
}

//! What can be wrong with a table of lifetimes, with its place.

use aegis_trace::Category;

/// Why a file is no table of lifetimes. Lines and columns count from one, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableFault {
    /// Nothing in the file, not even a header.
    #[error(
        "1:1: the file is empty; its first line must be a header such as `id,lower,upper,size`"
    )]
    Empty,
    /// The header does not name a column that is needed.
    #[error("{line}:1: the header has no column `{name}`; it needs id, lower, upper and size")]
    MissingColumn {
        /// The line of the header.
        line: u64,
        /// The name.
        name: &'static str,
    },
    /// The header names a column twice.
    #[error("{line}:{column}: the header names `{name}` twice")]
    RepeatedColumn {
        /// The line of the header.
        line: u64,
        /// The column of the second one.
        column: u64,
        /// The name.
        name: String,
    },
    /// A row with more or fewer fields than the header.
    #[error("{line}:{column}: the row has {fields} fields, the header {expected}")]
    FieldCount {
        /// The line of the row.
        line: u64,
        /// The column of the first field too many, or of the last one there is.
        column: u64,
        /// How many there are.
        fields: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A quote that is still open where the file ends.
    #[error("{line}:{column}: the quote that opens here is never closed")]
    Unclosed {
        /// The line of the quote.
        line: u64,
        /// Its column.
        column: u64,
    },
    /// A field that does not hold what its column says.
    #[error("{line}:{column}: {name} {what}")]
    Field {
        /// The line of the field.
        line: u64,
        /// The column of its first character.
        column: u64,
        /// The column's name.
        name: &'static str,
        /// What is wrong with it.
        what: FieldFault,
    },
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldFault {
    /// Not text.
    #[error("is not UTF-8")]
    NotText,
    /// Nothing there.
    #[error("is empty")]
    Missing,
    /// Not a whole number.
    #[error("`{text}` is not a whole number")]
    NotANumber {
        /// The field.
        text: String,
    },
    /// A negative number where none can be.
    #[error("`{text}` is negative")]
    Negative {
        /// The field.
        text: String,
    },
    /// A number that needs more than 64 bits.
    #[error("`{text}` does not fit in 64 bits")]
    TooLarge {
        /// The field.
        text: String,
    },
    /// A life that ends before it begins.
    #[error("{upper} is not after lower {lower}; lifetimes are half-open")]
    NotAfter {
        /// The first time of the life.
        lower: i64,
        /// The first time after it.
        upper: i64,
    },
    /// An alignment of zero.
    #[error("is 0; it must be at least 1")]
    ZeroAlignment,
    /// An id that another row has.
    #[error("`{text}` was used in line {first} already")]
    Repeated {
        /// The id.
        text: String,
        /// The line of the first row that has it.
        first: u64,
    },
    /// With this row, sizes and padding add up to more than can be addressed.
    #[error("{size} makes the sum of all sizes and padding exceed 2^63 - 1")]
    SumTooLarge {
        /// The size of this row.
        size: u64,
    },
    /// With this row's padding, sizes and padding add up to more than can be addressed.
    #[error("{alignment} makes the sum of all sizes and padding exceed 2^63 - 1")]
    PaddingTooLarge {
        /// The alignment of this row.
        alignment: u64,
    },
}

impl TableFault {
    /// Always [`Category::Permanent`]: the file must change.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Empty
            | Self::MissingColumn { .. }
            | Self::RepeatedColumn { .. }
            | Self::FieldCount { .. }
            | Self::Unclosed { .. }
            | Self::Field { .. } => Category::Permanent,
        }
    }
}

impl FieldFault {
    /// Always [`Category::Permanent`]: the file must change.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::NotText
            | Self::Missing
            | Self::NotANumber { .. }
            | Self::Negative { .. }
            | Self::TooLarge { .. }
            | Self::NotAfter { .. }
            | Self::ZeroAlignment
            | Self::Repeated { .. }
            | Self::SumTooLarge { .. }
            | Self::PaddingTooLarge { .. } => Category::Permanent,
        }
    }
}

//! Typed values out of TOML, with their places.
//!
//! A [`Section`] is one table, checked against its schema when it is opened; a [`Raw`] is one
//! value, which its methods turn into what the key asks for or say why not.

use std::ops::RangeInclusive;
use std::str::FromStr;

use aegis_sched::wcet::{Share, ShareError};
use aegis_trace::error::UnitError;
use aegis_trace::{Bytes, Nanos};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::Span;
use super::fault::{FaultKind, Findings, QUOTE_CHARS_MAX, Quantity, Reported};
use super::schema::{Key, Table};

/// How far a key may be from a known one to be taken for it, in edits.
const EDITS_MAX: usize = 2;

/// A value and where it was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    /// The value.
    pub(super) value: T,
    /// Its place.
    pub(super) span: Span,
}

/// One table of the file.
pub(super) struct Section<'t> {
    schema: &'static Table,
    entries: &'t DeTable<'t>,
    header: Span,
    /// The keys that were probably meant by those reported as unknown.
    misspelt: Vec<(&'static str, Reported)>,
}

impl<'t> Section<'t> {
    /// Takes `entries` as a table of `schema`, and reports each key that is not one of its.
    pub(super) fn open(
        schema: &'static Table,
        entries: &'t DeTable<'t>,
        header: Span,
        findings: &mut Findings,
    ) -> Self {
        let known: Vec<_> = schema.keys.iter().map(|key| key.name).collect();
        let mut misspelt = Vec::new();
        for key in entries.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let nearest = nearest(key.get_ref(), &known);
            let kind = FaultKind::UnknownKey {
                table: schema.name,
                key: quoted(key.get_ref()),
                nearest,
                known: known.clone(),
            };
            let reported = findings.report(kind, span_of(key));
            misspelt.extend(nearest.map(|meant| (meant, reported)));
        }
        Self { schema, entries, header, misspelt }
    }

    /// Where the table is opened.
    pub(super) fn header(&self) -> Span {
        self.header
    }

    /// The place of the value of `key`, when there is one.
    pub(super) fn place_of(&self, key: &str) -> Option<Span> {
        self.entries.get(key).map(span_of)
    }

    /// The fault of an unknown key that was probably meant as `key`, so that it is not reported as
    /// missing too.
    pub(super) fn misspelt(&self, key: &str) -> Option<Reported> {
        self.misspelt.iter().find(|(meant, _)| *meant == key).map(|(_, reported)| *reported)
    }

    /// The value of `key`, when there is one.
    pub(super) fn raw(&self, key: &'static str) -> Option<Raw<'t>> {
        let known: Option<&Key> = self.schema.keys.iter().find(|known| known.name == key);
        debug_assert!(known.is_some(), "{} reads `{key}`, which it refuses", self.schema.name);
        let value = self.entries.get(key)?;
        Some(Raw { key, example: known?.example, value: value.get_ref(), span: span_of(value) })
    }

    /// The value of `key` as `read` understands it, or `None` where it is not stated.
    pub(super) fn optional<T>(
        &self,
        findings: &mut Findings,
        key: &'static str,
        read: impl FnOnce(&Raw<'t>) -> Result<T, FaultKind>,
    ) -> Result<Option<At<T>>, Reported> {
        let Some(raw) = self.raw(key) else { return Ok(None) };
        raw.read(findings, read).map(Some)
    }

    /// The value of `key` as `read` understands it; that it is not stated is a fault.
    pub(super) fn required<T>(
        &self,
        findings: &mut Findings,
        key: &'static str,
        read: impl FnOnce(&Raw<'t>) -> Result<T, FaultKind>,
    ) -> Result<At<T>, Reported> {
        self.optional(findings, key, read)?
            .ok_or_else(|| self.misspelt(key).unwrap_or_else(|| self.lacks(findings, key)))
    }

    /// The table under `key`, or `None` where there is none.
    pub(super) fn table(
        &self,
        findings: &mut Findings,
        key: &'static str,
        schema: &'static Table,
    ) -> Result<Option<Section<'t>>, Reported> {
        let entries = self.optional(findings, key, Raw::table)?;
        Ok(entries.map(|At { value, span }| Section::open(schema, value, span, findings)))
    }

    /// Reports that `key` is not stated.
    fn lacks(&self, findings: &mut Findings, key: &'static str) -> Reported {
        let example =
            self.schema.keys.iter().find(|known| known.name == key).map_or("", |key| key.example);
        let kind = FaultKind::MissingKey { table: self.schema.name, key, example };
        findings.report(kind, self.header)
    }
}

/// One value, not yet understood.
#[derive(Clone, Copy)]
pub(super) struct Raw<'t> {
    key: &'static str,
    example: &'static str,
    value: &'t DeValue<'t>,
    /// Where it stands.
    pub(super) span: Span,
}

impl<'t> Raw<'t> {
    /// The value as `read` understands it, with its place.
    pub(super) fn read<T>(
        &self,
        findings: &mut Findings,
        read: impl FnOnce(&Self) -> Result<T, FaultKind>,
    ) -> Result<At<T>, Reported> {
        match read(self) {
            Ok(value) => Ok(At { value, span: self.span }),
            Err(kind) => Err(findings.report(kind, self.span)),
        }
    }

    /// Text.
    pub(super) fn text(&self) -> Result<&'t str, FaultKind> {
        self.text_of("a string")
    }

    /// A length of time within `range`.
    pub(super) fn time(&self, range: RangeInclusive<Nanos>) -> Result<Nanos, FaultKind> {
        self.measure("a time in quotes", range)
    }

    /// A size of memory within `range`.
    pub(super) fn size(&self, range: RangeInclusive<Bytes>) -> Result<Bytes, FaultKind> {
        self.measure("a size in quotes", range)
    }

    /// A whole number within `range`.
    pub(super) fn count(&self, range: RangeInclusive<u32>) -> Result<u32, FaultKind> {
        let Some(integer) = self.value.as_integer() else {
            return Err(self.wrong_type("a whole number"));
        };
        let count = whole(integer).filter(|count| range.contains(count));
        count.ok_or_else(|| self.out_of_range(quoted(&integer.to_string()), range))
    }

    /// A share between zero and one, in quotes so that it is exact.
    pub(super) fn share(&self) -> Result<Share, FaultKind> {
        let text = self.text_of("a share in quotes")?;
        let wrong = |error: ShareError| FaultKind::BadShare { cause: error.to_string() };
        text.parse().map_err(wrong)
    }

    /// Yes or no.
    pub(super) fn flag(&self) -> Result<bool, FaultKind> {
        self.value.as_bool().ok_or_else(|| self.wrong_type("true or false"))
    }

    /// One of a closed set of names.
    pub(super) fn one_of<T: Copy>(
        &self,
        names: &'static [(&'static str, T)],
    ) -> Result<T, FaultKind> {
        let text = self.text()?;
        if let Some((_, value)) = names.iter().find(|(name, _)| *name == text) {
            return Ok(*value);
        }
        let known: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        let nearest = nearest(text, &known);
        Err(FaultKind::UnknownName { key: self.key, found: quoted(text), nearest, known })
    }

    /// A table.
    pub(super) fn table(&self) -> Result<&'t DeTable<'t>, FaultKind> {
        self.value.as_table().ok_or_else(|| self.wrong_type("a table"))
    }

    /// The elements of an array of some length within `lengths`, each a value for `key`.
    pub(super) fn elements(
        &self,
        lengths: RangeInclusive<u32>,
        key: &'static Key,
    ) -> Result<Vec<Self>, FaultKind> {
        let elements = self.array("an array", key)?;
        let length = u32::try_from(elements.len()).unwrap_or(u32::MAX);
        if lengths.contains(&length) {
            return Ok(elements);
        }
        Err(self.out_of_range(format!("of length {length}"), lengths))
    }

    /// The elements of an array that is called `expected`, each a value for `key`.
    pub(super) fn array(
        &self,
        expected: &'static str,
        key: &'static Key,
    ) -> Result<Vec<Self>, FaultKind> {
        let array = self.value.as_array().ok_or_else(|| self.wrong_type(expected))?;
        let element = |value: &'t Spanned<DeValue<'t>>| Self {
            key: key.name,
            example: key.example,
            value: value.get_ref(),
            span: span_of(value),
        };
        Ok(array.iter().map(element).collect())
    }

    fn text_of(&self, expected: &'static str) -> Result<&'t str, FaultKind> {
        self.value.as_str().ok_or_else(|| self.wrong_type(expected))
    }

    /// A number with a unit within `range`.
    fn measure<T>(&self, expected: &'static str, range: RangeInclusive<T>) -> Result<T, FaultKind>
    where
        T: FromStr<Err = UnitError> + Copy + PartialOrd + ToString + Into<Quantity>,
    {
        // Quoted first: a text that had to be cut is no number with a unit either way.
        let text = quoted(self.text_of(expected)?);
        let bad_unit = |cause| FaultKind::BadUnit { key: self.key, cause, example: self.example };
        let found: T = text.parse().map_err(bad_unit)?;
        if range.contains(&found) {
            return Ok(found);
        }
        Err(self.out_of_range(found.to_string(), range))
    }

    fn wrong_type(&self, expected: &'static str) -> FaultKind {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        FaultKind::WrongType { key: self.key, expected, found, example: self.example }
    }

    fn out_of_range<T>(&self, found: String, range: RangeInclusive<T>) -> FaultKind
    where
        T: Copy + Into<Quantity>,
    {
        FaultKind::OutOfRange {
            key: self.key,
            found,
            least: (*range.start()).into(),
            most: (*range.end()).into(),
            example: self.example,
        }
    }
}

/// The place of a key or value.
pub(super) fn span_of<T>(spanned: &Spanned<T>) -> Span {
    let range = spanned.span();
    Span { start: range.start, end: range.end }
}

/// The integer, if it is none too large and not negative.
fn whole(integer: &DeInteger<'_>) -> Option<u32> {
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The text as a message quotes it: at most [`QUOTE_CHARS_MAX`] characters.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// The known name that `text` is probably a slip of: one that it begins, else one it is few edits from.
fn nearest(text: &str, known: &[&'static str]) -> Option<&'static str> {
    // One letter is the beginning of too many names to be a hint.
    let begun = known.iter().filter(|name| text.len() > 1 && name.starts_with(text));
    if let Some(name) = begun.min_by_key(|name| name.len()) {
        return Some(name);
    }
    // A short name is near to anything, so the slip must leave most of it standing.
    let near = |name: &&'static str| {
        let edits = edit_distance(text, name);
        (edits <= EDITS_MAX.min(name.len() / 3 + 1) && edits < name.len()).then_some((edits, *name))
    };
    known.iter().filter_map(near).min().map(|(_, name)| name)
}

/// The fewest insertions, deletions and replacements that turn `from` into `to`; more than
/// [`EDITS_MAX`] where their lengths alone tell.
fn edit_distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().take(QUOTE_CHARS_MAX).collect();
    let mut row: Vec<usize> = (0..=from.len()).collect();
    for (i, wanted) in to.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, found) in from.iter().enumerate() {
            let replaced = diagonal + usize::from(*found != wanted);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[from.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distances_match_the_textbook() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("perido", "period"), 2);
        assert_eq!(edit_distance("period", "period"), 0);
    }

    #[test]
    fn a_suggestion_is_near_or_none() {
        let known = ["period", "deadline", "slots", "sim"];
        assert_eq!(nearest("perod", &known), Some("period"));
        assert_eq!(nearest("dead_line", &known), Some("deadline"));
        assert_eq!(nearest("sym", &known), Some("sim"));
        assert_eq!(nearest("frequency", &known), None);
        assert_eq!(nearest("x", &known), None);
    }

    #[test]
    fn a_beginning_is_nearer_than_a_few_edits() {
        let policies = ["fifo", "rms", "dm", "edf", "priority"];
        assert_eq!(nearest("rm", &policies), Some("rms"), "not `dm`, one edit away as well");
        assert_eq!(nearest("prio", &policies), Some("priority"));
    }

    #[test]
    fn a_quotation_is_cut_between_characters() {
        assert_eq!(quoted("33ms"), "33ms");
        assert_eq!(quoted(&"µ".repeat(65)), format!("{}...", "µ".repeat(64)));
    }
}

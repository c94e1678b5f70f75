//! The rendering of faults, with the line each is about.
//!
//! ```text
//! error: edge.toml:14:10: `33` has no unit; write one of ns, us, ms, s, min or h
//!    |
//! 14 | period = "33"
//!    |          ^^^^ e.g. "33ms"
//! ```
//!
//! # Invariants
//! 1. A span need not fit the text: it is clamped, so a hand-made one renders wrongly but does
//!    not panic.
//! 2. One character of a line takes one column of output. Control and direction characters are
//!    replaced one for one, so that a file cannot rewrite the terminal. Wide characters shift the
//!    marks.
//! 3. One fault shows at most [`LINE_CHARS_MAX`] characters of each of at most two lines.

use std::fmt;

use super::fault::{Place, WorkloadFault};
use super::{SourceText, Span};

/// The most characters of one line that are shown.
const LINE_CHARS_MAX: usize = 100;
/// The most characters shown before the marks.
const LEAD_CHARS_MAX: usize = 60;
/// Stands for what is not shown.
const ELLIPSIS: &str = "...";

/// Writes `fault` without a final line break.
pub(super) fn render(
    f: &mut fmt::Formatter<'_>,
    source: &SourceText,
    fault: &WorkloadFault,
) -> fmt::Result {
    let file = printable(&source.path.display().to_string());
    let message = printable(&fault.kind.to_string());
    let Some(place) = fault.place else {
        return write!(f, "error: {file}: {message}");
    };
    write!(f, "error: {file}:{}:{}: {message}", place.line, place.column)?;
    let mut marks = vec![Mark { place, sign: "^", note: printable(&fault.kind.hint()) }];
    if let Some(related) = fault.related {
        marks.push(Mark { place: related.place, sign: "-", note: related.note.to_owned() });
    }
    marks.sort_by_key(|mark| mark.place.line);
    render_marks(f, &source.text, &marks)
}

/// Something to point at.
struct Mark {
    place: Place,
    sign: &'static str,
    note: String,
}

/// Writes the lines of `marks`, which are in order of lines; each line once.
fn render_marks(f: &mut fmt::Formatter<'_>, text: &str, marks: &[Mark]) -> fmt::Result {
    let last = marks.last().map_or(0, |mark| mark.place.line);
    let width = last.to_string().len();
    write!(f, "\n{:width$} |", "")?;
    let mut shown = None;
    for mark in marks {
        let line = mark.place.line;
        let excerpt = Excerpt::new(text, mark.place.span);
        if shown.is_some_and(|shown| shown + 1 < line) {
            write!(f, "\n{ELLIPSIS}")?;
        }
        if shown != Some(line) {
            let shown_line = format!("{line:>width$} | {}", excerpt.line);
            write!(f, "\n{}", shown_line.trim_end())?;
        }
        let signs = mark.sign.repeat(excerpt.marked);
        let pointer = format!("{:2$}{signs} {}", "", mark.note, excerpt.lead);
        write!(f, "\n{:width$} | {}", "", pointer.trim_end())?;
        shown = Some(line);
    }
    Ok(())
}

/// The part of a line around a span.
struct Excerpt {
    /// What is shown of the line.
    line: String,
    /// Characters shown before the span.
    lead: usize,
    /// Characters shown of the span's first line; at least one.
    marked: usize,
}

impl Excerpt {
    fn new(text: &str, span: Span) -> Self {
        let Span { start, end } = clamped(text, span);
        // Only the neighbourhood is walked, since a file may be one line with a thousand faults.
        let is_in_line = |c: &char| *c != '\n';
        let before = text[..start].chars().rev().take_while(is_in_line).take(LEAD_CHARS_MAX + 1);
        let mut before: Vec<char> = before.collect();
        let mut line = String::new();
        if before.len() > LEAD_CHARS_MAX {
            before.truncate(LEAD_CHARS_MAX / 2);
            line.push_str(ELLIPSIS);
        }
        let room = LINE_CHARS_MAX - before.len();
        let lead = line.len() + before.len();
        line.extend(before.into_iter().rev().map(printable_char));

        let in_line = || text[start..].chars().take_while(is_in_line);
        let after: String = in_line().take(room).collect();
        line.extend(after.trim_end_matches('\r').chars().map(printable_char));
        if in_line().nth(room).is_some() {
            line.push_str(ELLIPSIS);
        }
        let marked = text[start..end].chars().take_while(is_in_line).take(room).count().max(1);
        Self { line, lead, marked }
    }
}

/// The span within the text, at boundaries of characters.
fn clamped(text: &str, span: Span) -> Span {
    let start = text.floor_char_boundary(span.start);
    let end = text.ceil_char_boundary(span.end.min(text.len())).max(start);
    Span { start, end }
}

/// The text with nothing in it that a terminal obeys.
fn printable(text: &str) -> String {
    text.chars().map(printable_char).collect()
}

/// The character itself, or what stands for it.
fn printable_char(c: char) -> char {
    match c {
        '\t' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            char::REPLACEMENT_CHARACTER
        }
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// Where the lines of a text begin.
pub(super) struct LineIndex<'t> {
    text: &'t str,
    starts: Vec<usize>,
    /// Then columns need no counting.
    is_ascii: bool,
}

impl<'t> LineIndex<'t> {
    /// Reads the whole text once.
    pub(super) fn new(text: &'t str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(after_breaks).collect();
        Self { text, starts, is_ascii: text.is_ascii() }
    }

    /// The line of a byte, counted from one.
    pub(super) fn line(&self, byte: usize) -> usize {
        self.starts.partition_point(|start| *start <= byte)
    }

    /// The line and column of a span's first byte.
    pub(super) fn place(&self, span: Span) -> Place {
        let span = clamped(self.text, span);
        let line = self.line(span.start);
        let from = self.starts[line - 1]; // A line starts at byte zero, so `line` is never zero.
        let before = &self.text[from..span.start];
        let before = if self.is_ascii { before.len() } else { before.chars().count() };
        Place { span, line, column: before + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_on_both_sides_of_the_mark() {
        let text = format!("{}MARK{}", "a".repeat(500), "b".repeat(500));
        let excerpt = Excerpt::new(&text, Span { start: 500, end: 504 });
        let marked: String = excerpt.line.chars().skip(excerpt.lead).take(excerpt.marked).collect();
        assert_eq!(marked, "MARK");
        assert_eq!(excerpt.line.chars().count(), LINE_CHARS_MAX + 2 * ELLIPSIS.len());
    }

    #[test]
    fn a_span_outside_the_text_is_clamped() {
        for span in [Span { start: 99, end: 200 }, Span { start: 1, end: 0 }] {
            let excerpt = Excerpt::new("µs", span);
            assert_eq!(excerpt.marked, 1);
            assert_eq!(LineIndex::new("µs").place(span).line, 1);
        }
    }

    #[test]
    fn columns_count_characters_and_lines_end_before_their_break() {
        let text = "a = 1\r\nµ = \"x\"\r\n";
        let start = text.find('"').expect("a quote");
        let place = LineIndex::new(text).place(Span { start, end: start + 3 });
        assert_eq!((place.line, place.column), (2, 5));
        assert_eq!(Excerpt::new(text, place.span).line, "µ = \"x\"");
    }

    #[test]
    fn escapes_and_direction_marks_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\u{202e}\tb"), "a\u{fffd}[2J\u{fffd} b");
    }
}

//! Tables and figures as the commands print them.

use aegis::{Bytes, Nanos};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

/// A table whose first column is text and whose others are figures.
pub(crate) fn new(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().enumerate().map(|(index, text)| cell(index, text)));
    table
}

/// Adds a row, aligned as [`new`] says.
pub(crate) fn add(table: &mut Table, row: &[String]) {
    table.add_row(row.iter().enumerate().map(|(index, text)| cell(index, text)));
}

fn cell(column: usize, text: &str) -> Cell {
    let side = if column == 0 { CellAlignment::Left } else { CellAlignment::Right };
    Cell::new(text).set_alignment(side)
}

/// Milliseconds with three decimals, rounded up: a time shown is never shorter than it was.
pub(crate) fn ms(time: Nanos) -> String {
    let micros = time.as_nanos().div_ceil(1_000);
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

/// Milliseconds with three decimals, rounded down: for slack, which is never shown too large.
pub(crate) fn ms_down(time: Nanos) -> String {
    let micros = time.as_nanos() / 1_000;
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

/// A figure, or a dash where there is none.
pub(crate) fn or_dash(figure: Option<String>) -> String {
    figure.unwrap_or_else(|| "-".into())
}

/// Megabytes with one decimal, rounded up.
pub(crate) fn mib(size: Bytes) -> String {
    let tenths = (u128::from(size.as_u64()) * 10).div_ceil(1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A load or a gap in percent, rounded up: with one decimal, or with the four there are where one
/// would say little. Only what is nothing at all is shown as 0.0 %.
pub(crate) fn percent_up(ppm: u64) -> String {
    match ppm {
        1..1_000 => format!("0.{ppm:04} %"),
        _ => {
            let tenths = ppm.div_ceil(1_000);
            format!("{}.{} %", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_round_against_us() {
        assert_eq!(ms(Nanos(1_000_001)), "1.001");
        assert_eq!(ms_down(Nanos(1_999_999)), "1.999");
        assert_eq!(mib(Bytes((1 << 20) + 1)), "1.1");
        assert_eq!(percent_up(523_001), "52.4 %");
        assert_eq!(percent_up(999_001), "100.0 %");
        assert_eq!(percent_up(1_000), "0.1 %");
        assert_eq!(percent_up(999), "0.0999 %");
        assert_eq!(percent_up(1), "0.0001 %");
        assert_eq!(percent_up(0), "0.0 %");
    }
}

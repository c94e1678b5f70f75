//! The table of lifetimes: CSV in, CSV with offsets out.
//!
//! A header names the columns `id`, `lower`, `upper`, `size` and, if wanted, `alignment`, in any
//! order. Other columns are kept and not looked at. Quoting is that of RFC 4180; line ends may be
//! those of any system; blanks around a field do not count.
//!
//! # Invariants
//! 1. Every row has a buffer in the problem, in the order of the file; ids are unique.
//! 2. A fault names the line and the column at which the file would have to change.

use std::collections::HashMap;

use aegis_memory::ProblemFault;
use aegis_memory::place::{Buffer, Problem};
use csv::{ByteRecord, WriterBuilder};

use crate::plan::fault::{FieldFault, TableFault};
use crate::plan::rows::{Row, Rows};

/// What the offsets are called in the output.
const OFFSET: &str = "offset";

/// The rows of a file of lifetimes.
#[derive(Clone, Debug)]
pub struct LifetimeTable {
    bytes: Vec<u8>,
    ids: Vec<Box<str>>,
    problem: Problem,
    unused: Vec<String>,
}

impl LifetimeTable {
    /// Reads a CSV file. O(n) in its bytes: a million rows take about half a second.
    ///
    /// # Errors
    /// The first [`TableFault`] (permanent): header, then rows, then ids, then the sum.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableFault> {
        let mut rows = Rows::new(bytes);
        let header = rows.next().ok_or(TableFault::Empty)?;
        header.check_count(header.record().len())?;
        let columns = Columns::find(&header)?;
        let unused = columns.unused(&header);
        let (mut ids, mut buffers, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(row) = rows.next() {
            row.check_count(columns.count)?;
            ids.push(Box::from(row.text(columns.id, "id")?));
            buffers.push(columns.buffer(&row)?);
            starts.push(row.start());
        }
        check_unique(bytes, &ids, &starts, columns.id)?;
        let problem = Problem::new(buffers.clone()).map_err(|fault| match fault {
            ProblemFault::TooLarge { index } => {
                let row = Row::at(bytes, starts[index]);
                let Buffer { size, alignment, .. } = buffers[index];
                // What asks for more is named: the size, or the padding for the alignment.
                match columns.alignment.filter(|_| alignment > size) {
                    Some(at) => {
                        let what = FieldFault::PaddingTooLarge { alignment };
                        row.fault(at, "alignment", what)
                    }
                    None => row.fault(columns.size, "size", FieldFault::SumTooLarge { size }),
                }
            }
            checked => unreachable!("every row was checked: {checked}"),
        })?;
        Ok(Self { bytes: bytes.to_vec(), ids, problem, unused })
    }

    /// The placement problem: one buffer for each row.
    pub(super) fn problem(&self) -> &Problem {
        &self.problem
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is only a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The id of row `index`.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn id(&self, index: usize) -> &str {
        &self.ids[index]
    }

    /// The columns that nothing was read from.
    #[must_use]
    pub fn unused_columns(&self) -> &[String] {
        &self.unused
    }

    /// The file as it was read, with a last column `offset`; one that was there already is left
    /// out. O(n) in its bytes.
    ///
    /// # Panics
    /// When `offsets` has another length than the table.
    #[must_use]
    pub(super) fn csv_with(&self, offsets: &[u64]) -> Vec<u8> {
        assert_eq!(offsets.len(), self.len(), "one offset for each row");
        let mut writer = WriterBuilder::new().from_writer(Vec::with_capacity(self.bytes.len() * 2));
        let mut rows = Rows::new(&self.bytes);
        let header = rows.next().expect("a table has a header");
        let old = header.record().iter().position(|name| name == OFFSET.as_bytes());
        let mut out = without(header.record(), old);
        out.push_field(OFFSET.as_bytes());
        writer.write_byte_record(&out).expect("memory takes what is written");
        for offset in offsets {
            let row = rows.next().expect("as many rows as before");
            let mut out = without(row.record(), old);
            out.push_field(offset.to_string().as_bytes());
            writer.write_byte_record(&out).expect("memory takes what is written");
        }
        writer.into_inner().expect("memory takes what is written")
    }
}

/// The fields of `record` but the one at `left_out`.
fn without(record: &ByteRecord, left_out: Option<usize>) -> ByteRecord {
    let kept = record.iter().enumerate().filter(|(at, _)| Some(*at) != left_out);
    kept.map(|(_, field)| field).collect()
}

/// Where the columns are.
struct Columns {
    id: usize,
    lower: usize,
    upper: usize,
    size: usize,
    alignment: Option<usize>,
    count: usize,
}

impl Columns {
    fn find(header: &Row<'_>) -> Result<Self, TableFault> {
        let names: Vec<_> = header.record().iter().collect();
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                let (line, column) = header.place(at);
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(TableFault::RepeatedColumn { line, column, name });
            }
        }
        let position = |name: &str| names.iter().position(|field| *field == name.as_bytes());
        let needed = |name: &'static str| {
            position(name).ok_or(TableFault::MissingColumn { line: header.place(0).0, name })
        };
        Ok(Self {
            id: needed("id")?,
            lower: needed("lower")?,
            upper: needed("upper")?,
            size: needed("size")?,
            alignment: position("alignment"),
            count: names.len(),
        })
    }

    fn unused(&self, header: &Row<'_>) -> Vec<String> {
        let used =
            [Some(self.id), Some(self.lower), Some(self.upper), Some(self.size), self.alignment];
        let columns = header.record().iter().enumerate();
        let unused = columns.filter(|(at, _)| !used.contains(&Some(*at)));
        unused.map(|(_, name)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn buffer(&self, row: &Row<'_>) -> Result<Buffer, TableFault> {
        let lower = row.signed(self.lower, "lower")?;
        let upper = row.signed(self.upper, "upper")?;
        if upper <= lower {
            return Err(row.fault(self.upper, "upper", FieldFault::NotAfter { lower, upper }));
        }
        let size = row.unsigned(self.size, "size")?;
        let alignment = match self.alignment {
            Some(at) => row.unsigned(at, "alignment")?,
            None => 1,
        };
        match (alignment, self.alignment) {
            (0, Some(at)) => Err(row.fault(at, "alignment", FieldFault::ZeroAlignment)),
            _ => Ok(Buffer { lower, upper, size, alignment }),
        }
    }
}

fn check_unique(
    bytes: &[u8],
    ids: &[Box<str>],
    starts: &[usize],
    column: usize,
) -> Result<(), TableFault> {
    let mut first: HashMap<&str, usize> = HashMap::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        if let Some(other) = first.insert(id, index) {
            let first = Row::at(bytes, starts[other]).place(column).0;
            let what = FieldFault::Repeated { text: id.to_string(), first };
            return Err(Row::at(bytes, starts[index]).fault(column, "id", what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::plan::{PlanLimit, PlanOptions, plan};

    fn check(text: &str, expect: &Expect) {
        let verdict = match LifetimeTable::parse(text.as_bytes()) {
            Ok(table) => format!("{:?} {:?}", table.ids, table.problem.buffers()),
            Err(fault) => fault.to_string(),
        };
        expect.assert_eq(&verdict);
    }

    #[test]
    fn columns_come_in_any_order_and_others_are_kept() {
        let text = "size,note,upper,lower,id,alignment\r\n64,\"a, b\",4,-2,x,256\r\n";
        check(
            text,
            &expect![[r#"["x"] [Buffer { lower: -2, upper: 4, size: 64, alignment: 256 }]"#]],
        );
        let table = LifetimeTable::parse(text.as_bytes()).expect("sound");
        assert_eq!(table.unused_columns(), ["note"]);
        let written = String::from_utf8(table.csv_with(&[512])).expect("text");
        expect![[r#"
            size,note,upper,lower,id,alignment,offset
            64,"a, b",4,-2,x,256,512
        "#]]
        .assert_eq(&written);
        // What was written is a table again, and its offsets are replaced.
        let again = LifetimeTable::parse(written.as_bytes()).expect("sound");
        let rewritten = String::from_utf8(again.csv_with(&[0])).expect("text");
        assert_eq!(rewritten, written.replace("512", "0"));
    }

    #[test]
    fn a_file_without_rows_is_a_table_and_one_without_a_header_is_none() {
        check("id,lower,upper,size\n", &expect!["[] []"]);
        check(
            "",
            &expect![
                "1:1: the file is empty; its first line must be a header such as `id,lower,upper,size`"
            ],
        );
        check(
            "\n\n",
            &expect![
                "1:1: the file is empty; its first line must be a header such as `id,lower,upper,size`"
            ],
        );
        check(
            "id,lower,upper\n",
            &expect!["1:1: the header has no column `size`; it needs id, lower, upper and size"],
        );
        check("id,lower,lower,upper,size\n", &expect!["1:10: the header names `lower` twice"]);
    }

    #[test]
    fn every_fault_of_a_field_has_its_line_and_column() {
        let head = "id,lower,upper,size\na,0,1,1\n";
        let row = |row: &str, expect: Expect| check(&format!("{head}{row}\n"), &expect);
        row("b,5,3,1", expect!["3:5: upper 3 is not after lower 5; lifetimes are half-open"]);
        row("b,5,5,1", expect!["3:5: upper 5 is not after lower 5; lifetimes are half-open"]);
        row("b,0,1,-64", expect!["3:7: size `-64` is negative"]);
        row("b,0,1,many", expect!["3:7: size `many` is not a whole number"]);
        row("b,0,1,1.5", expect!["3:7: size `1.5` is not a whole number"]);
        row("b,0,1,", expect!["3:7: size is empty"]);
        row("b,0x1,1,1", expect!["3:3: lower `0x1` is not a whole number"]);
        row(
            "b,0,99999999999999999999,1",
            expect!["3:5: upper `99999999999999999999` does not fit in 64 bits"],
        );
        row(
            "b,0,1,18446744073709551616",
            expect!["3:7: size `18446744073709551616` does not fit in 64 bits"],
        );
        row(
            "b,0,1,9223372036854775807",
            expect![
                "3:7: size 9223372036854775807 makes the sum of all sizes and padding exceed 2^63 - 1"
            ],
        );
        row("a,0,1,1", expect!["3:1: id `a` was used in line 2 already"]);
        row(",0,1,1", expect!["3:1: id is empty"]);
        row("b,0,1", expect!["3:5: the row has 3 fields, the header 4"]);
        row("b,0,1,1,2", expect!["3:9: the row has 5 fields, the header 4"]);
        row("\"b,\"\"c\",0,1,x", expect!["3:13: size `x` is not a whole number"]);
        row("é,0,1,x", expect!["3:7: size `x` is not a whole number"]);
    }

    #[test]
    fn lines_are_counted_as_an_editor_counts_them() {
        let crlf = "id,lower,upper,size\r\na,0,1,1\r\n\r\nb,0,1,x\r\n";
        check(crlf, &expect!["4:7: size `x` is not a whole number"]);
        check(&crlf.replace("\r\n", "\r"), &expect!["4:7: size `x` is not a whole number"]);
        check(
            "id,lower,upper,size\n\"a\nb\",0,1,1\nc,0,1,x",
            &expect!["4:7: size `x` is not a whole number"],
        );
        check(
            "id,lower,upper,size\n\"a\nb\",0,1,x",
            &expect!["3:8: size `x` is not a whole number"],
        );
        check(
            "\u{feff}id, lower, upper, size\na, 0, 1, x",
            &expect!["2:10: size `x` is not a whole number"],
        );
        let zero = "id,lower,upper,size,alignment\na,0,1,1,0\n";
        check(zero, &expect!["2:9: alignment is 0; it must be at least 1"]);
    }

    /// A quote means something only at the beginning of a field.
    #[test]
    fn quotes_in_the_middle_of_a_field_are_characters() {
        let head = "id,lower,upper,size\n";
        let row = |row: &str, expect: Expect| check(&format!("{head}{row}"), &expect);
        row("a\"b,0,1,x\n", expect!["2:9: size `x` is not a whole number"]);
        row("a\"b,0,1,1\nc,0,x,1\n", expect!["3:5: upper `x` is not a whole number"]);
        row("12\" disk,0,1,1\n24\" disk,0,1,x\n", expect!["3:14: size `x` is not a whole number"]);
        row("\"a\"b\"c,0,1,x\n", expect!["2:12: size `x` is not a whole number"]);
        row("\"a\"\",b\",0,1,x\n", expect!["2:13: size `x` is not a whole number"]);
    }

    #[test]
    fn a_quote_that_is_never_closed_is_named() {
        let head = "id,lower,upper,size\n";
        let row = |row: &str, expect: Expect| check(&format!("{head}{row}"), &expect);
        let expected = || expect!["3:1: the quote that opens here is never closed"];
        row("a,0,1,1\n\"b,0,1,1\nc,0,1,1\n", expected());
        row("a,0,1,1\n\"b", expected());
        row("a,0,1,1\n\"b\"\"", expected());
        row(
            "a,0,1,1\n\"b\",0,1,1",
            expect![[r#"
            ["a", "b"] [Buffer { lower: 0, upper: 1, size: 1, alignment: 1 }, Buffer { lower: 0, upper: 1, size: 1, alignment: 1 }]"#]],
        );
        check(
            "id,lower,\"upper,size\n",
            &expect!["1:10: the quote that opens here is never closed"],
        );
    }

    #[test]
    fn a_sum_that_is_too_large_names_what_is_to_blame() {
        let head = "id,lower,upper,size,alignment\n";
        let rows = |rows: &str, expect: Expect| check(&format!("{head}{rows}"), &expect);
        let large = "9223372036854775808";
        rows(
            &format!("a,0,2,8,1\nb,1,3,8,{large}\n"),
            expect![
                "3:9: alignment 9223372036854775808 makes the sum of all sizes and padding exceed 2^63 - 1"
            ],
        );
        rows(
            "a,0,2,8,1\nb,1,3,9223372036854775807,1\n",
            expect![
                "3:7: size 9223372036854775807 makes the sum of all sizes and padding exceed 2^63 - 1"
            ],
        );
        // Lives that never meet need no padding, whatever their alignment.
        let apart =
            format!("{head}a,0,1,8,{large}\nb,1,2,8,{large}\nc,2,3,8,18446744073709551615\n");
        let table = LifetimeTable::parse(apart.as_bytes()).expect("sound");
        let limit = PlanLimit::usual(&table, None);
        let report = plan(&table, &PlanOptions { capacity: None, limit });
        assert_eq!((report.peak.as_u64(), report.is_optimal()), (8, true));
    }

    #[test]
    fn zero_may_have_a_sign() {
        check(
            "id,lower,upper,size\na,-0,1,-0\n",
            &expect![[r#"["a"] [Buffer { lower: 0, upper: 1, size: 0, alignment: 1 }]"#]],
        );
    }

    #[test]
    fn an_id_that_is_no_text_is_refused() {
        let fault =
            LifetimeTable::parse(b"id,lower,upper,size\n\xff,0,1,1\n").expect_err("no text");
        assert_eq!(fault.to_string(), "2:1: id is not UTF-8");
    }
}

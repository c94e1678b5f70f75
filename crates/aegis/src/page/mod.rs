//! A trace as one page for a browser: `aegis report`.
//!
//! ```text
//!   JSON Lines --Reader, once--> Digest (bounded) --maud--> one HTML file
//! ```
//!
//! The page needs nothing but itself: no script, no font, no network, and its own policy forbids them
//! to it. It follows the reader's choice of light and dark, and has the figures of every picture in a
//! table beside it. `digest` is what is kept of a trace; `window` finds the stretch of time that is
//! drawn; `html` lays out. ADR 0075 says why it is made this way.
//!
//! # Invariants
//! 1. The trace is read once, and memory is bounded by the models in it and by named limits, not by its
//!    length.
//! 2. Whatever is in a trace, names above all, is escaped: a trace from anywhere can be shown.
//! 3. What was left out for a limit is counted on the page.

mod digest;
mod findings;
mod gantt;
mod html;
mod models;
mod plot;
mod times;
mod window;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use aegis_trace::export::json::Reader;
use aegis_trace::{Category, TraceError};

use self::digest::Digest;

/// Models that one page shows: each costs some kilobytes of histograms.
const MODELS_MAX: usize = 1_024;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The trace cannot be read, or is none.
    #[error("{} cannot be shown", path.display())]
    Trace {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: TraceError,
    },
    /// More models were admitted than one page shows.
    #[error("{} admits more than {MODELS_MAX} models, the most that one page shows", path.display())]
    TooManyModels {
        /// Which file.
        path: PathBuf,
    },
    /// The page would take the place of the trace.
    #[error("the page would overwrite the trace {}", path.display())]
    Overwrites {
        /// Which file.
        path: PathBuf,
    },
    /// The page cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl PageError {
    /// What the caller can do.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Trace { cause, .. } => cause.category(),
            Self::Write { .. } => Category::Transient,
            Self::TooManyModels { .. } | Self::Overwrites { .. } => Category::Permanent,
        }
    }
}

/// What a page was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Records that were read.
    pub records: u64,
    /// Whether the trace has its closing line, all of its records and no lost event.
    pub is_whole: bool,
    /// Size of the page in bytes.
    pub bytes: usize,
}

/// Reads the trace at `path` and writes its page to `out`. Blocks; linear in the trace.
///
/// # Errors
/// [`PageError`]: nothing is written where the trace cannot be read to its end.
pub fn write(path: &Path, out: &Path) -> Result<Written, PageError> {
    let failed = |cause| PageError::Trace { path: path.to_owned(), cause };
    let file = File::open(path).map_err(|cause| failed(cause.into()))?;
    if is_same(path, out) {
        return Err(PageError::Overwrites { path: path.to_owned() });
    }
    let Some(digest) = read(BufReader::new(file)).map_err(failed)? else {
        return Err(PageError::TooManyModels { path: path.to_owned() });
    };
    let text = html::page(&digest, &title(path));
    fs::write(out, &text).map_err(|cause| PageError::Write { path: out.to_owned(), cause })?;
    let (records, is_whole) = (digest.records, digest.is_whole());
    Ok(Written { records, is_whole, bytes: text.len() })
}

/// One pass over a trace; `None` when it admits too many models.
fn read(input: impl BufRead) -> Result<Option<Digest>, TraceError> {
    let mut reader = Reader::open(input)?;
    let mut digest = Digest::default();
    while let Some(record) = reader.next()? {
        digest.take(&record);
        if digest.models.len() > MODELS_MAX {
            return Ok(None);
        }
    }
    digest.ending = reader.ending();
    Ok(Some(digest))
}

fn is_same(trace: &Path, out: &Path) -> bool {
    trace.canonicalize().is_ok_and(|trace| out.canonicalize().is_ok_and(|out| out == trace))
}

fn title(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use aegis_trace::Nanos;
    use proptest::prelude::*;

    use super::*;

    /// Lines of every kind that the page looks into, with `@` for a number that may be any.
    const LINES: [&str; 15] = [
        r#""admitted","model":"m0","what":{"name":"a&b","service":"guaranteed","period":@,"deadline":@,"jitter":@,"priority":1,"may_be_suspended":true,"compute":0,"streams":1,"slots":2,"stages":[@,@],"overhead":@,"bound":@,"persistent":@,"scratch":@}"#,
        r#""admitted","model":"m1","what":{"name":"<b>","service":"background","may_be_suspended":true,"compute":0,"streams":1,"slots":2,"stages":[@],"overhead":@,"bound":null,"persistent":@,"scratch":@}"#,
        r#""bound_changed","model":"m0","bound":@"#,
        r#""refused","what":{"name":"c","why":{"refusal":"device_memory","persistent":@,"scratch":@,"limit":@,"replanned":@}}"#,
        r#""submitted","job":"m0#@","arrival":@,"release":@,"deadline":@"#,
        r#""dispatched","job":"m0#@","stage":0,"stream":"s0","waiting":1,"why":{"reason":"earliest_deadline","chosen":@,"next":@}"#,
        r#""stage_completed","job":"m0#@","stage":0,"started":@,"finished":@"#,
        r#""stage_completed","job":"m1#@","stage":0,"started":@,"finished":@"#,
        r#""completed","job":"m0#@","response":@,"execution":@"#,
        r#""completed","job":"m1#@","response":@,"execution":@"#,
        r#""missed_deadline","job":"m0#@","late":@"#,
        r#""assumption_broken","assumption":"wake_latency","job":"m0#@","assumed":@,"observed":@"#,
        r#""bound_exceeded","job":"m0#@","bound":@,"response":@,"cause":null"#,
        r#""evidence_stale","job":"m0#@","stage":0,"why":{"staleness":"drift","mean":@,"excess":@}"#,
        r#""evicted","model":"m0""#,
    ];

    /// Numbers as a foreign trace may hold them.
    fn number() -> impl Strategy<Value = u64> {
        let edge = prop::sample::select(vec![0, 1, 2, u64::MAX - 1, u64::MAX]);
        prop_oneof![0_u64..20, edge, any::<u64>()]
    }

    fn line() -> impl Strategy<Value = String> {
        let numbers = prop::collection::vec(number(), 12);
        (prop::sample::select(LINES.to_vec()), numbers).prop_map(|(template, numbers)| {
            let mut line = format!("{{\"at\":@,\"by\":0,\"event\":{template}}}\n");
            if !template.starts_with("\"admitted") {
                // Also models that nobody admitted.
                line = line.replace("m0", &format!("m{}", numbers[11] % 5_000));
            }
            for number in numbers {
                line = line.replacen('@', &number.to_string(), 1);
            }
            line
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn whatever_the_numbers_of_a_trace_are_there_is_a_page(
            lines in prop::collection::vec(line(), 0..40),
        ) {
            let trace = format!("{{\"aegis_trace\":2}}\n{}", lines.concat());
            let digest = read(trace.as_bytes()).expect("well formed").expect("few models");
            let page = html::page(&digest, "any.jsonl");
            prop_assert!(page.len() < 1 << 20, "{} bytes", page.len());
            prop_assert!(!page.contains("NaN") && !page.contains("inf%"), "ink has a place");
            prop_assert!(!page.contains("<b>"), "names are text");
        }
    }

    /// One record a line.
    fn digest_of(events: &[&str]) -> Digest {
        let line = |event: &&str| format!("{{\"at\":9,\"by\":0,\"event\":{event}}}\n");
        let trace: String = events.iter().map(line).collect();
        let trace = format!("{{\"aegis_trace\":3}}\n{trace}");
        read(trace.as_bytes()).expect("well formed").expect("few models")
    }

    const CONFIGURED: &str = r#""configured","what":{"policy":"edf","overheads":{"dispatch":100,"wake":0,"boundary":20,"copy":3,"look_ahead":false},"overrun":"record","streams":1,"queue_depth":8,"first_model":0,"max_models":4,"max_suspended":null,"hang_factor":8,"hang_floor":0}"#;

    #[test]
    fn the_cost_of_a_model_has_its_boundaries_and_copies() {
        let admitted =
            LINES[0].replace("[@,@]", "[1000,2000]").replace("overhead\":@", "overhead\":100");
        let admitted = admitted.replace('@', "9000");
        let page = html::page(&digest_of(&[CONFIGURED, &admitted]), "costs.jsonl");
        // Two dispatches, one boundary, the inputs and the outputs.
        assert!(page.contains(&format!("cost {} with overheads", Nanos(3_226))), "{page}");
        let page = html::page(&digest_of(&[&admitted]), "older.jsonl");
        assert!(page.contains(&format!("cost {} with overheads", Nanos(3_200))), "{page}");
    }

    #[test]
    fn models_without_an_admission_share_a_row() {
        let dropped = |model: usize| format!(r#""dropped","job":"m{model}#0","why":"stopping""#);
        let broken = |model: usize| LINES[11].replace("m0", &format!("m{model}")).replace('@', "5");
        let exceeded =
            |model: usize| LINES[12].replace("m0", &format!("m{model}")).replace('@', "5");
        let events: Vec<String> =
            (0..5_000).flat_map(|n| [dropped(n), broken(n), exceeded(n)]).collect();
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        let digest = digest_of(&events);
        assert_eq!((digest.lost.len(), digest.broken.len(), digest.exceeded.len()), (1, 1, 1));
        assert_eq!(digest.lost.values().sum::<u64>(), 5_000);
        let page = html::page(&digest, "foreign.jsonl");
        assert!(page.contains("models without an admission") && page.len() < 1 << 20);
    }

    #[test]
    fn a_stage_of_another_partition_is_not_in_the_worst_window() {
        let in_partition = |line: &str, name: &str| {
            line.replace("\"scratch\":@}", &format!("\"scratch\":@,\"partition\":\"{name}\"}}"))
                .replace('@', "100")
        };
        let (left, right) = (in_partition(LINES[0], "left"), in_partition(LINES[1], "right"));
        let beside = r#""stage_completed","job":"m1#0","stage":0,"started":2,"finished":8"#;
        let own = r#""stage_completed","job":"m0#0","stage":0,"started":4,"finished":8"#;
        let submitted = r#""submitted","job":"m0#0","arrival":0,"release":0,"deadline":99"#;
        let completed = r#""completed","job":"m0#0","response":9,"execution":4"#;
        let digest = digest_of(&[&left, &right, submitted, beside, own, completed]);
        let window = digest.worst_window().expect("a job was completed");
        assert_eq!((window.others(), window.idle()), (Vec::new(), Nanos(5)));
    }

    #[test]
    fn memory_does_not_grow_with_the_trace() {
        let of = |jobs: u64| {
            let line = |n: u64| {
                LINES[4..9].iter().filter(|line| !line.contains("m1")).fold(
                    String::new(),
                    |text, template| {
                        let line = template
                            .replacen('@', &n.to_string(), 1)
                            .replace('@', &(n * 10).to_string());
                        text + &format!("{{\"at\":{},\"by\":0,\"event\":{line}}}\n", n * 10)
                    },
                )
            };
            let lines: String = (0..jobs).map(line).collect();
            let admitted = LINES[0].replace('@', "1000");
            let admitted = format!("{{\"at\":0,\"by\":1,\"event\":{admitted}}}");
            let trace = format!("{{\"aegis_trace\":2}}\n{admitted}\n{lines}");
            let digest = read(trace.as_bytes()).expect("well formed").expect("few models");
            assert_eq!((digest.records, digest.completed()), (jobs * 4 + 1, jobs));
            html::page(&digest, "long.jsonl").len()
        };
        assert!(of(20_000) < of(2_000) * 2, "a page of ten times the jobs is about as long");
    }

    #[test]
    fn more_models_than_a_page_shows_are_refused() {
        let admitted = |n: usize| {
            let line = LINES[1].replace("m1", &format!("m{n}")).replace('@', "1");
            format!("{{\"at\":1,\"by\":1,\"event\":{line}}}\n")
        };
        let trace = |models: usize| -> String {
            let lines: String = (0..models).map(admitted).collect();
            format!("{{\"aegis_trace\":2}}\n{lines}")
        };
        assert!(read(trace(MODELS_MAX).as_bytes()).expect("well formed").is_some());
        assert!(read(trace(MODELS_MAX + 1).as_bytes()).expect("well formed").is_none());
    }
}

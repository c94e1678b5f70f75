//! What can be wrong with a workload file.
//!
//! # Invariants
//! 1. A [`FaultKind`] carries the numbers and names of its message, so a program need not parse
//!    text. Text quoted from the file is cut at [`QUOTE_CHARS_MAX`] characters.
//! 2. [`WorkloadFaults`] are in file order and never empty.
//! 3. A [`Reported`] exists only where a fault was recorded, so a value that could not be read is
//!    never silently missing.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use aegis_cuda::DriverKind;
use aegis_trace::error::UnitError;
use aegis_trace::{Bytes, Category, Nanos};

use super::chain::ChainFault;
use super::diagnose::{self, LineIndex};
use super::partition::PartitionFault;
use super::{SourceText, Span};

/// The most characters of the file that one message quotes.
pub(super) const QUOTE_CHARS_MAX: usize = 64;

/// One kind of fault; a new kind is a new variant, never a new string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// The file could not be opened or read.
    #[error("the file could not be read: {cause}")]
    Unreadable {
        /// What the operating system said.
        cause: String,
    },
    /// The file is longer than is read.
    #[error("the file is longer than {most}")]
    FileTooLarge {
        /// The longest file that is read.
        most: Bytes,
    },
    /// The file is no text.
    #[error("the file is not UTF-8 text")]
    NotUtf8,
    /// The text is no TOML.
    #[error("this is not TOML: {message}")]
    Syntax {
        /// What the TOML parser said.
        message: String,
    },
    /// A key that the table does not have.
    #[error("{table} has no key `{key}`")]
    UnknownKey {
        /// The table it stands in.
        table: &'static str,
        /// What was written.
        key: String,
        /// The key that was probably meant.
        nearest: Option<&'static str>,
        /// All keys of the table.
        known: Vec<&'static str>,
    },
    /// A required key is absent.
    #[error("{table} lacks the key `{key}`")]
    MissingKey {
        /// The table that lacks it.
        table: &'static str,
        /// The key.
        key: &'static str,
        /// A value that would be right, in TOML.
        example: &'static str,
    },
    /// A required table is absent.
    #[error("there is no {table} table")]
    MissingTable {
        /// Its header.
        table: &'static str,
    },
    /// A value of another type.
    #[error("`{key}` must be {expected}, not {found}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What was written.
        found: &'static str,
        /// A value that would be right, in TOML.
        example: &'static str,
    },
    /// A time or size that is none.
    #[error("{cause}")]
    BadUnit {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        cause: UnitError,
        /// A value that would be right, in TOML.
        example: &'static str,
    },
    /// A number outside its range.
    #[error("`{key}` is {found}; it must be from {least} to {most}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What was written.
        found: String,
        /// The smallest value that would be right.
        least: Quantity,
        /// The largest value that would be right.
        most: Quantity,
        /// A value that would be right, in TOML.
        example: &'static str,
    },
    /// A driver, policy or backend that does not exist.
    #[error("there is no {key} `{found}`; write one of {}", known.join(", "))]
    UnknownName {
        /// The key.
        key: &'static str,
        /// What was written.
        found: String,
        /// The name that was probably meant.
        nearest: Option<&'static str>,
        /// All names that would be right.
        known: Vec<&'static str>,
    },
    /// A share that is none.
    #[error("{cause}")]
    BadShare {
        /// What is wrong with it.
        cause: String,
    },
    /// A name that is empty, too long, or has other characters than it may.
    #[error("`{found}` is no name; write 1 to {} of a-z, 0-9, _ and -", super::NAME_CHARS_MAX)]
    BadName {
        /// What was written.
        found: String,
    },
    /// Two models of one name; the related place is the first.
    #[error("the name `{name}` is taken")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A path without a character.
    #[error("the path is empty")]
    EmptyPath,
    /// A model with both `path` and `stages`; the related place is `path`.
    #[error("a model has either `path` or `stages`, not both")]
    PathAndStages,
    /// A model of files that names none.
    #[error("[[model]] lacks the key `path`, or `stages` for several files")]
    NeitherPathNorStages,
    /// A key that only another backend understands; the related place is `backend`.
    #[error("`{key}` is not for the backend `{backend}`")]
    WrongBackend {
        /// The key.
        key: &'static str,
        /// The backend of the model.
        backend: &'static str,
    },
    /// A key that only another driver understands; the related place is `driver`.
    #[error("`{key}` is not for the driver `{driver}`")]
    NotForDriver {
        /// The key.
        key: &'static str,
        /// The driver of the device.
        driver: DriverKind,
    },
    /// Inputs that go ahead of stages that nobody puts behind others; the related place is `look_ahead`,
    /// where that is written.
    #[error(
        "`uploads_ahead` needs `look_ahead`: inputs go ahead of a stage that waits behind another"
    )]
    UploadsWithoutLookAhead,
    /// A workload with nothing to run.
    #[error("there is no [[model]] table")]
    NoModels,
    /// More models than are planned for.
    #[error("there are {found} models; at most {most} are admitted")]
    TooManyModels {
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// A budget above what the device has; the related place is the device's limit, if stated.
    #[error("a `{key}` budget of {found} is above the device's {limit}")]
    BudgetAboveDevice {
        /// The key.
        key: &'static str,
        /// The budget.
        found: Quantity,
        /// What the device has.
        limit: Quantity,
    },
    /// A jitter or compute budget longer than the period, which is the related place.
    #[error("`{key}` of {found} is longer than the period of {period}")]
    AbovePeriod {
        /// The key.
        key: &'static str,
        /// What was written.
        found: Nanos,
        /// The period.
        period: Nanos,
    },
    /// A model without a priority under the priority policy, which is the related place.
    #[error("[[model]] lacks the key `priority`, which the policy `priority` needs")]
    MissingPriority,
    /// A server without a priority under the priority policy, which is the related place.
    #[error("[model.server] lacks the key `priority`, which the policy `priority` needs")]
    MissingServerPriority,
    /// A key that promises something, of a model of best effort; the related place is what makes it
    /// one.
    #[error("`{key}` is not for a model of best effort")]
    NotForBestEffort {
        /// The key.
        key: &'static str,
    },
    /// A server for a model whose jobs have deadlines.
    #[error("[model.server] is for models of best effort alone")]
    ServerWithoutBestEffort,
    /// A chain that is none, or does not go together with its models.
    #[error(transparent)]
    Chain(ChainFault),
    /// A partition that is none, or a model that is in none.
    #[error(transparent)]
    Partition(PartitionFault),
    /// A model of several stages that may be suspended, beyond as many as the file allows; the
    /// related place is the limit.
    #[error("this is model {found} of several stages that may be suspended; at most {most} may")]
    TooManySuspended {
        /// Which of them in file order, counted from one.
        found: u32,
        /// How many there may be.
        most: u32,
    },
    /// A level of memory pressure that is left no later than it is entered, which is the related
    /// place.
    #[error(
        "`{key}` is {found}, and the level is entered below {enter}; it must be left above that"
    )]
    NoHysteresis {
        /// The key.
        key: &'static str,
        /// Free memory at which the level would be left.
        found: Bytes,
        /// Free memory below which it is entered.
        enter: Bytes,
    },
    /// A threshold of the critical level above that of the low one, which is the related place.
    #[error("`{key}` is {found}, above the {low} of the low level")]
    AboveLow {
        /// The key.
        key: &'static str,
        /// What was written.
        found: Bytes,
        /// The threshold of the low level.
        low: Bytes,
    },
    /// A model file that is not there.
    #[error("there is no file {}", path.display())]
    NoSuchFile {
        /// Resolved against the folder of the workload file.
        path: PathBuf,
    },
    /// A model path that leads to a folder or device.
    #[error("{} is not a file", path.display())]
    NotAFile {
        /// Resolved against the folder of the workload file.
        path: PathBuf,
    },
    /// A model file that cannot be reached.
    #[error("{} cannot be reached: {cause}", path.display())]
    FileOutOfReach {
        /// Resolved against the folder of the workload file.
        path: PathBuf,
        /// What the operating system said.
        cause: String,
    },
}

impl FaultKind {
    /// What would be right, in a few words to stand beside the place; may be empty.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownKey { nearest: Some(nearest), .. }
            | Self::UnknownName { nearest: Some(nearest), .. } => {
                format!("did you mean `{nearest}`?")
            }
            Self::UnknownKey { nearest: None, known, .. } => {
                format!("its keys are {}", known.join(", "))
            }
            Self::MissingKey { key, example, .. } => format!("add {key} = {example}"),
            Self::MissingTable { table } => format!("add {table}"),
            Self::BadUnit { cause: UnitError::MissingUnit { text, .. }, example, .. } => {
                format!("e.g. {}", with_unit_of(example, text))
            }
            Self::WrongType { example, .. }
            | Self::BadUnit { example, .. }
            | Self::OutOfRange { example, .. } => format!("e.g. {example}"),
            Self::BadShare { .. } => "e.g. \"0.999\"".into(),
            Self::BadName { .. } => "e.g. \"front_detector\"".into(),
            Self::DuplicateName { .. } => "choose another".into(),
            Self::PathAndStages => "leave one of them out".into(),
            Self::EmptyPath => "e.g. \"models/front_detector.onnx\"".into(),
            Self::NeitherPathNorStages => "add path = \"models/front_detector.onnx\"".into(),
            Self::NotForDriver { .. } | Self::WrongBackend { .. } => "leave it out".into(),
            Self::UploadsWithoutLookAhead => "add look_ahead = true beside it".into(),
            Self::NoModels => "add [[model]]".into(),
            Self::TooManyModels { .. } => "the first one too many".into(),
            Self::BudgetAboveDevice { limit, .. } => format!("at most {limit}"),
            Self::AbovePeriod { period, .. } => format!("at most {period}"),
            Self::MissingPriority => "add priority = 1".into(),
            Self::MissingServerPriority => "add priority = 9".into(),
            Self::NotForBestEffort { .. } => "leave it out".into(),
            Self::NoHysteresis { enter, .. } => format!("more than {enter}"),
            Self::AboveLow { low, .. } => format!("at most {low}"),
            Self::TooManySuspended { .. } => "write suspend = false here, or for another".into(),
            Self::ServerWithoutBestEffort => "add best_effort = true to its [[model]]".into(),
            Self::Chain(fault) => fault.hint(),
            Self::Partition(fault) => fault.hint(),
            Self::NoSuchFile { .. } => "relative to the folder of this file".into(),
            Self::Unreadable { .. }
            | Self::FileTooLarge { .. }
            | Self::NotUtf8
            | Self::Syntax { .. }
            | Self::UnknownName { .. }
            | Self::NotAFile { .. }
            | Self::FileOutOfReach { .. } => String::new(),
        }
    }

    /// Whether the fault is that something is not there, which broken TOML may only hide.
    fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::MissingKey { .. }
                | Self::MissingTable { .. }
                | Self::NeitherPathNorStages
                | Self::NoModels
                | Self::MissingPriority
                | Self::MissingServerPriority
                | Self::ServerWithoutBestEffort
                | Self::Partition(
                    PartitionFault::Missing { .. }
                        | PartitionFault::MissingSms
                        | PartitionFault::Empty { .. }
                )
        )
    }
}

/// `33` and the example `"50ms"` make `"33ms"`: the user's number in the unit of the example.
fn with_unit_of(example: &str, number: &str) -> String {
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return example.to_owned();
    }
    let unit = example.trim_matches('"').trim_start_matches(|c: char| c.is_ascii_digit());
    format!("\"{number}{unit}\"")
}

/// A bound in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// A length of time.
    Time(Nanos),
    /// A size of memory.
    Size(Bytes),
    /// A number of things.
    Count(u64),
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => time.fmt(f),
            Self::Size(size) => size.fmt(f),
            Self::Count(count) => count.fmt(f),
        }
    }
}

impl From<Nanos> for Quantity {
    fn from(time: Nanos) -> Self {
        Self::Time(time)
    }
}

impl From<Bytes> for Quantity {
    fn from(size: Bytes) -> Self {
        Self::Size(size)
    }
}

impl From<u32> for Quantity {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

/// A place in a workload file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bytes meant.
    pub span: Span,
    /// The line of the first of them, counted from one.
    pub line: usize,
    /// The character of that line, counted from one.
    pub column: usize,
}

/// A second place that a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Related {
    /// Where it is.
    pub place: Place,
    /// What is there.
    pub note: &'static str,
}

/// One fault and where it is. Its text is the message alone; that of [`WorkloadFaults`] shows the
/// place too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct WorkloadFault {
    /// What is wrong.
    pub kind: FaultKind,
    /// Where; `None` when the file as a whole could not be read.
    pub place: Option<Place>,
    /// What else it is about, such as the first of two equal names.
    pub related: Option<Related>,
}

/// All faults of a workload file, in file order.
///
/// The text names file, line and column of each, quotes the line, and says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadFaults {
    source: SourceText,
    faults: Vec<WorkloadFault>,
}

impl WorkloadFaults {
    /// The faults, in file order; never empty.
    #[must_use]
    pub fn faults(&self) -> &[WorkloadFault] {
        &self.faults
    }

    /// The workload file, as the caller named it.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.source.path
    }

    /// Always [`Category::Permanent`]: the file must change.
    #[must_use]
    pub fn category(&self) -> Category {
        Category::Permanent
    }

    /// A fault with no place in the file.
    pub(super) fn of_whole_file(path: &Path, kind: FaultKind) -> Self {
        let source = SourceText { path: path.to_owned(), text: "".into() };
        Self { source, faults: vec![WorkloadFault { kind, place: None, related: None }] }
    }
}

/// Faults that are shown: more than a workload written in earnest has, less than a screen of a file
/// that is something else.
const SHOWN_MAX: usize = 40;

impl fmt::Display for WorkloadFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().take(SHOWN_MAX).enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            diagnose::render(f, &self.source, fault)?;
        }
        match self.faults.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n\nand {more} more faults: is this a workload file?"),
        }
    }
}

impl std::error::Error for WorkloadFaults {}

/// The proof that a fault was recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported(());

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: Vec<Finding>,
}

#[derive(Debug)]
struct Finding {
    kind: FaultKind,
    span: Span,
    related: Option<(Span, &'static str)>,
}

impl Findings {
    /// Records a fault at `span`.
    pub(super) fn report(&mut self, kind: FaultKind, span: Span) -> Reported {
        self.found.push(Finding { kind, span, related: None });
        Reported(())
    }

    /// Records a fault at `span` that is also about another place, if that place is known.
    pub(super) fn report_with(
        &mut self,
        kind: FaultKind,
        span: Span,
        related: Option<(Span, &'static str)>,
    ) -> Reported {
        self.found.push(Finding { kind, span, related });
        Reported(())
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The findings in file order, with lines and columns.
    pub(super) fn located_in(mut self, source: SourceText) -> WorkloadFaults {
        let lines = LineIndex::new(&source.text);
        self.drop_echoes_of_syntax(&lines);
        self.found.sort_by_key(|finding| finding.span.start);
        let locate = |finding: Finding| WorkloadFault {
            kind: finding.kind,
            place: Some(lines.place(finding.span)),
            related: finding.related.map(|(at, note)| Related { place: lines.place(at), note }),
        };
        let faults = self.found.into_iter().map(locate).collect();
        WorkloadFaults { source, faults }
    }

    /// Drops what a syntax fault may only pretend: absences anywhere, and any other fault on the
    /// line of a syntax fault.
    fn drop_echoes_of_syntax(&mut self, lines: &LineIndex<'_>) {
        let is_syntax = |finding: &Finding| matches!(finding.kind, FaultKind::Syntax { .. });
        let line_of = |finding: &Finding| lines.line(finding.span.start);
        let broken: BTreeSet<usize> =
            self.found.iter().filter(|finding| is_syntax(finding)).map(line_of).collect();
        if broken.is_empty() {
            return;
        }
        self.found.retain(|finding| {
            let is_echo = finding.kind.is_absence() || broken.contains(&line_of(finding));
            is_syntax(finding) || !is_echo
        });
    }
}

//! Execution-time bounds from samples, usable alone: what `aegis wcet` does, as a library.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

pub use aegis_sched::wcet::bursts::Bursts;
pub use aegis_sched::wcet::estimate::{Estimates, Evt, Kind};
pub use aegis_sched::wcet::gev::GevFit;
pub use aegis_sched::wcet::independence::Independence;
pub use aegis_sched::wcet::lines::{LineFault, Lines, LinesError, Wrong};
pub use aegis_sched::wcet::margin::{SAFETY_MARGIN_PERCENT, compute_wcet};
pub use aegis_sched::wcet::order::{samples_needed, supported_coverage, tolerance_rank};
pub use aegis_sched::wcet::question::{Method, Question};
pub use aegis_sched::wcet::stationarity::{ChangePoint, Stationarity};
pub use aegis_sched::wcet::validity::{Resolution, TailTest, Tests, Verdict};
pub use aegis_sched::wcet::{
    Campaign, CampaignError, Diagnosis, Estimate, Share, ShareError, StageMonitor, Warning, lines,
};

use crate::error::Error;

/// Reads samples from the file at `path`, or from standard input for `-`: one whole number of
/// nanoseconds a line, in the order of measuring; the first line may be a header. Blocks.
///
/// # Errors
/// [`Error::Lines`] with every fault up to the tenth, each with its line.
pub fn read(path: &Path) -> Result<Lines, Error> {
    let failed = |cause| Error::Lines { path: path.to_owned(), cause };
    if path.as_os_str() == "-" {
        return lines::read(io::stdin().lock())
            .map_err(|cause| Error::Lines { path: PathBuf::from("standard input"), cause });
    }
    let file = File::open(path).map_err(LinesError::Io).map_err(failed)?;
    lines::read(BufReader::new(file)).map_err(failed)
}

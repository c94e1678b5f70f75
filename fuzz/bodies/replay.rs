//! Any bytes at all as a log: replayed, replayed under other policies, and its jobs accounted for.

use aegis_sched::policy::PolicyKind;
use aegis_sched::replay::{Extent, replay};
use aegis_trace::export::json::read;

/// Jobs of which an account is asked.
const JOBS: usize = 20;
/// A log of more records is cut here: what takes long finds little.
const RECORDS: usize = 4_000;

pub(crate) fn run(bytes: &[u8]) {
    let Ok(back) = read(bytes) else { return };
    let mut trace = back.trace;
    trace.records.truncate(RECORDS);
    for extent in [Extent::Whole, Extent::Prefix] {
        let Ok(replayed) = replay(&trace, extent) else { continue };
        if replayed.divergence.is_some() {
            continue;
        }
        for policy in [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Edf] {
            if let Ok(compared) = replayed.what_if(&trace, policy) {
                assert_eq!(compared.len(), replayed.executors.len());
            }
        }
        let jobs = replayed.executors.iter().flat_map(|of| of.timeline.jobs.keys());
        for job in jobs.take(JOBS) {
            if let Ok(account) = replayed.account(&trace, *job) {
                assert_eq!(account.sums().total(), account.response());
            }
        }
    }
}

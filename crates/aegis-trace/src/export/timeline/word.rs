//! The fixed words of a picture: names of slices, of annotations, and of reasons.

/// Defines the words, each once, with its text.
macro_rules! words {
    ($($word:ident = $text:literal,)*) => {
        /// A word that every picture of a trace may use. They are few and known beforehand, so a
        /// format that can names them by number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Word { $(#[doc = $text] $word,)* }

        impl Word {
            /// Every word, in the order of its number.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$word,)*];

            /// How it is written.
            pub(crate) const fn text(self) -> &'static str {
                match self { $(Self::$word => $text,)* }
            }

            /// Its place in [`Word::ALL`].
            pub(crate) const fn number(self) -> u64 {
                self as u64
            }
        }
    };
}

words! {
    // Slices.
    Job = "job",
    Queued = "queued",
    Stage = "stage",
    Upload = "upload",
    Download = "download",
    UploadAhead = "upload ahead",
    Suspended = "suspended",
    OutOfBudget = "out of budget",
    // Instants.
    Dispatch = "dispatch",
    Completed = "completed",
    Dropped = "dropped",
    Faulted = "faulted",
    DeadlineMissed = "deadline missed",
    BoundExceeded = "bound exceeded",
    AssumptionBroken = "assumption broken",
    GuaranteesRestored = "guarantees restored",
    DebtIncurred = "debt incurred",
    Postponed = "postponed",
    Hanging = "hanging",
    EvidenceStale = "evidence stale",
    Admitted = "admitted",
    BoundChanged = "bound changed",
    Refused = "refused",
    SubmissionRefused = "submission refused",
    Evicting = "evicting",
    Evicted = "evicted",
    Fenced = "fenced",
    AllocationRefused = "allocation refused",
    PressureChanged = "pressure changed",
    Started = "started",
    Idle = "idle",
    Stopped = "stopped",
    EndOfTrace = "end of trace",
    // Annotations. Those with a unit have it in their name.
    Model = "model",
    Reason = "reason",
    Chosen = "chosen",
    Next = "next",
    Waiting = "waiting",
    NextStage = "next_stage",
    Release = "release_ns",
    Deadline = "deadline_ns",
    Bound = "bound_ns",
    ProvedSlack = "proved_slack_ns",
    Response = "response_ns",
    Execution = "execution_ns",
    Slack = "slack_ns",
    BelowBound = "below_bound_ns",
    Late = "late_ns",
    Cause = "cause",
    Assumption = "assumption",
    Assumed = "assumed_ns",
    Observed = "observed_ns",
    Until = "until_ns",
    Excess = "excess_ns",
    By = "by_ns",
    Elapsed = "elapsed_ns",
    Requested = "requested_bytes",
    Available = "available_bytes",
    Persistent = "persistent_bytes",
    Scratch = "scratch_bytes",
    From = "from",
    To = "to",
    Free = "free_bytes",
    Mean = "mean_ns",
    Jobs = "jobs",
    Exceeded = "exceeded",
    Alarm = "alarm",
    Category = "category",
    Explanation = "explanation",
    Unfinished = "unfinished",
    EventsLost = "events_lost",
    Records = "records",
    RecordsMissing = "records_missing",
    // Reasons of a policy.
    OnlyReady = "only ready",
    EarliestRelease = "earliest release",
    EarliestDeadline = "earliest deadline",
    ShortestPeriod = "shortest period",
    ShortestDeadline = "shortest deadline",
    MostUrgent = "most urgent",
    Continues = "continues",
    Background = "background",
    // Other reasons.
    QueueFull = "queue full",
    NoSlot = "no slot",
    ModelFenced = "model fenced",
    ModelEvicted = "model evicted",
    NotRunning = "not running",
    Stopping = "stopping",
    ComputeBudget = "compute budget",
    ComputeDebt = "compute debt",
    CannotFinish = "cannot finish",
    Overrun = "overrun",
    ExecutionTime = "execution time",
    DispatchOverhead = "dispatch overhead",
    WakeLatency = "wake-up latency",
    ReleaseJitter = "release jitter",
    LeftUpload = "left upload",
    Exceedances = "exceedances",
    Drift = "drift",
    Transient = "transient",
    Permanent = "permanent",
    Fatal = "fatal",
    Ample = "ample",
    Low = "low",
    Critical = "critical",
    Yes = "yes",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_there_twice() {
        let mut texts: Vec<_> = Word::ALL.iter().map(|word| word.text()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Word::ALL.len());
        assert!(Word::ALL.iter().zip(0u64..).all(|(word, number)| word.number() == number));
    }
}

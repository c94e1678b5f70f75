//! Why a model was not admitted: the inequality that failed, with its numbers.
//!
//! A [`Refusal`] names models by id; whoever prints it knows their names and passes them in
//! through [`Refusal::explain`]. `Display` prints the ids themselves.

use serde::{Deserialize, Serialize};

use crate::category::Category;
use crate::id::ModelId;
use crate::pressure::PressureLevel;
use crate::unit::{Bytes, Nanos, Rounding};

/// The inequality that failed. A new way to fail is a new variant, never a new string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "refusal", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// The costs alone exceed the device: `sum C/T > 1`, so the backlog grows for ever.
    Overutilised {
        /// `sum C/T` in millionths, rounded down.
        utilisation_ppm: u64,
    },
    /// Under EDF, jobs with both release and deadline inside a window ask for more than the
    /// window: `demand + blocking > window`.
    DemandExceedsWindow {
        /// The window's length.
        window: Nanos,
        /// Work of all jobs that must run inside it.
        demand: Nanos,
        /// The longest stage that may have started just before it.
        blocking: Nanos,
        /// Whose stage that is; `None` for the orchestrator's own wake-up.
        blocked_by: Option<ModelId>,
    },
    /// The worst-case response time exceeds the deadline: `R > D`.
    ResponseExceedsDeadline {
        /// The model that would be late; not always the one that asked.
        model: ModelId,
        /// The first response time found that is too long (the worst may be longer still).
        response: Nanos,
        /// Its relative deadline.
        deadline: Nanos,
        /// How much of the response is blocking by a stage that cannot be preempted.
        blocking: Nanos,
        /// Whose stage that is; `None` for the orchestrator's own wake-up or when there is none.
        blocked_by: Option<ModelId>,
    },
    /// One job alone does not fit: `J + C > D`.
    CostExceedsDeadline {
        /// The model.
        model: ModelId,
        /// Its release jitter plus cost, overheads included.
        cost: Nanos,
        /// Its relative deadline.
        deadline: Nanos,
    },
    /// The search ended before it had an answer, which counts as *no*.
    Undecided {
        /// What ended it.
        limit: Limit,
    },
    /// The model needs more memory than its own budget.
    MemoryBudget {
        /// What it needs.
        needed: Bytes,
        /// What its budget allows.
        limit: Bytes,
    },
    /// All models together need more memory than the device's limit: persistent memory adds up,
    /// scratch is shared.
    DeviceMemory {
        /// Persistent memory of every model, the new one included.
        persistent: Bytes,
        /// The largest scratch of any.
        scratch: Bytes,
        /// The limit.
        limit: Bytes,
        /// What all models together would take if every one were planned anew, when that fits: the
        /// caller may evict and admit again. Nothing is ever moved without being asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replanned: Option<Bytes>,
    },
    /// The device runs short of free memory, and its level refuses new models: `free < needed`.
    MemoryPressure {
        /// The level.
        level: PressureLevel,
        /// What is free.
        free: Bytes,
        /// How much must be free before new models are accepted again.
        needed: Bytes,
    },
    /// The cost of a job exceeds the compute time its budget grants per period.
    ComputeBudget {
        /// The cost, overheads included.
        needed: Nanos,
        /// The budget.
        limit: Nanos,
    },
    /// A stage of a model under a server never fits its budget: `q > C_s`.
    ServerBudget {
        /// Its longest stage, overhead included.
        stage: Nanos,
        /// The server's budget.
        budget: Nanos,
    },
    /// A partition of streams the budget asks for is not to be had.
    Streams {
        /// Streams asked for.
        needed: u32,
        /// Streams the device has left.
        available: u32,
    },
    /// As many models may be suspended as the limit allows, and this one would be another. Where it
    /// may not be suspended, it is charged as one stage instead.
    TooManySuspended {
        /// How many may be suspended at once, all of which are admitted.
        limit: u32,
    },
    /// The runtime already holds as many models as it was built for.
    TooManyModels {
        /// The limit.
        limit: u32,
    },
}

/// Why a search ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "limit", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// It took this many steps.
    Steps {
        /// The limit.
        steps: u64,
    },
    /// A window got longer than any that is looked at.
    Window {
        /// The longest.
        longest: Nanos,
    },
    /// The tasks use the device completely, its busy windows never end, and their periods have no
    /// common multiple below the longest window that is looked at.
    Hyperperiod {
        /// The longest window.
        longest: Nanos,
    },
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Steps { steps: 1 } => f.write_str("no answer within 1 step of analysis"),
            Self::Steps { steps } => write!(f, "no answer within {steps} steps of analysis"),
            Self::Window { longest } => {
                write!(f, "a busy window is longer than {}, the longest looked at", longest.0)
            }
            Self::Hyperperiod { longest } => write!(
                f,
                "the device is used completely and the periods have no common multiple below {}",
                longest.0
            ),
        }
    }
}

impl Refusal {
    /// [`Category::Permanent`]: the same request against the same set is refused again. Only memory
    /// pressure passes by itself, and is [`Category::Transient`].
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::MemoryPressure { .. } => Category::Transient,
            Self::Overutilised { .. }
            | Self::DemandExceedsWindow { .. }
            | Self::ResponseExceedsDeadline { .. }
            | Self::CostExceedsDeadline { .. }
            | Self::Undecided { .. }
            | Self::MemoryBudget { .. }
            | Self::DeviceMemory { .. }
            | Self::ComputeBudget { .. }
            | Self::ServerBudget { .. }
            | Self::Streams { .. }
            | Self::TooManySuspended { .. }
            | Self::TooManyModels { .. } => Category::Permanent,
        }
    }

    /// The inequality in words and numbers, with models named by `name`: what is asked for rounded up,
    /// what there is rounded down, so that it is true as it stands.
    pub fn explain(&self, name: impl Fn(ModelId) -> String) -> String {
        self.explain_in(name, |time, rounding| rounding.words(time))
    }

    /// The same with times written by `time`, for sets in another unit than nanoseconds.
    pub fn explain_in(
        &self,
        name: impl Fn(ModelId) -> String,
        time: impl Fn(Nanos, Rounding) -> String,
    ) -> String {
        let (time, room) = (|it| time(it, Rounding::Up), |it| time(it, Rounding::Down));
        let blocker = |by: &Option<ModelId>| match by {
            Some(model) => format!("a stage of {}", name(*model)),
            None => "the orchestrator's wake-up".into(),
        };
        match self {
            Self::Overutilised { utilisation_ppm } => overutilised(*utilisation_ppm),
            Self::DemandExceedsWindow { window, demand, blocking, blocked_by } => {
                let (window, demand) = (room(*window), time(*demand));
                if *blocking == Nanos::ZERO {
                    format!("demand {demand} > window {window}")
                } else {
                    let (blocking, by) = (time(*blocking), blocker(blocked_by));
                    format!("demand {demand} + blocking {blocking} by {by} > window {window}")
                }
            }
            Self::ResponseExceedsDeadline { model, response, deadline, blocking, blocked_by } => {
                let held = *blocking > Nanos::ZERO;
                let (response, deadline) = (time(*response), room(*deadline));
                let (model, blocking) = (name(*model), time(*blocking));
                if !held {
                    format!("{model}: response {response} > deadline {deadline}")
                } else {
                    format!(
                        "{model}: response {response} > deadline {deadline}, of which {blocking} \
                         is blocking by {}",
                        blocker(blocked_by)
                    )
                }
            }
            Self::CostExceedsDeadline { model, cost, deadline } => {
                let (cost, deadline) = (time(*cost), room(*deadline));
                format!("{}: jitter + cost {cost} > deadline {deadline}", name(*model))
            }
            Self::Undecided { limit } => format!("undecided, which counts as no: {limit}"),
            Self::MemoryBudget { needed, limit } => {
                format!("needs {needed} > memory budget {limit}")
            }
            Self::DeviceMemory { persistent, scratch, limit, replanned } => {
                device_memory(*persistent, *scratch, *limit, *replanned)
            }
            Self::MemoryPressure { level, free, needed } => format!(
                "free memory is {level}: {free} free < {needed} that must be before new models are \
                 accepted"
            ),
            Self::ComputeBudget { needed, limit } => {
                let (needed, limit) = (time(*needed), room(*limit));
                format!("cost {needed} > compute budget {limit} per period")
            }
            Self::ServerBudget { stage, budget } => {
                let (stage, budget) = (time(*stage), room(*budget));
                format!("a stage of {stage} > the server's budget {budget}, so it would never run")
            }
            Self::Streams { needed, available } => {
                format!("needs {needed} streams > {available} left on the device")
            }
            Self::TooManySuspended { limit } => {
                format!("{limit} models may be suspended already, and no more are allowed to")
            }
            Self::TooManyModels { limit } => {
                format!("the runtime was built for {limit} models and holds as many")
            }
        }
    }
}

impl Refusal {
    /// How much memory a plan of all models anew would save, when it would fit.
    #[must_use]
    pub fn saved_by_replanning(&self) -> Option<Bytes> {
        match self {
            Self::DeviceMemory { persistent, scratch, replanned: Some(total), .. } => {
                Some(saved(*persistent, *scratch, *total))
            }
            _ => None,
        }
    }
}

fn overutilised(ppm: u64) -> String {
    if (1_000_000..1_000_100).contains(&ppm) {
        return "utilisation exceeds the device by less than 0.0001: sum C/T must not exceed 1"
            .into();
    }
    let (whole, part) = (ppm / 1_000_000, ppm % 1_000_000 / 100);
    format!("utilisation {whole}.{part:04} is more than the device: sum C/T must not exceed 1")
}

fn device_memory(
    persistent: Bytes,
    scratch: Bytes,
    limit: Bytes,
    replanned: Option<Bytes>,
) -> String {
    let anew = replanned.map_or_else(String::new, |total| {
        let saved = saved(persistent, scratch, total);
        format!(
            "; planned anew, all models together would take {total} and fit, which saves {saved}: \
             evict and admit them again"
        )
    });
    format!("persistent {persistent} + shared scratch {scratch} > device limit {limit}{anew}")
}

/// What is asked for beyond `total`.
fn saved(persistent: Bytes, scratch: Bytes, total: Bytes) -> Bytes {
    Bytes(persistent.0.saturating_add(scratch.0)).saturating_sub(total)
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.explain(|model| model.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_shows_the_inequality_with_names() {
        let refusal = Refusal::DemandExceedsWindow {
            window: Nanos::from_millis(10),
            demand: Nanos::from_millis(4),
            blocking: Nanos::from_millis(30),
            blocked_by: Some(ModelId::first(1)),
        };
        expect_test::expect!["demand 4 ms + blocking 30 ms by a stage of lidar > window 10 ms"]
            .assert_eq(&refusal.explain(|_| "lidar".into()));
        expect_test::expect!["demand 4 ms + blocking 30 ms by a stage of m1 > window 10 ms"]
            .assert_eq(&refusal.to_string());
    }

    #[test]
    fn an_inequality_is_true_as_it_is_printed() {
        let refusal = Refusal::DemandExceedsWindow {
            window: Nanos(5_214_781),
            demand: Nanos(4_214_782),
            blocking: Nanos::from_millis(1),
            blocked_by: None,
        };
        expect_test::expect![
            "demand 4.215 ms + blocking 1 ms by the orchestrator's wake-up > window 5.214 ms"
        ]
        .assert_eq(&refusal.to_string());
    }

    #[test]
    fn a_refusal_for_lack_of_free_memory_passes_with_time_and_others_do_not() {
        let (level, free, needed) = (PressureLevel::Low, Bytes::from_mib(3), Bytes::from_mib(8));
        let refusal = Refusal::MemoryPressure { level, free, needed };
        expect_test::expect![
            "free memory is low: 3 MiB free < 8 MiB that must be before new models are accepted"
        ]
        .assert_eq(&refusal.to_string());
        assert_eq!(refusal.category(), Category::Transient);
        assert_eq!(Refusal::TooManyModels { limit: 1 }.category(), Category::Permanent);
    }

    #[test]
    fn memory_that_would_fit_if_planned_anew_is_said_with_what_that_saves() {
        let refusal = |replanned| Refusal::DeviceMemory {
            persistent: Bytes::from_mib(60),
            scratch: Bytes::from_mib(10),
            limit: Bytes::from_mib(64),
            replanned,
        };
        let short = refusal(None);
        expect_test::expect!["persistent 60 MiB + shared scratch 10 MiB > device limit 64 MiB"]
            .assert_eq(&short.to_string());
        assert_eq!(short.saved_by_replanning(), None);
        let json = serde_json::to_value(&short).expect("plain data");
        assert_eq!(json.get("replanned"), None, "as before there was such a thing");
        let fits = refusal(Some(Bytes::from_mib(50)));
        expect_test::expect![
            "persistent 60 MiB + shared scratch 10 MiB > device limit 64 MiB; planned anew, all \
             models together would take 50 MiB and fit, which saves 20 MiB: evict and admit them again"
        ]
        .assert_eq(&fits.to_string());
        assert_eq!(fits.saved_by_replanning(), Some(Bytes::from_mib(20)));
        let json = serde_json::to_string(&fits).expect("plain data");
        assert_eq!(serde_json::from_str::<Refusal>(&json).expect("its own text"), fits);
    }

    #[test]
    fn utilisation_prints_four_digits_cut() {
        let refusal = Refusal::Overutilised { utilisation_ppm: 1_333_333 };
        assert!(refusal.to_string().starts_with("utilisation 1.3333 is more"));
        let just = Refusal::Overutilised { utilisation_ppm: 1_000_000 };
        assert!(just.to_string().starts_with("utilisation exceeds the device by less than"));
    }
}

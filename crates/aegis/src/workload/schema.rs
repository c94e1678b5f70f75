//! The keys of a workload file.
//!
//! Which key a table may have is written here once: the reader refuses what is not listed, and a
//! test holds the table of `docs/formats.md` to this list.

use std::ops::RangeInclusive;

use aegis_cuda::{CompletionWait, DriverKind};
use aegis_sched::dispatch::OverrunPolicy;
use aegis_sched::policy::PolicyKind;
use aegis_sched::wcet::Method;
use aegis_trace::{Bytes, Nanos};

use super::{ChainKind, Unclaimed};

/// A table and the keys it may have.
#[derive(Debug)]
pub(super) struct Table {
    /// As a message names it.
    pub(super) name: &'static str,
    /// What it may hold.
    pub(super) keys: &'static [Key],
}

/// A key and a value that would be right for it.
#[derive(Debug)]
pub(super) struct Key {
    /// As written in the file.
    pub(super) name: &'static str,
    /// In TOML; for a table, its header.
    pub(super) example: &'static str,
}

const fn key(name: &'static str, example: &'static str) -> Key {
    Key { name, example }
}

/// The tables of the file itself.
pub(super) const TOP: Table = Table {
    name: "the file",
    keys: &[
        key("device", "[device]"),
        key("scheduler", "[scheduler]"),
        key("overheads", "[overheads]"),
        key("wcet", "[wcet]"),
        key("partition", "[[partition]]"),
        key("model", "[[model]]"),
        key("chain", "[[chain]]"),
    ],
};

/// `[device]`.
pub(super) const DEVICE: Table = Table {
    name: "[device]",
    keys: &[
        key("driver", "\"host\""),
        key("ordinal", "0"),
        key("wait", "\"spin\""),
        key("memory", "\"2GiB\""),
        key("streams", "4"),
        key("pressure", "[device.pressure]"),
    ],
};

/// `[device.pressure]`.
pub(super) const PRESSURE: Table = Table {
    name: "[device.pressure]",
    keys: &[
        key("low_enter", "\"128MiB\""),
        key("low_leave", "\"192MiB\""),
        key("critical_enter", "\"32MiB\""),
        key("critical_leave", "\"64MiB\""),
    ],
};

/// `[scheduler]`.
pub(super) const SCHEDULER: Table = Table {
    name: "[scheduler]",
    keys: &[
        key("policy", "\"edf\""),
        key("queue_depth", "64"),
        key("overrun", "\"contain\""),
        key("look_ahead", "true"),
        key("uploads_ahead", "true"),
        key("max_suspended", "1"),
        key("core", "3"),
        key("idle_spin", "\"50us\""),
    ],
};

/// `[overheads]`.
pub(super) const OVERHEADS: Table = Table {
    name: "[overheads]",
    keys: &[
        key("dispatch", "\"300us\""),
        key("wake", "\"1ms\""),
        key("boundary", "\"50us\""),
        key("copy", "\"100us\""),
    ],
};

/// `[wcet]`.
pub(super) const WCET: Table = Table {
    name: "[wcet]",
    keys: &[
        key("samples", "100"),
        key("margin_percent", "20"),
        key("method", "\"auto\""),
        key("coverage", "\"0.99\""),
        key("confidence", "\"0.99\""),
        key("unclaimed", "\"refuse\""),
        key("accept", "[\"kernel\"]"),
    ],
};

/// `[[partition]]`.
pub(super) const PARTITION: Table = Table {
    name: "[[partition]]",
    keys: &[
        key("name", "\"vision\""),
        key("sms", "72"),
        key("policy", "\"edf\""),
        key("core", "3"),
    ],
};

/// `[[model]]`.
pub(super) const MODEL: Table = Table {
    name: "[[model]]",
    keys: &[
        key("name", "\"front_detector\""),
        key("partition", "\"vision\""),
        key("backend", "\"onnx\""),
        key("path", "\"models/front_detector.onnx\""),
        key("stages", "[\"first.onnx\", \"second.onnx\"]"),
        key("threads", "1"),
        key("tf32", "true"),
        key("graph", "true"),
        key("period", "\"50ms\""),
        key("deadline", "\"50ms\""),
        key("jitter", "\"1ms\""),
        key("priority", "1"),
        key("slots", "2"),
        key("best_effort", "true"),
        key("suspend", "false"),
        key("budget", "[model.budget]"),
        key("server", "[model.server]"),
        key("sim", "[model.sim]"),
    ],
};

/// `[model.budget]`.
pub(super) const BUDGET: Table = Table {
    name: "[model.budget]",
    keys: &[key("memory", "\"64MiB\""), key("streams", "1"), key("compute", "\"8ms\"")],
};

/// `[model.server]`.
pub(super) const SERVER: Table = Table {
    name: "[model.server]",
    keys: &[key("budget", "\"5ms\""), key("period", "\"50ms\""), key("priority", "9")],
};

/// `[model.sim]`.
pub(super) const SIM: Table = Table {
    name: "[model.sim]",
    keys: &[
        key("stages", "[\"2ms\", \"3ms\"]"),
        key("persistent", "\"10MiB\""),
        key("scratch", "\"4MiB\""),
        key("carried", "\"1MiB\""),
    ],
};

/// `[[chain]]`.
pub(super) const CHAIN: Table = Table {
    name: "[[chain]]",
    keys: &[
        key("name", "\"perception\""),
        key("models", "[\"front_detector\", \"tracker\"]"),
        key("kind", "\"triggered\""),
        key("deadline", "\"80ms\""),
        key("max_age", "\"120ms\""),
    ],
};

/// How many models a chain may have.
pub(super) const MEMBERS: RangeInclusive<u32> = super::MEMBERS_MIN..=256;
const _: () = assert!(super::MODELS_MAX == 256);

/// The cores of a machine.
pub(super) const CORES: RangeInclusive<u32> = 0..=super::CORE_MAX as u32;
/// How long idle threads may poll.
pub(super) const IDLE_SPIN: RangeInclusive<Nanos> = Nanos::ZERO..=super::IDLE_SPIN_MAX;
/// How many stages a model may have.
pub(super) const STAGES: RangeInclusive<u32> = 1..=super::STAGES_MAX;

/// One element of `model`.
pub(super) const ONE_MODEL: Key = key("model", "[[model]]");
/// One element of `partition`.
pub(super) const ONE_PARTITION: Key = key("partition", "[[partition]]");
/// One element of `chain`.
pub(super) const ONE_CHAIN: Key = key("chain", "[[chain]]");
/// One element of the `models` of a chain.
pub(super) const ONE_MEMBER: Key = key("models", "\"front_detector\"");
/// One element of the `stages` of files.
pub(super) const STAGE_FILE: Key = key("stage", "\"first.onnx\"");
/// One element of the `stages` of declared costs.
pub(super) const STAGE_COST: Key = key("stage", "\"2ms\"");

/// The drivers by name.
pub(super) const DRIVERS: &[(&str, DriverKind)] =
    &[("host", DriverKind::Host), ("sim", DriverKind::Sim), ("cuda", DriverKind::Cuda)];

/// How the end of work on a GPU is noticed, by name.
pub(super) const WAITS: &[(&str, CompletionWait)] = &[
    ("spin", CompletionWait::Spin),
    ("yield", CompletionWait::Yield),
    ("block", CompletionWait::Block),
];

/// The policies by name.
pub(super) const POLICIES: &[(&str, PolicyKind)] = &[
    ("fifo", PolicyKind::Fifo),
    ("rms", PolicyKind::Rms),
    ("dm", PolicyKind::Dm),
    ("edf", PolicyKind::Edf),
    ("priority", PolicyKind::Priority),
];

/// The rules for costs by name.
pub(super) const METHODS: &[(&str, Method)] = &[
    ("margin", Method::Margin),
    ("auto", Method::Auto),
    ("order", Method::Order),
    ("gpd", Method::Gpd),
];

/// What becomes of costs without a claim, by name.
pub(super) const UNCLAIMED: &[(&str, Unclaimed)] =
    &[("refuse", Unclaimed::Refuse), ("accept", Unclaimed::Accept)];

/// One element of `accept`.
pub(super) const PROPERTY: Key = key("property", "\"kernel\"");
/// How many properties may be accepted.
pub(super) const PROPERTIES: RangeInclusive<u32> = 0..=14;

/// What happens after an overrun, by name.
pub(super) const OVERRUNS: &[(&str, OverrunPolicy)] =
    &[("record", OverrunPolicy::Record), ("contain", OverrunPolicy::Contain)];

/// The kinds of chain by name.
pub(super) const CHAIN_KINDS: &[(&str, ChainKind)] =
    &[("sampled", ChainKind::Sampled), ("triggered", ChainKind::Triggered)];

/// The kinds of backend, before what each of them needs is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendKind {
    /// ONNX Runtime.
    Onnx,
    /// Apache TVM.
    Tvm,
    /// TensorRT.
    Trt,
    /// Declared costs.
    Sim,
}

/// The backends by name.
pub(super) const BACKENDS: &[(&str, BackendKind)] = &[
    ("onnx", BackendKind::Onnx),
    ("tvm", BackendKind::Tvm),
    ("trt", BackendKind::Trt),
    ("sim", BackendKind::Sim),
];

/// Periods and deadlines.
pub(super) const PERIODS: RangeInclusive<Nanos> = super::PERIOD_MIN..=super::PERIOD_MAX;
/// Declared and budgeted costs.
pub(super) const COSTS: RangeInclusive<Nanos> = Nanos::EPSILON..=super::PERIOD_MAX;
/// Jitter, before it is compared with the period.
pub(super) const JITTERS: RangeInclusive<Nanos> = Nanos::ZERO..=super::PERIOD_MAX;
/// Dispatch and wake overheads.
pub(super) const OVERHEAD: RangeInclusive<Nanos> = Nanos::ZERO..=super::OVERHEAD_MAX;
/// Limits of memory.
pub(super) const LIMITS: RangeInclusive<Bytes> = Bytes(1)..=super::MEMORY_MAX;
/// Declared needs of memory.
pub(super) const NEEDS: RangeInclusive<Bytes> = Bytes::ZERO..=super::MEMORY_MAX;

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    use super::*;

    const FORMATS: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/formats.md"));

    /// The first two cells of each row of the key table, without their back quotes.
    fn documented() -> Vec<(String, String)> {
        let row = |line: &str| {
            let mut cells = line.strip_prefix('|')?.split('|').map(|cell| cell.trim());
            let mut name = || Some(cells.next()?.strip_prefix('`')?.strip_suffix('`')?.to_owned());
            Some((name()?, name()?))
        };
        FORMATS.lines().filter_map(row).filter(|(table, _)| table.starts_with('[')).collect()
    }

    #[test]
    fn the_documented_keys_are_the_accepted_keys() {
        let mut accepted = Vec::new();
        for table in [
            &DEVICE, &PRESSURE, &SCHEDULER, &OVERHEADS, &WCET, &PARTITION, &MODEL, &BUDGET,
            &SERVER, &SIM, &CHAIN,
        ] {
            let is_value = |key: &&Key| {
                !["[model.", "[device."].iter().any(|table| key.example.starts_with(table))
            };
            let keys = table.keys.iter().filter(is_value);
            accepted.extend(keys.map(|key| (table.name.to_owned(), key.name.to_owned())));
        }
        assert_eq!(documented(), accepted);
    }

    #[test]
    fn every_property_may_be_accepted_and_is_documented() {
        let names = crate::environment::Property::NAMES;
        assert_eq!(usize::try_from(*PROPERTIES.end()).ok(), Some(names.len()));
        let row = FORMATS.lines().find(|line| line.starts_with("| `[wcet]` | `accept` |"));
        let row = row.expect("the key is documented");
        assert!(row.contains(&format!("at most {} of", names.len())), "{row}");
        assert!(names.iter().all(|(name, _)| row.contains(&format!("`{name}`"))), "{row}");
    }

    #[test]
    fn limits_and_defaults_are_documented_as_they_are() {
        use super::super::*;
        let squeezed = |text: &dyn ToString| format!("`{}`", text.to_string().replace(' ', ""));
        let most = |most: &dyn ToString| format!(" to {}", most.to_string());
        for (table, key, shown) in [
            ("[device]", "ordinal", most(&ORDINAL_MAX)),
            ("[device]", "memory", most(&MEMORY_MAX)),
            ("[device]", "streams", most(&STREAMS_MAX)),
            ("[device]", "streams", squeezed(&STREAMS_DEFAULT)),
            ("[scheduler]", "queue_depth", most(&QUEUE_DEPTH_MAX)),
            ("[scheduler]", "max_suspended", most(&SUSPENDED_MAX)),
            ("[scheduler]", "core", most(&CORE_MAX)),
            ("[scheduler]", "idle_spin", most(&IDLE_SPIN_MAX)),
            ("[scheduler]", "idle_spin", squeezed(&IDLE_SPIN_DEFAULT)),
            ("[[partition]]", "core", most(&CORE_MAX)),
            ("[overheads]", "dispatch", most(&OVERHEAD_MAX)),
            ("[overheads]", "dispatch", squeezed(&DISPATCH_OVERHEAD_DEFAULT)),
            ("[overheads]", "wake", squeezed(&WAKE_OVERHEAD_DEFAULT)),
            ("[wcet]", "samples", most(&SAMPLES_MAX)),
            ("[wcet]", "samples", squeezed(&SAMPLES_DEFAULT)),
            ("[wcet]", "margin_percent", most(&MARGIN_PERCENT_MAX)),
            ("[wcet]", "margin_percent", squeezed(&MARGIN_PERCENT_DEFAULT)),
            ("[[partition]]", "name", most(&NAME_CHARS_MAX)),
            ("[[partition]]", "sms", most(&SMS_MAX)),
            ("[[model]]", "name", most(&NAME_CHARS_MAX)),
            ("[[model]]", "stages", most(&STAGES_MAX)),
            ("[[model]]", "threads", most(&THREADS_MAX)),
            ("[[model]]", "threads", squeezed(&THREADS_DEFAULT)),
            ("[[model]]", "slots", most(&SLOTS_MAX)),
            ("[[model]]", "slots", squeezed(&SLOTS_DEFAULT)),
            ("[model.sim]", "stages", most(&STAGES_MAX)),
        ] {
            let start = format!("| `{table}` | `{key}` |");
            let row = FORMATS.lines().find(|line| line.starts_with(&start));
            assert!(row.is_some_and(|row| row.contains(&shown)), "{start} does not say {shown}");
        }
        assert!(FORMATS.contains(&format!("(at most {MODELS_MAX})")));
        assert!(FORMATS.contains(&format!("at most {PARTITIONS_MAX} `[[partition]]`")));
        assert!(FORMATS.contains(&format!("at most {CHAINS_MAX} `[[chain]]`")));
        assert!(FORMATS.contains(&format!("at most {FILE_BYTES_MAX}.")));
    }

    #[test]
    fn every_table_is_a_key_of_the_file_or_of_a_model() {
        let keys = TOP.keys.iter().chain(MODEL.keys).chain(DEVICE.keys);
        let headers: Vec<_> = keys.map(|key| key.example).collect();
        for table in [
            &DEVICE, &PRESSURE, &SCHEDULER, &OVERHEADS, &WCET, &PARTITION, &MODEL, &BUDGET,
            &SERVER, &SIM, &CHAIN,
        ] {
            assert!(headers.contains(&table.name), "{} cannot be reached", table.name);
        }
    }

    #[test]
    fn policies_have_the_names_that_other_files_use() {
        for (name, policy) in POLICIES {
            let text: StrDeserializer<'_, Error> = name.into_deserializer();
            assert_eq!(PolicyKind::deserialize(text).as_ref(), Ok(policy));
        }
        for (name, overrun) in OVERRUNS {
            let text: StrDeserializer<'_, Error> = name.into_deserializer();
            assert_eq!(OverrunPolicy::deserialize(text).as_ref(), Ok(overrun));
        }
    }
}

//! Device memory in words: how a GPU's limit divides, and what the driver's count adds to our ledger.

use aegis::{
    Bytes, DriverMemory, DriverMemoryReport, MemoryCount, MemoryOutlook, ModelReport, Report,
};

use crate::table;

/// How the limit divides before anything is loaded, and what libraries took when models were profiled.
pub(crate) fn outlook(outlook: &MemoryOutlook, report: &Report) -> String {
    let MemoryOutlook { limit, context, libraries, arena, driver } = *outlook;
    let took = took(report);
    let mut lines = vec![format!(
        "device memory: {context} context + {arena} for models + {libraries} left to libraries = {limit}; \
         {}",
        match took {
            Bytes::ZERO => "what libraries take is not in the evidence".to_owned(),
            took => format!("libraries took {took} when these models were profiled"),
        }
    )];
    lines.extend(driver.map(|driver| counted_alone(&driver, context)));
    lines.extend((took > libraries).then(|| {
        format!(
            "warning: libraries took {took} and {libraries} are left to them: `aegis run` will refuse \
             a model for it unless the limit is raised"
        )
    }));
    lines.join("\n")
}

/// The driver's figures while nothing but the context is there.
fn counted_alone(driver: &DriverMemory, context: Bytes) -> String {
    let DriverMemory { process, counted, free, total, .. } = *driver;
    let process = match process {
        Some(bytes) => format!("{bytes} for this process ({})", counts(counted)),
        None => format!(
            "nothing for this process, which it cannot tell without NVIDIA's management library (so \
             {context} is a reserve, and libraries are charged by the fall of free memory, to which \
             others add)"
        ),
    };
    format!("the driver counts {process} with the context alone, and {free} free of {total}")
}

fn counts(by: MemoryCount) -> &'static str {
    match by {
        MemoryCount::PerProcess => "its own count of it",
        MemoryCount::FallOfFree => "by the fall of free memory, so others count too",
    }
}

/// What the libraries of all admitted models took.
fn took(report: &Report) -> Bytes {
    let present = report.models.iter().filter(|model| !model.evicted);
    present.map(|model| model.foreign).sum()
}

/// Our ledger line by line beside the driver's count, and what is left unexplained.
pub(crate) fn explained(memory: &DriverMemoryReport, report: &Report) -> String {
    let mut shown = table::new(&["device memory", "bytes", "what it is"]);
    let mut line = |what: &str, bytes: Bytes, why: &str| {
        table::add(&mut shown, &[what.into(), bytes.to_string(), why.into()]);
    };
    let libraries = memory.libraries;
    line(
        "context",
        memory.context,
        match memory.counted {
            Some(_) => "the driver's, measured when it was made",
            None => "the driver's: a reserve, since nobody counts it",
        },
    );
    line("arena", memory.arena, "models and their scratch, free parts included");
    line(
        "modules",
        memory.modules,
        "code of libraries, loaded once and kept, also by models that failed",
    );
    line("handles", memory.handles(), "handles and workspaces of the models' libraries");
    line("graphs", memory.graphs, "the driver's pool for captured graphs");
    line("ledger", memory.ledger(), "the sum, of which the limit is");
    line("limit", memory.limit, "of the workload");
    let counted = match memory.counted {
        Some(counted) => difference(memory, counted, &mut line),
        None => "the driver does not count the memory of this process: libraries are charged by the fall \
                 of free memory"
            .to_owned(),
    };
    let mut text = format!("{shown}\n{counted}");
    if libraries > Bytes::ZERO {
        text.push_str(&format!("\nlibraries by model: {}", by_model(report, libraries)));
    }
    text
}

/// The lines of the driver's count; what is to be said of it.
fn difference(
    memory: &DriverMemoryReport,
    counted: Bytes,
    line: &mut impl FnMut(&str, Bytes, &str),
) -> String {
    line("driver", counted, memory.by.map_or("its count", counts));
    let ledger = memory.ledger();
    let (more, less) = (counted.saturating_sub(ledger), ledger.saturating_sub(counted));
    let grown = memory.grown_since_start().unwrap_or(Bytes::ZERO).min(more);
    line("since start", grown, "taken while jobs ran: modules loaded late, graphs that grew");
    line("unexplained", more.saturating_sub(grown), "streams, events, pages of 2 MiB, or others");
    let pool = match memory.graphs_now {
        Some(now) if now != memory.graphs => format!("; the driver's pool for graphs is {now} now"),
        _ => String::new(),
    };
    match less {
        Bytes::ZERO => format!("the driver counts {more} more than the ledger{pool}"),
        less => format!(
            "the driver counts {less} less than the ledger: libraries gave it back after it was \
             measured{pool}"
        ),
    }
}

/// What each model's libraries took, and what the ledger holds beyond: of models that were refused.
fn by_model(report: &Report, libraries: Bytes) -> String {
    let name = |model: &&ModelReport| model.foreign > Bytes::ZERO && !model.evicted;
    let takes = report.models.iter().filter(name);
    let mut parts: Vec<String> =
        takes.map(|model| format!("{} {}", model.name, model.foreign)).collect();
    let rest = libraries.saturating_sub(took(report));
    parts.extend((rest > Bytes::ZERO).then(|| format!("of models that are not there {rest}")));
    parts.join(", ")
}

/// What runtimes say of how models were prepared, one a line.
pub(crate) fn remarks<'a>(
    models: impl IntoIterator<Item = (&'a str, &'a [String])>,
) -> impl Iterator<Item = String> {
    models
        .into_iter()
        .flat_map(|(name, remarks)| remarks.iter().map(move |remark| format!("{name}: {remark}")))
}

/// The remarks of the models of a report.
pub(crate) fn remarks_of(report: &Report) -> impl Iterator<Item = String> + '_ {
    remarks(report.models.iter().map(|model| (model.name.as_str(), &model.remarks[..])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aegis::{PolicyKind, Runtime};

    const MIB: u64 = 1 << 20;

    fn mib(n: u64) -> Bytes {
        Bytes(n * MIB)
    }

    fn nothing() -> Report {
        let builder = Runtime::builder().sim(mib(1)).streams(1).policy(PolicyKind::Edf);
        let builder = builder.queue_depth(1).max_models(1).trace_capacity(16);
        builder.overheads(aegis::Overheads::default()).build().expect("a device").report()
    }

    fn measured() -> DriverMemoryReport {
        DriverMemoryReport {
            context: mib(518),
            arena: mib(6522),
            libraries: mib(260),
            modules: mib(100),
            graphs: mib(32),
            limit: mib(8192),
            counted: Some(mib(7310)),
            by: Some(MemoryCount::PerProcess),
            counted_at_start: Some(mib(7306)),
            graphs_now: Some(mib(34)),
        }
    }

    /// The figure of the line that begins with `what`.
    fn figure(shown: &str, what: &str) -> String {
        let line = shown.lines().find(|line| line.starts_with(&format!("| {what} ")));
        let cells: Vec<&str> = line.expect("the line is there").split('|').collect();
        cells[2].trim().to_owned()
    }

    #[test]
    fn every_mebibyte_of_the_driver_has_a_line() {
        let shown = explained(&measured(), &nothing());
        for (what, size) in [
            ("modules", mib(100)),
            ("handles", mib(128)),
            ("graphs", mib(32)),
            ("ledger", mib(7300)),
            ("driver", mib(7310)),
            ("since start", mib(4)),
            ("unexplained", mib(6)),
        ] {
            assert_eq!(figure(&shown, what), size.to_string(), "{what}\n{shown}");
        }
        assert!(shown.contains("10 MiB more than the ledger; the driver's pool"), "{shown}");
        assert!(shown.contains("of models that are not there 260 MiB"), "{shown}");
    }

    #[test]
    fn less_than_the_ledger_is_said_and_nothing_is_made_up() {
        let counted = Some(mib(7290));
        let shown = explained(&DriverMemoryReport { counted, ..measured() }, &nothing());
        assert!(shown.contains("10 MiB less than the ledger"), "{shown}");
        assert_eq!(figure(&shown, "unexplained"), Bytes::ZERO.to_string());
        let blind = DriverMemoryReport { counted: None, by: None, ..measured() };
        let shown = explained(&blind, &nothing());
        assert!(shown.contains("does not count") && !shown.contains("unexplained"), "{shown}");
        assert!(shown.contains("a reserve, since nobody counts it"), "{shown}");
    }

    #[test]
    fn an_outlook_has_a_line_of_libraries_and_the_drivers_figure() {
        let driver = DriverMemory {
            process: Some(mib(518)),
            counted: MemoryCount::PerProcess,
            graphs: None,
            free: mib(80_000),
            total: mib(81_000),
        };
        let (limit, context) = (mib(8192), mib(518));
        let (libraries, arena) = (mib(1152), mib(6522));
        let whole = MemoryOutlook { limit, context, libraries, arena, driver: Some(driver) };
        let shown = outlook(&whole, &nothing());
        assert!(shown.contains("518 MiB context + "), "{shown}");
        assert!(shown.contains("left to libraries = 8 GiB"), "{shown}");
        assert!(shown.contains("the driver counts 518 MiB for this process"), "{shown}");
        assert!(!shown.contains("warning"), "{shown}");
        let blind = Some(DriverMemory { process: None, ..driver });
        let shown = outlook(&MemoryOutlook { driver: blind, ..whole }, &nothing());
        assert!(shown.contains("so 518 MiB is a reserve"), "{shown}");
    }
}

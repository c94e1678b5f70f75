//! The verdict of a replay: what was recomputed, and the first event that differs, with both sides.

use aegis_sched::replay::{Divergence, ExecutorReplay, WhatIf};
use aegis_trace::TraceEvent;
use serde_json::{Value, json};

use super::{TraceFile, place};

impl TraceFile {
    /// What was recomputed, and whether it is as logged; in words, without a line end.
    #[must_use]
    pub fn verdict(&self) -> String {
        let mut lines: Vec<String> = self.replayed.executors.iter().map(recomputed).collect();
        if self.replayed.refused_unasked > 0 {
            let refused = self.replayed.refused_unasked;
            lines.push(format!("refused by the plan of the workload, not recomputed: {refused}"));
        }
        if self.cut {
            lines.push("the trace is cut short: nothing is said about what followed".into());
        }
        match self.divergence() {
            None => lines.push("yes: every decision is as logged".into()),
            Some(divergence) => lines.extend(parted(divergence)),
        }
        lines.join("\n")
    }

    /// The same as JSON, with what another policy would have done; `docs/formats.md` has every key.
    #[must_use]
    pub fn answer_json(&self, compared: &[WhatIf]) -> Value {
        json!({
            "replayed": self.divergence().is_none(),
            "cut": self.cut,
            "refused_unasked": self.replayed.refused_unasked,
            "executors": self.replayed.executors.iter().map(recomputed_json).collect::<Vec<_>>(),
            "divergence": self.divergence().map(parted_json),
            "what_if": compared.iter().map(|of| self.what_if_json(of)).collect::<Vec<_>>(),
        })
    }
}

fn recomputed(of: &ExecutorReplay) -> String {
    let mut line = format!(
        "{}, {}: {} events and {} admissions recomputed; {} jobs, {} stages",
        place(of.config.partition.as_deref()),
        of.config.policy,
        of.events,
        of.admissions,
        of.jobs,
        of.stages,
    );
    if of.taken_as_given > 0 {
        line.push_str(&format!("; refusals by memory, taken as given: {}", of.taken_as_given));
    }
    line
}

fn recomputed_json(of: &ExecutorReplay) -> Value {
    json!({
        "partition": of.config.partition,
        "policy": of.config.policy,
        "events": of.events,
        "admissions": of.admissions,
        "taken_as_given": of.taken_as_given,
        "jobs": of.jobs,
        "stages": of.stages,
    })
}

/// Where, and both sides.
fn parted(divergence: &Divergence) -> Vec<String> {
    let (line, at) = (divergence.line(), divergence.at);
    let place = place(divergence.partition.as_deref());
    let mut lines = vec![
        format!("no: line {line}, {place}, at {at}: the replay parts from the log"),
        format!("  logged    {}", side(divergence.logged.as_ref(), "the end of the log")),
        format!("  replayed  {}", side(divergence.replayed.as_ref(), "nothing")),
    ];
    if let Some((job, stage)) = divergence.on_device {
        lines.push(format!("  the replay has stage {stage} of {job} on the device"));
    }
    lines
}

fn side(event: Option<&TraceEvent>, none: &str) -> String {
    let event = event.map(|event| serde_json::to_string(event).expect("events are plain data"));
    event.unwrap_or_else(|| none.to_owned())
}

fn parted_json(divergence: &Divergence) -> Value {
    json!({
        "line": divergence.line(),
        "partition": divergence.partition,
        "at": divergence.at,
        "logged": divergence.logged,
        "replayed": divergence.replayed,
        "on_device": divergence.on_device.map(|(job, stage)| json!({ "job": job, "stage": stage })),
    })
}

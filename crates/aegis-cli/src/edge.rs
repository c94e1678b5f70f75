//! How far an admitted set is from the edge, as `aegis check` shows it.

use aegis::{Margins, ModelSensitivity, Pipeline, Runtime, Verdict};

use crate::table::{self, ms, ms_down, or_dash};

/// What `check` says about the admitted set beyond its bounds.
pub(crate) struct Edge {
    /// Of each executor with models.
    margins: Vec<Margins>,
    sensitivities: Vec<ModelSensitivity>,
    /// Whether there would be sensitivities, were it not for triggered chains.
    withheld: bool,
}

impl Edge {
    /// Asks about what `runtime` admitted; about each model only where that is wanted, since it costs
    /// some time, and where models do not trigger one another, since their jitters would move along.
    pub(crate) fn of(
        pipeline: &Pipeline,
        runtime: &Runtime,
        verdicts: &[Verdict],
        each: bool,
    ) -> Self {
        let withheld = each && pipeline.has_triggers();
        let sensitivities = if each && !withheld { runtime.sensitivities() } else { Vec::new() };
        Self { margins: pipeline.margins(runtime, verdicts), sensitivities, withheld }
    }

    /// The same as JSON, as `docs/formats.md` describes it.
    pub(crate) fn add_to(&self, whole: &mut serde_json::Value) {
        // Where the device is whole there is one object, or nothing.
        whole["margins"] = match &self.margins[..] {
            [] => serde_json::Value::Null,
            [only] if only.partition.is_none() => serde_json::json!(only),
            each => serde_json::json!(each),
        };
        whole["sensitivity"] = serde_json::json!(self.sensitivities);
    }

    /// A line about the whole set and, where it was asked for, a table about each model.
    pub(crate) fn shown(&self) -> String {
        if self.margins.is_empty() {
            return String::new();
        }
        let mut line = self.margins.iter().map(margin).collect::<Vec<_>>().join("\n");
        if self.withheld {
            line.push_str(
                "\nno sensitivity of each model: triggered chains move all jitters along",
            );
        }
        if self.sensitivities.is_empty() {
            return line;
        }
        let columns = [
            "model",
            "slack ms",
            "least T ms (deadline kept)",
            "least D ms (period kept)",
            "most C ms",
            "foreign stage ms",
        ];
        let mut shown = table::new(&columns);
        for model in &self.sensitivities {
            table::add(
                &mut shown,
                &[
                    model.model.clone(),
                    or_dash(model.slack.map(ms_down)),
                    or_dash(model.smallest_period.map(ms)),
                    or_dash(model.smallest_deadline.map(ms)),
                    or_dash(model.largest_cost.map(ms_down)),
                    or_dash(model.longest_foreign_stage.map(ms_down)),
                ],
            );
        }
        format!("{line}\n{shown}")
    }
}

/// How far one executor is from the edge.
fn margin(margins: &Margins) -> String {
    let Margins { partition, scale_ppm, overrun, background } = margins;
    let overrun = overrun.map_or_else(String::new, |overrun| {
        format!(", or {} of overruns in one busy period", overrun.cut())
    });
    let of = partition.as_ref().map_or_else(String::new, |name| format!("{name}, "));
    format!(
        "{of}to the edge: all costs times {}.{:03}{overrun}, or stages in the background of \
         {}",
        scale_ppm / 1_000_000,
        scale_ppm % 1_000_000 / 1_000,
        background.cut(),
    )
}

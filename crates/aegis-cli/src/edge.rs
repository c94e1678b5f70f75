//! How far an admitted set is from the edge, as `aegis check` shows it.

use aegis::{Margins, ModelSensitivity, Runtime};

use crate::table::{self, ms, ms_down};

/// What `check` says about the admitted set beyond its bounds.
pub(crate) struct Edge {
    margins: Option<Margins>,
    sensitivities: Vec<ModelSensitivity>,
}

impl Edge {
    /// Asks `runtime`; about each model only where that is wanted, since it costs some time.
    pub(crate) fn of(runtime: &Runtime, each: bool) -> Self {
        let sensitivities = if each { runtime.sensitivities() } else { Vec::new() };
        Self { margins: runtime.margins(), sensitivities }
    }

    /// The same as JSON, as `docs/formats.md` describes it.
    pub(crate) fn add_to(&self, whole: &mut serde_json::Value) {
        whole["margins"] = serde_json::json!(self.margins);
        whole["sensitivity"] = serde_json::json!(self.sensitivities);
    }

    /// A line about the whole set and, where it was asked for, a table about each model.
    pub(crate) fn shown(&self) -> String {
        let Some(Margins { scale_ppm, overrun, background }) = self.margins else {
            return String::new();
        };
        let line = format!(
            "to the edge: all costs times {}.{:03}, or {overrun} of overruns in one busy period, or \
             stages in the background of {background}",
            scale_ppm / 1_000_000,
            scale_ppm % 1_000_000 / 1_000,
        );
        if self.sensitivities.is_empty() {
            return line;
        }
        let columns =
            ["model", "slack ms", "least T ms", "least D ms", "most C ms", "foreign stage ms"];
        let mut shown = table::new(&columns);
        for model in &self.sensitivities {
            table::add(
                &mut shown,
                &[
                    model.model.clone(),
                    ms_down(model.slack),
                    ms(model.smallest_period),
                    ms(model.smallest_deadline),
                    ms_down(model.largest_cost),
                    ms_down(model.longest_foreign_stage),
                ],
            );
        }
        format!("{line}\n{shown}")
    }
}

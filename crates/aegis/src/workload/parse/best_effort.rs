//! The keys of a model of best effort: `best_effort` and `[model.server]`.
//!
//! Keys that promise something are refused beside them, since a promise that is written down and
//! not kept would be worse than none.

use aegis_sched::policy::PolicyKind;

use super::Parser;
use crate::workload::fault::{FaultKind, Reported};
use crate::workload::reader::{At, Raw, Section};
use crate::workload::{BestEffort, Server, Span, schema};

impl Parser<'_> {
    /// How a model of best effort is served; `None` for one with deadlines.
    pub(super) fn best_effort(
        &mut self,
        table: &Section<'_>,
    ) -> Result<Option<BestEffort>, Reported> {
        let flag = table.optional(&mut self.findings, "best_effort", Raw::flag);
        let server = self.server(table);
        let stated = flag?.filter(|flag| flag.value);
        let misspelt = table.misspelt("best_effort");
        match (stated, table.place_of("server")) {
            (None, Some(place)) => {
                let kind = FaultKind::ServerWithoutBestEffort;
                Err(misspelt.unwrap_or_else(|| self.findings.report(kind, place)))
            }
            (None, None) => misspelt.map_or(Ok(None), Err),
            (Some(flag), _) => {
                self.refuse_promises(table, flag.span);
                let server = server?.map(BestEffort::Server);
                Ok(Some(server.unwrap_or(BestEffort::Background)))
            }
        }
    }

    fn server(&mut self, table: &Section<'_>) -> Result<Option<Server>, Reported> {
        let found = &mut self.findings;
        let Some(server) = table.table(found, "server", &schema::SERVER)? else { return Ok(None) };
        let budget = server.required(found, "budget", |raw| raw.time(schema::COSTS));
        let period = server.required(found, "period", |raw| raw.time(schema::PERIODS));
        let priority = server.optional(found, "priority", |raw| raw.count(0..=u32::MAX));
        let budget = budget.and_then(|budget| {
            let within = self.within_period("budget", Some(budget), period)?;
            Ok(within.unwrap_or(budget))
        });
        let priority = priority.and_then(|priority| match self.facts.own_policy {
            Some(At { value: PolicyKind::Priority, span }) if priority.is_none() => {
                let related = Some((span, "needed by this policy"));
                let kind = FaultKind::MissingServerPriority;
                let report = || self.findings.report_with(kind, server.header(), related);
                Err(server.misspelt("priority").unwrap_or_else(report))
            }
            _ => Ok(priority),
        });
        Ok(Some(Server {
            budget: budget?.value,
            period: period?.value,
            priority: priority?.map(|priority| priority.value),
        }))
    }

    /// Reports the keys that promise something, which best effort does not.
    fn refuse_promises(&mut self, table: &Section<'_>, stated: Span) {
        for key in ["deadline", "jitter", "priority"] {
            if let Some(span) = table.place_of(key) {
                let kind = FaultKind::NotForBestEffort { key };
                self.findings.report_with(kind, span, Some((stated, "best effort")));
            }
        }
    }
}

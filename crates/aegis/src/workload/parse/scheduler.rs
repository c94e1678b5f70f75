//! The tables `[scheduler]` and `[overheads]`: how an executor decides, and what that is charged.

use aegis_cuda::DriverKind;
use aegis_sched::dispatch::OverrunPolicy;

use super::super::fault::{FaultKind, Reported};
use super::super::reader::{At, Section};
use super::super::schema;
use super::super::{Overheads, Scheduler, Span};
use super::{Facts, Parser, or_default};

impl Parser<'_> {
    pub(super) fn scheduler(&mut self, top: &Section<'_>) -> Result<Scheduler, Reported> {
        let table = self.required_table(top, "scheduler", &schema::SCHEDULER)?;
        let found = &mut self.findings;
        let policy = table.required(found, "policy", |raw| raw.one_of(schema::POLICIES));
        let depths = 1..=super::super::QUEUE_DEPTH_MAX;
        let queue_depth = table.required(found, "queue_depth", |raw| raw.count(depths));
        let overrun = table.optional(found, "overrun", |raw| raw.one_of(schema::OVERRUNS));
        let look_ahead = table.optional(found, "look_ahead", |raw| raw.flag());
        let uploads_ahead = table.optional(found, "uploads_ahead", |raw| raw.flag());
        let limits = 0..=super::super::SUSPENDED_MAX;
        let max_suspended = table.optional(found, "max_suspended", |raw| raw.count(limits));
        let core = table.optional(found, "core", |raw| raw.count(schema::CORES));
        let idle_spin = table.optional(found, "idle_spin", |raw| raw.time(schema::IDLE_SPIN));
        self.facts.core = core.ok().flatten();
        self.facts.policy = policy.ok();
        self.facts.look_ahead = matches!(look_ahead, Ok(Some(At { value: true, .. })));
        self.facts.max_suspended = max_suspended.ok().flatten();
        if let Ok(Some(At { value: true, span })) = uploads_ahead {
            self.facts.uploads_ahead = true;
            self.check_uploads_ahead(span, table.place_of("look_ahead"));
        }
        Ok(Scheduler {
            policy: policy?.value,
            queue_depth: queue_depth?.value,
            overrun: or_default(overrun?, OverrunPolicy::default()),
            max_suspended: max_suspended?.map(|limit| limit.value),
            core: core?.and_then(|core| u16::try_from(core.value).ok()),
            idle_spin: or_default(idle_spin?, super::super::IDLE_SPIN_DEFAULT),
        })
    }

    /// Inputs go ahead of what waits behind another stage, on a device that copies by itself.
    fn check_uploads_ahead(&mut self, place: Span, look_ahead: Option<Span>) {
        if !self.facts.look_ahead {
            let related = look_ahead.map(|span| (span, "off here"));
            let _ = self.findings.report_with(FaultKind::UploadsWithoutLookAhead, place, related);
        }
        if let Some(At { value: driver @ DriverKind::Host, span }) = self.facts.driver {
            let fault = FaultKind::NotForDriver { key: "uploads_ahead", driver };
            let _ = self.findings.report_with(fault, place, Some((span, "the driver")));
        }
    }

    pub(super) fn overheads(&mut self, top: &Section<'_>) -> Result<Overheads, Reported> {
        let found = &mut self.findings;
        let Facts { look_ahead, uploads_ahead, .. } = self.facts;
        let Some(table) = top.table(found, "overheads", &schema::OVERHEADS)? else {
            return Ok(Overheads { look_ahead, uploads_ahead, ..super::super::OVERHEADS_DEFAULT });
        };
        let dispatch = table.optional(found, "dispatch", |raw| raw.time(schema::OVERHEAD));
        let wake = table.optional(found, "wake", |raw| raw.time(schema::OVERHEAD));
        let boundary = table.optional(found, "boundary", |raw| raw.time(schema::OVERHEAD));
        let copy = table.optional(found, "copy", |raw| raw.time(schema::OVERHEAD));
        let default = super::super::OVERHEADS_DEFAULT;
        Ok(Overheads {
            dispatch: or_default(dispatch?, default.dispatch),
            wake: or_default(wake?, default.wake),
            boundary: or_default(boundary?, default.boundary),
            copy: or_default(copy?, default.copy),
            look_ahead,
            uploads_ahead,
        })
    }
}

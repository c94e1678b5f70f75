//! The keys of `[device.pressure]`: when a device counts as short of memory.
//!
//! Every threshold is stated or none is: half a policy would refuse at a level that nobody chose.

use aegis_memory::{Band, PressureThresholds};
use aegis_trace::Bytes;

use super::Parser;
use crate::workload::fault::{FaultKind, Reported};
use crate::workload::reader::{At, Section};
use crate::workload::schema;

/// When a level is entered and left, with the places.
struct StatedBand {
    enter: At<Bytes>,
    leave: At<Bytes>,
}

impl StatedBand {
    fn band(&self) -> Band {
        Band { enter: self.enter.value, leave: self.leave.value }
    }
}

impl Parser<'_> {
    /// The thresholds; `None` where the file states none.
    pub(super) fn pressure(
        &mut self,
        device: &Section<'_>,
    ) -> Result<Option<PressureThresholds>, Reported> {
        let Some(table) = device.table(&mut self.findings, "pressure", &schema::PRESSURE)? else {
            return Ok(None);
        };
        let low = self.band(&table, "low_enter", "low_leave");
        let critical = self.band(&table, "critical_enter", "critical_leave");
        let (low, critical) = (low?, critical?);
        self.within_low("critical_enter", critical.enter, low.enter)?;
        self.within_low("critical_leave", critical.leave, low.leave)?;
        Ok(Some(PressureThresholds { low: low.band(), critical: critical.band() }))
    }

    /// One level, which must be left at more than it is entered at.
    fn band(
        &mut self,
        table: &Section<'_>,
        enter: &'static str,
        leave: &'static str,
    ) -> Result<StatedBand, Reported> {
        let entered = table.required(&mut self.findings, enter, |raw| raw.size(schema::NEEDS));
        let left = table.required(&mut self.findings, leave, |raw| raw.size(schema::NEEDS));
        let band = StatedBand { enter: entered?, leave: left? };
        if band.leave.value > band.enter.value {
            return Ok(band);
        }
        let Band { enter, leave: found } = band.band();
        let kind = FaultKind::NoHysteresis { key: leave, found, enter };
        Err(self.findings.report_with(kind, band.leave.span, Some((band.enter.span, "entered"))))
    }

    /// The critical level must lie within the low one.
    fn within_low(
        &mut self,
        key: &'static str,
        critical: At<Bytes>,
        low: At<Bytes>,
    ) -> Result<(), Reported> {
        if critical.value <= low.value {
            return Ok(());
        }
        let kind = FaultKind::AboveLow { key, found: critical.value, low: low.value };
        Err(self.findings.report_with(kind, critical.span, Some((low.span, "the low level"))))
    }
}

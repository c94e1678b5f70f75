//! The `[[partition]]` tables, read before the models that name them.
//!
//! Where a partition has faults of its own, those are reported, and whatever depends on it is not.

use std::collections::BTreeMap;

use aegis_cuda::DriverKind;
use aegis_sched::policy::PolicyKind;

use super::{Parser, model_name};
use crate::workload::fault::{FaultKind, Reported};
use crate::workload::partition::{PARTITIONS_MAX, Partition, PartitionFault, SMS_MAX};
use crate::workload::reader::{At, Raw, Section, quoted};
use crate::workload::{Span, schema};

/// What models need to know of the partitions.
#[derive(Default)]
pub(super) struct Partitions {
    /// In file order.
    known: Vec<Known>,
    /// Which cores are asked for, and where.
    cores: BTreeMap<u32, Span>,
    /// The fault of a partition whose name is not known: it may be any.
    nameless: Option<Reported>,
}

struct Known {
    name: String,
    span: Span,
    policy: Option<At<PolicyKind>>,
    is_used: bool,
}

impl Partitions {
    fn names(&self) -> Vec<String> {
        self.known.iter().map(|known| known.name.clone()).collect()
    }
}

impl Parser<'_> {
    /// All partitions; every one is read before the first fault is returned.
    pub(super) fn partitions(&mut self, top: &Section<'_>) -> Result<Vec<Partition>, Reported> {
        let expected = "an array of tables, each [[partition]]";
        let tables = top.optional(&mut self.findings, "partition", |raw| {
            raw.array(expected, &schema::ONE_PARTITION)
        });
        let tables = tables.inspect_err(|reported| self.partitions.nameless = Some(*reported))?;
        let tables = tables.map(|tables| tables.value).unwrap_or_default();
        if let Some(reported) = top.misspelt("partition") {
            self.partitions.nameless = Some(reported);
        }
        if let Some(surplus) = tables.get(PARTITIONS_MAX) {
            let fault = PartitionFault::TooMany { found: tables.len(), most: PARTITIONS_MAX };
            self.findings.report(FaultKind::Partition(fault), surplus.span);
        }
        if let (Some(core), Some(first)) = (self.facts.core, tables.first()) {
            let kind = FaultKind::Partition(PartitionFault::CoreOfAll);
            self.findings.report_with(kind, core.span, Some((first.span, "the first partition")));
        }
        let partitions: Vec<_> = tables.iter().map(|raw| self.partition(raw)).collect();
        partitions.into_iter().collect()
    }

    fn partition(&mut self, raw: &Raw<'_>) -> Result<Partition, Reported> {
        let At { value, span } = raw.read(&mut self.findings, Raw::table)?;
        let table = Section::open(&schema::PARTITION, value, span, &mut self.findings);
        let found = &mut self.findings;
        let sms = table.optional(found, "sms", |raw| raw.count(1..=SMS_MAX));
        let policy = table.optional(found, "policy", |raw| raw.one_of(schema::POLICIES));
        let core = table.optional(found, "core", |raw| raw.count(schema::CORES));
        let (sms, core) = (self.sms(&table, sms), self.core(core));
        let name = self.partition_name(&table);
        match &name {
            Ok(name) => {
                let span = table.place_of("name").unwrap_or(table.header());
                let policy = policy.ok().flatten();
                let known = Known { name: name.clone(), span, policy, is_used: false };
                self.partitions.known.push(known);
            }
            Err(reported) => self.partitions.nameless = Some(*reported),
        }
        Ok(Partition {
            name: name?,
            sms: sms?.map(|sms| sms.value),
            policy: policy?.map(|policy| policy.value),
            core: core?.and_then(|core| u16::try_from(core.value).ok()),
        })
    }

    /// The core itself, unless another partition has it.
    fn core(
        &mut self,
        core: Result<Option<At<u32>>, Reported>,
    ) -> Result<Option<At<u32>>, Reported> {
        let Ok(Some(At { value, span })) = core else { return core };
        match self.partitions.cores.get(&value).copied() {
            None => {
                self.partitions.cores.insert(value, span);
                core
            }
            Some(first) => {
                let kind = FaultKind::Partition(PartitionFault::SameCore { core: value });
                Err(self.findings.report_with(kind, span, Some((first, "first asked for here"))))
            }
        }
    }

    /// The share itself; that there is none is a fault where it splits something.
    fn sms(
        &mut self,
        table: &Section<'_>,
        sms: Result<Option<At<u32>>, Reported>,
    ) -> Result<Option<At<u32>>, Reported> {
        let driver = self.facts.driver.filter(|driver| driver.value == DriverKind::Cuda);
        let (Ok(None), Some(driver)) = (sms, driver) else { return sms };
        let kind = FaultKind::Partition(PartitionFault::MissingSms);
        let related = Some((driver.span, "the driver"));
        let report = || self.findings.report_with(kind, table.header(), related);
        Err(table.misspelt("sms").unwrap_or_else(report))
    }

    fn partition_name(&mut self, table: &Section<'_>) -> Result<String, Reported> {
        let At { value, span } = table.required(&mut self.findings, "name", model_name)?;
        let mut known = self.partitions.known.iter();
        match known.find(|known| known.name == value).map(|first| first.span) {
            Some(first) => {
                let kind = FaultKind::DuplicateName { name: value.to_owned() };
                Err(self.findings.report_with(kind, span, Some((first, "first used here"))))
            }
            None => Ok(value.to_owned()),
        }
    }

    /// The place of the partition that a model runs in; `None` where the device is not split. Sets the
    /// policy that its jobs are ordered by.
    pub(super) fn partition_of(&mut self, table: &Section<'_>) -> Result<Option<usize>, Reported> {
        self.facts.own_policy = self.facts.policy;
        let stated = table.optional(&mut self.findings, "partition", Raw::text)?;
        let Some(At { value, span }) = stated else {
            let Some(first) = self.partitions.known.first() else {
                return self.partitions.nameless.map_or(Ok(None), Err);
            };
            let (place, known) = (first.span, self.partitions.names());
            let kind = FaultKind::Partition(PartitionFault::Missing { known });
            let related = Some((place, "the first partition"));
            let report = || self.findings.report_with(kind, table.header(), related);
            return Err(table.misspelt("partition").unwrap_or_else(report));
        };
        if let Some(place) = self.partitions.known.iter().position(|known| known.name == value) {
            let known = &mut self.partitions.known[place];
            known.is_used = true;
            self.facts.own_policy = known.policy.or(self.facts.policy);
            return Ok(Some(place));
        }
        let known = self.partitions.names();
        let fault = PartitionFault::Unknown { name: quoted(value), known };
        let report = || self.findings.report(FaultKind::Partition(fault), span);
        Err(self.partitions.nameless.unwrap_or_else(report))
    }

    /// Reports the partitions that no model names, once all models were read without a fault.
    pub(super) fn check_empty_partitions(&mut self) {
        for known in self.partitions.known.iter().filter(|known| !known.is_used) {
            let fault = PartitionFault::Empty { name: known.name.clone() };
            self.findings.report(FaultKind::Partition(fault), known.span);
        }
    }
}

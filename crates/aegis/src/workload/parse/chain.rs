//! The `[[chain]]` tables, read after the models that they name.
//!
//! A member is judged against what is known of its model; where that has faults of its own, those are
//! reported and what depends on them is not.

use std::collections::BTreeMap;

use aegis_trace::Nanos;

use super::{Parser, model_name};
use crate::workload::chain::{CHAINS_MAX, Chain, ChainFault, ChainKind, Stated};
use crate::workload::fault::{FaultKind, Reported};
use crate::workload::reader::{At, Raw, Section, quoted};
use crate::workload::{BestEffort, Span, schema};

/// What chains need to know of the models.
#[derive(Default)]
pub(super) struct Members {
    /// By name.
    known: BTreeMap<String, Member>,
    /// What each model states, in file order.
    pub(super) stated: Vec<Stated>,
    /// The fault of a model whose name is not known: it may be any.
    nameless: Option<Reported>,
    /// In which place a triggered chain names a model.
    triggered: BTreeMap<String, Span>,
}

#[derive(Clone, Copy)]
struct Member {
    place: usize,
    name: Span,
    /// `None` where it is not known.
    best_effort: Option<bool>,
    period: Option<At<Nanos>>,
    partition: Option<usize>,
}

/// What the first member of a chain sets for the others.
#[derive(Default)]
struct First {
    period: Option<Nanos>,
    /// With where the chain names it.
    partition: Option<(usize, Span)>,
}

impl Members {
    /// Takes note of the next model of the file.
    pub(super) fn add(
        &mut self,
        table: &Section<'_>,
        name: &Result<String, Reported>,
        best_effort: &Result<Option<BestEffort>, Reported>,
        period: &Result<At<Nanos>, Reported>,
        partition: &Result<Option<usize>, Reported>,
    ) {
        let is_stated = |key| table.place_of(key).is_some();
        let place = self.stated.len();
        self.stated.push(Stated { deadline: is_stated("deadline"), jitter: is_stated("jitter") });
        match name {
            Ok(known) => {
                let best_effort = best_effort.as_ref().ok().map(Option::is_some);
                let name = table.place_of("name").unwrap_or(table.header());
                let period = period.as_ref().ok().copied();
                let partition = partition.as_ref().ok().copied().flatten();
                let member = Member { place, name, best_effort, period, partition };
                self.known.insert(known.clone(), member);
            }
            Err(reported) => self.nameless = Some(*reported),
        }
    }
}

impl Parser<'_> {
    /// All chains; every one is read before the first fault is returned.
    pub(super) fn chains(&mut self, top: &Section<'_>) -> Result<Vec<Chain>, Reported> {
        let expected = "an array of tables, each [[chain]]";
        let tables = top
            .optional(&mut self.findings, "chain", |raw| raw.array(expected, &schema::ONE_CHAIN))?;
        let tables = tables.map(|tables| tables.value).unwrap_or_default();
        if let Some(surplus) = tables.get(CHAINS_MAX) {
            let fault = ChainFault::TooMany { found: tables.len(), most: CHAINS_MAX };
            self.findings.report(FaultKind::Chain(fault), surplus.span);
        }
        let mut names = BTreeMap::new();
        let chains: Vec<_> = tables.iter().map(|raw| self.chain(raw, &mut names)).collect();
        chains.into_iter().collect()
    }

    fn chain(
        &mut self,
        raw: &Raw<'_>,
        names: &mut BTreeMap<String, Span>,
    ) -> Result<Chain, Reported> {
        let At { value, span } = raw.read(&mut self.findings, Raw::table)?;
        let table = Section::open(&schema::CHAIN, value, span, &mut self.findings);
        let name = self.chain_name(&table, names);
        let found = &mut self.findings;
        let kind = table.required(found, "kind", |raw| raw.one_of(schema::CHAIN_KINDS));
        let deadline = table.optional(found, "deadline", |raw| raw.time(schema::PERIODS));
        let max_age = table.optional(found, "max_age", |raw| raw.time(schema::PERIODS));
        let models = self.members(&table, kind.ok().map(|kind| kind.value));
        if let (Ok(At { value: ChainKind::Triggered, span }), Some(age)) =
            (kind, table.place_of("max_age"))
        {
            let fault = FaultKind::Chain(ChainFault::AgeOfTriggered);
            self.findings.report_with(fault, age, Some((span, "the kind")));
        }
        Ok(Chain {
            name: name?,
            models: models?,
            kind: kind?.value,
            deadline: deadline?.map(|deadline| deadline.value),
            max_age: max_age?.map(|age| age.value),
        })
    }

    fn chain_name(
        &mut self,
        table: &Section<'_>,
        names: &mut BTreeMap<String, Span>,
    ) -> Result<String, Reported> {
        let At { value, span } = table.required(&mut self.findings, "name", model_name)?;
        match names.insert(value.to_owned(), span) {
            Some(first) => {
                names.insert(value.to_owned(), first);
                let kind = FaultKind::DuplicateName { name: value.to_owned() };
                Err(self.findings.report_with(kind, span, Some((first, "first used here"))))
            }
            None => Ok(value.to_owned()),
        }
    }

    /// The places of the members of a chain, whose kind may not be known.
    fn members(
        &mut self,
        table: &Section<'_>,
        kind: Option<ChainKind>,
    ) -> Result<Vec<usize>, Reported> {
        let list = table.required(&mut self.findings, "models", |raw| Ok(*raw))?.value;
        let elements = list
            .read(&mut self.findings, |raw| raw.elements(schema::MEMBERS, &schema::ONE_MEMBER))?
            .value;
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        let mut chain = First::default();
        let mut places = Vec::with_capacity(elements.len());
        for element in &elements {
            let place =
                element.read(&mut self.findings, Raw::text).and_then(|At { value, span }| {
                    if let Some(first) = seen.insert(value, span) {
                        let fault = ChainFault::Twice { name: quoted(value) };
                        return Err(self.bad_member(
                            fault,
                            span,
                            Some((first, "first named here")),
                        ));
                    }
                    self.member(value, span, kind, &mut chain)
                });
            places.push(place);
        }
        places.into_iter().collect()
    }

    /// The place of the model called `name`, which a chain names at `span`. `chain` is what
    /// its first member sets.
    fn member(
        &mut self,
        name: &str,
        span: Span,
        kind: Option<ChainKind>,
        chain: &mut First,
    ) -> Result<usize, Reported> {
        let quote = || quoted(name);
        let Some(member) = self.members.known.get(name).copied() else {
            let nameless = self.members.nameless;
            let fault = ChainFault::UnknownModel { name: quote() };
            return Err(nameless.unwrap_or_else(|| self.bad_member(fault, span, None)));
        };
        if member.best_effort == Some(true) {
            let fault = ChainFault::BestEffort { name: quote() };
            return Err(self.bad_member(fault, span, Some((member.name, "the model"))));
        }
        if let Some(own) = member.partition {
            let (first, named) = *chain.partition.get_or_insert((own, span));
            if own != first {
                let fault = ChainFault::OtherPartition { name: quote() };
                return Err(self.bad_member(fault, span, Some((named, "the first member"))));
            }
        }
        if kind != Some(ChainKind::Triggered) {
            return Ok(member.place);
        }
        if let Some(other) = self.members.triggered.get(name).copied() {
            let fault = ChainFault::TwoTriggers { name: quote() };
            return Err(self.bad_member(fault, span, Some((other, "the other one"))));
        }
        self.members.triggered.insert(name.to_owned(), span);
        let Some(own) = member.period else { return Ok(member.place) };
        let chain = *chain.period.get_or_insert(own.value);
        if own.value != chain {
            let fault = ChainFault::OtherPeriod { name: quote(), period: own.value, chain };
            return Err(self.bad_member(fault, span, Some((own.span, "its period"))));
        }
        Ok(member.place)
    }

    fn bad_member(
        &mut self,
        fault: ChainFault,
        span: Span,
        related: Option<(Span, &'static str)>,
    ) -> Reported {
        self.findings.report_with(FaultKind::Chain(fault), span, related)
    }
}

//! What a runtime tells about its models: reports, margins, bounds of chains, counter-offers.
//!
//! Nothing here changes anything or touches the device.

use std::collections::BTreeMap;
use std::sync::MutexGuard;

use aegis_sched::admission::AdmissionController;
use aegis_sched::analysis::Response;
use aegis_sched::analysis::chain::{self, Chain};
use aegis_trace::{ModelId, Nanos, Refusal};

use super::{Entry, Runtime, lock};
use crate::bargain::{Asked, Bargain};
use crate::evidence::Preparation;
use crate::margin::{self, CounterOffer, Margins, ModelSensitivity};
use crate::partition::{Admissions, Partition, PartitionSpec};
use crate::report::{
    DriverMemoryReport, ExecutorReport, MemoryReport, ModelReport, PartitionReport, Report,
};

impl Runtime {
    /// What was promised to every model and what it has done so far, in the order of admission.
    #[must_use]
    pub fn report(&self) -> Report {
        // In the order in which admission takes them: `admission` before `models`.
        let admission = lock(&self.admission);
        let models = lock(&self.models);
        let snapshot = |entry: &Entry| ModelReport {
            observed: entry.handle.metrics(),
            ..entry.report.clone()
        };
        let executors = admission.all().iter().map(ExecutorReport::of);
        let (mut whole, mut partitions) = (None, Vec::new());
        for (executor, partition) in executors.zip(&self.partitions) {
            let granted = partition.granted;
            match partition.spec.clone() {
                None => whole = Some(executor),
                Some(PartitionSpec { name, sms, .. }) => {
                    partitions.push(PartitionReport { name, sms, granted, executor });
                }
            }
        }
        Report {
            whole,
            partitions,
            overheads: admission.all()[0].config().overheads,
            memory: MemoryReport::of(admission.memory.bound()),
            driver_memory: None,
            models: models.iter().map(snapshot).collect(),
            events_dropped: self.collector.dropped(),
        }
    }

    /// What the process takes of a GPU, by the ledger and by the driver's count; `None` on every other
    /// device. After the stop, as it was when the last job had ended: the models go with the stop, and
    /// with them what the ledger holds for their libraries. Before it this takes milliseconds of the
    /// driver, so it is nothing to ask beside jobs, and no part of [`Runtime::report`].
    #[must_use]
    pub fn driver_memory(&self) -> Option<DriverMemoryReport> {
        let at_stop = *lock(&self.memory_at_stop);
        at_stop.or_else(|| DriverMemoryReport::of(&self.device, *lock(&self.counted_at_start)))
    }

    /// Says of a model that stands for another what is known of that one's preparation.
    pub(crate) fn annotate(&self, model: ModelId, prepared: &Preparation) {
        let mut models = lock(&self.models);
        if let Some(entry) = models.iter_mut().find(|entry| entry.report.model == model) {
            entry.report.foreign = prepared.libraries;
            entry.report.remarks.clone_from(&prepared.remarks);
        }
    }

    /// Says of partitions that stand for others what the driver grants those, in order.
    pub(crate) fn stand_for(&mut self, granted: &[Option<u32>]) {
        for (partition, granted) in self.partitions.iter_mut().zip(granted) {
            partition.granted = *granted;
        }
    }

    /// How far the admitted models are from the edge, those of each partition together; nothing of a
    /// partition without any.
    ///
    /// Costs some hundred analyses of each set; does not touch the device.
    #[must_use]
    pub fn margins(&self) -> Vec<Margins> {
        self.margins_by(Margins::of)
    }

    /// The same where the members of `chains` trigger one another; see [`Margins::of_chained`].
    pub(crate) fn margins_chained(
        &self,
        chains: &[Chain],
        declared: impl Fn(ModelId) -> Option<Nanos>,
    ) -> Vec<Margins> {
        self.margins_by(|admission| {
            // A chain stays in one partition.
            let is_here = |chain: &&Chain| {
                chain.members().iter().all(|member| admission.find_name(*member).is_some())
            };
            let here: Vec<Chain> = chains.iter().filter(is_here).cloned().collect();
            Margins::of_chained(admission, &here, &declared)
        })
    }

    fn margins_by(&self, of: impl Fn(&AdmissionController) -> Option<Margins>) -> Vec<Margins> {
        let admission = lock(&self.admission);
        let named = |(admission, partition): (&AdmissionController, &Partition)| {
            let partition = partition.name().map(str::to_owned);
            of(admission).map(|margins| Margins { partition, ..margins })
        };
        admission.all().iter().zip(&self.partitions).filter_map(named).collect()
    }

    /// How far each admitted model is from the edge, everything else as it is.
    ///
    /// Costs some hundred analyses of its partition's set for each model.
    #[must_use]
    pub fn sensitivities(&self) -> Vec<ModelSensitivity> {
        lock(&self.admission).all().iter().flat_map(margin::sensitivities).collect()
    }

    /// The proofs and the memory, for whoever writes them down.
    pub(crate) fn lock_admissions(&self) -> MutexGuard<'_, Admissions> {
        lock(&self.admission)
    }

    /// The names of the partitions in their order; `None` for the whole device.
    pub(crate) fn partition_names(&self) -> Vec<Option<String>> {
        self.partitions.iter().map(|it| it.name().map(str::to_owned)).collect()
    }

    /// The bound of an admitted task.
    pub(crate) fn bound(&self, model: ModelId) -> Option<Nanos> {
        let admission = lock(&self.admission);
        let bounds = &admission.around(model).analysis()?.bounds;
        bounds.iter().find(|bound| bound.model == model).map(|bound| bound.response)
    }

    /// What admitted `models` of one partition do that sample one another in this order, reading when
    /// their jobs are submitted: how late they react to an event. `None` if one of them has no bound.
    pub(crate) fn reaction(&self, models: Vec<ModelId>) -> Option<Nanos> {
        let admission = lock(&self.admission);
        let admission = admission.around(*models.first()?);
        let bounds = &admission.analysis()?.bounds;
        let responses: Vec<Response> =
            bounds.iter().map(|bound| Response::Bounded(bound.response)).collect();
        let (chain, policy) = (Chain::new(models).ok()?, admission.config().policy);
        let bounds = chain::sampled(admission.tasks(), &chain, policy, &responses).ok()??;
        Some(bounds.reaction_read_early)
    }

    /// What would be admitted in the place of a model that `asked` for something and was refused for
    /// this reason. Every offer was tried, in time and in memory. Empty where a budget of the model
    /// itself is too small.
    ///
    /// Costs up to some hundred analyses of the whole set, and a plan of all memory for each offer.
    #[must_use]
    pub fn counter_offers(&self, asked: &Asked, why: &Refusal) -> Vec<CounterOffer> {
        let (admission, models) = (lock(&self.admission), lock(&self.models));
        let present = models.iter().filter(|entry| !entry.report.evicted);
        let admitted: Vec<_> = present.map(|entry| (entry.report.model, &entry.asked)).collect();
        let (memory, admission) = (admission.memory.bound(), admission.of(asked.partition()));
        // Without room for one more model there is nothing to offer.
        let Some(newcomer) = admission.next_id() else { return Vec::new() };
        Bargain { admission, memory, admitted: &admitted, newcomer, asked }.offers(why)
    }

    /// The id that the next admission to `partition` gives, by which a refusal and its offers know a
    /// model that was never admitted; that of its last tenant where there is no room.
    pub(crate) fn next_id(&self, partition: Option<&str>) -> ModelId {
        let found = self.partitions.iter().position(|known| known.name() == partition);
        let admission = lock(&self.admission);
        let controller = &admission.all()[found.unwrap_or(0)];
        controller.next_id().unwrap_or(ModelId::first(controller.config().first_model))
    }

    /// The names of the admitted models.
    pub(crate) fn names(&self) -> BTreeMap<ModelId, String> {
        let models = lock(&self.models);
        let present = models.iter().filter(|entry| !entry.report.evicted);
        present.map(|entry| (entry.report.model, entry.report.name.clone())).collect()
    }
}

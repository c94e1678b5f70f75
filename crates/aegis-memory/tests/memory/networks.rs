//! Many real networks in one arena, where their data lies beside the repository.

use std::fs;

use aegis_memory::place::{Problem, stacked};
use aegis_memory::{
    Exclusivity, Lifespan, ModelMemory, PlanRequest, StagedModel, TensorClass, TensorLifetime,
    place,
};
use aegis_trace::{Bytes, ModelId, PartitionId, TensorId};

use crate::problems::{buffer_of, minimise, problem, rows, shared};

/// Models of the headline.
const MODELS: usize = 24;

/// Seven networks with fused layers, in order of name, over and over until there are 24.
fn networks(precision: &str) -> Option<Vec<Problem>> {
    let folder = shared("models")?;
    let ending = format!(".fused.{precision}.csv");
    let entries = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable"));
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(&ending));
    paths.sort();
    let read = |path| fs::read_to_string(path).expect("readable");
    let one = |text: String| problem(rows(&text).map(|row| buffer_of(&row)).collect());
    let seven: Vec<_> = paths.into_iter().map(read).map(one).collect();
    Some(seven.into_iter().cycle().take(MODELS).collect())
}

fn memory(model: usize, problem: &Problem) -> ModelMemory {
    let step = |time| u32::try_from(time).expect("a step");
    let tensor = |(index, buffer): (u16, &place::Buffer)| TensorLifetime {
        tensor: TensorId::first(index),
        class: TensorClass::Scratch,
        span: Lifespan::new(step(buffer.lower), step(buffer.upper)).expect("not empty"),
        size: Bytes(buffer.size),
        alignment: 256,
    };
    let tensors = (0..).zip(problem.buffers()).map(tensor).collect();
    ModelMemory { model: ModelId::first(u16::try_from(model).expect("few")), tensors }
}

#[test]
fn twenty_four_networks_share_what_the_largest_needs() {
    for precision in ["fp32", "fp16"] {
        let Some(networks) = networks(precision) else { return };
        let peaks: Vec<_> = networks.iter().map(|problem| minimise(problem).peak()).collect();
        let models = networks.iter().enumerate().map(|(at, problem)| memory(at, problem));
        let models: Vec<_> = models.collect();
        let request = PlanRequest { capacity: Bytes::from_gib(8), models, fixed: vec![] };
        let plan = stacked(&request).expect("fits").check(&request).expect("sound");
        let largest = peaks.iter().copied().max().expect("24 of them");
        assert_eq!(plan.peak(), largest, "the lower bound of them all");
        let private: Bytes = peaks.into_iter().sum();
        eprintln!("{precision}: {private} in private arenas, {} shared", plan.peak());
    }
}

/// Three stages each, cut where least is live in the middle half of each third.
#[test]
fn staging_costs_what_may_be_suspended_carries() {
    let Some(networks) = networks("fp32") else { return };
    let staged = |suspended: usize| {
        let of = |(at, problem): (usize, &Problem)| {
            let memory = memory(at, problem);
            let cuts = [(25, 45), (55, 75)].map(|window| cheapest_cut(&memory, window));
            let may_be_suspended = at < suspended;
            let partition = PartitionId::first(0);
            StagedModel { partition, memory, cuts: cuts.to_vec(), may_be_suspended }
        };
        let models = networks.iter().enumerate().map(of).collect();
        let limit = Some(u32::try_from(suspended).expect("few"));
        let exclusivity = Exclusivity::new(models, limit).expect("within the limit");
        let plan = place::device(&exclusivity, Bytes::from_gib(8)).expect("fits");
        eprintln!("{suspended} of {MODELS} may be suspended: {}", plan.plan.peak());
        plan.plan.peak()
    };
    let (none, one, all) = (staged(0), staged(1), staged(MODELS));
    assert!(none <= one && one <= all, "{none}, {one}, {all}");
    assert_eq!(none, networks.iter().map(|p| minimise(p).peak()).max().expect("24 of them"));
}

/// The step within two percentages of the model's length at which a cut carries least.
fn cheapest_cut(memory: &ModelMemory, (from, until): (u32, u32)) -> u32 {
    let steps = memory.tensors.iter().map(|tensor| tensor.span.end()).max().expect("tensors");
    let carried = |cut: &u32| {
        let (partition, cuts) = (PartitionId::first(0), vec![*cut]);
        let memory = memory.clone();
        StagedModel { partition, memory, cuts, may_be_suspended: true }.carried_at_most()
    };
    (steps * from / 100..=steps * until / 100).min_by_key(carried).expect("a step")
}

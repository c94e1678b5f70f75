//! Many real networks in one arena, where their data lies beside the repository.

use std::fs;

use aegis_memory::place::{Problem, stacked};
use aegis_memory::{Lifespan, ModelMemory, PlanRequest, TensorClass, TensorLifetime, place};
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
    let model = ModelId::first(u16::try_from(model).expect("few"));
    ModelMemory { model, partition: PartitionId::WHOLE, tensors }
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

//! Device memory: every tensor has its bytes for as long as it must be left alone.
//!
//! What the schedule excludes is what memory may rely on, and this file is where the two meet:
//!
//! 1. A tensor that must outlive a stage has its bytes alone: weights, inputs and outputs always;
//!    what is carried between stages unless its model is never suspended. The proof of time takes
//!    such a model as one piece as long as its whole job, so nobody runs between its stages.
//! 2. A partition runs one piece at a time, so shared tensors of two of its models are never live at
//!    once, wherever in their jobs they are. Those of one model are not live at once if their steps
//!    say so.
//! 3. Partitions run at once: their shared tensors share nothing across.
//!
//! Every pair of tensors is compared; that is slow, and easy to believe.

use std::collections::BTreeMap;

use aegis_trace::Bytes;

use crate::certificate::{Certificate, Class, Memory, Model, Outcome, Placed, Pressure, Tensor};
use crate::fault::{Fault, Time, Work, at_most, require, same};

/// The coarsest alignment that an arena serves.
const ALIGNMENT_MAX: u64 = 4096;

/// Whether the addresses of a tensor are its own while its model is admitted.
fn is_alone(model: &Model, tensor: &Tensor) -> bool {
    match tensor.class {
        Class::Persistent | Class::Io => true,
        Class::Carried => model.suspend,
        Class::Scratch => false,
    }
}

/// Whether the tensors of a model make sense, and it needs what is said.
pub(crate) fn check_need(at: &str, model: &Model, work: &mut Work) -> Result<(), Fault> {
    let admitted = model.outcome == Outcome::Admitted;
    for (place, tensor) in model.tensors.iter().enumerate() {
        check_tensor(&format!("{at}.tensors[{place}]"), model, tensor, admitted)?;
    }
    work.spend(at, model.tensors.len())?;
    let sum = |counts: &dyn Fn(&Tensor) -> bool| -> Time {
        let counted = model.tensors.iter().filter(|tensor| counts(tensor));
        counted.map(|tensor| Time::from(tensor.size.0)).sum()
    };
    let of_class = |class: Class| sum(&|tensor| tensor.class == class);
    let shared = || model.tensors.iter().filter(|tensor| !is_alone(model, tensor));
    let steps = shared().filter_map(|tensor| tensor.live).map(|(from, to)| Time::from(to - from));
    let need = model.need;
    for (key, stated, found) in [
        ("persistent", need.persistent.0, of_class(Class::Persistent)),
        ("io", need.io.0, of_class(Class::Io)),
        ("carried", need.carried.0, of_class(Class::Carried)),
        ("scratch", need.scratch.0, of_class(Class::Scratch)),
        ("resident", need.resident.0, sum(&|tensor| is_alone(model, tensor))),
        ("peak", need.peak.0, peak_of(model)),
        ("steps", need.steps, steps.sum()),
        ("covered", need.covered.0, covered(shared().filter_map(|tensor| tensor.at))),
    ] {
        same(format_args!("{at}.need.{key}"), Time::from(stated), found)?;
    }
    Ok(())
}

fn check_tensor(at: &str, model: &Model, tensor: &Tensor, admitted: bool) -> Result<(), Fault> {
    let Tensor { live, size, alignment, blocks, at: placed, .. } = *tensor;
    require(format_args!("{at}.size"), "it must have bytes", size > Bytes::ZERO)?;
    let power = alignment.is_power_of_two() && alignment <= ALIGNMENT_MAX;
    require(format_args!("{at}.alignment"), "it must be a power of two up to 4096", power)?;
    same(format_args!("{at}.blocks"), blocks, size.0.div_ceil(alignment))?;
    let sane = match live {
        None => is_alone(model, tensor),
        Some((from, to)) => from < to && !is_alone(model, tensor),
    };
    let why = "exactly a tensor that shares addresses has steps, and at least one";
    require(format_args!("{at}.live"), why, sane)?;
    let Some(Placed { offset, end }) = placed else {
        return require(format_args!("{at}.at"), "an admitted tensor lies somewhere", !admitted);
    };
    require(format_args!("{at}.at"), "a refused tensor lies nowhere", admitted)?;
    let found = Time::from(offset) + Time::from(size.0);
    same(format_args!("{at}.at.end"), Time::from(end), found)?;
    let why = "it must be a multiple of the alignment";
    require(format_args!("{at}.at.offset"), why, offset.is_multiple_of(alignment))
}

/// The most that is live in one step, of what is shared. It is most where something begins.
fn peak_of(model: &Model) -> Time {
    let mut edges: BTreeMap<u32, (Time, Time)> = BTreeMap::new(); // What begins, and what ends.
    for tensor in &model.tensors {
        if let Some((from, to)) = tensor.live {
            edges.entry(from).or_default().0 += Time::from(tensor.size.0);
            edges.entry(to).or_default().1 += Time::from(tensor.size.0);
        }
    }
    let mut live = 0;
    let after = |(begins, ends): &(Time, Time)| {
        live = live + begins - ends;
        live
    };
    edges.values().map(after).max().unwrap_or(0)
}

/// How many bytes lie in at least one of the ranges.
fn covered(ranges: impl Iterator<Item = Placed>) -> Time {
    let mut ranges: Vec<(u64, u64)> = ranges.map(|range| (range.offset, range.end)).collect();
    ranges.sort_unstable();
    let mut reached = 0;
    ranges.into_iter().fold(0, |sum, (from, to)| {
        let new = to.saturating_sub(from.max(reached));
        reached = reached.max(to);
        sum + Time::from(new)
    })
}

/// A tensor that has its place.
struct Lying<'c> {
    at: String,
    model: u32,
    partition: u32,
    alone: bool,
    live: Option<(u32, u32)>,
    bytes: &'c Placed,
}

/// Whether all admitted tensors lie within the limit, and none where another may be alive.
pub(crate) fn check(certificate: &Certificate, work: &mut Work) -> Result<(), Fault> {
    let tensors = lying(certificate);
    let Memory { limit, resident, scratch, left, pressure } = certificate.memory;
    for (place, tensor) in tensors.iter().enumerate() {
        at_most(&tensor.at, "it must end within the limit", tensor.bytes.end, limit.0)?;
        work.spend(&tensor.at, tensors.len() - place)?;
        for other in &tensors[place + 1..] {
            let apart = tensor.bytes.end <= other.bytes.offset
                || other.bytes.end <= tensor.bytes.offset
                || may_share(tensor, other);
            let clash = || Fault::Inequality {
                place: tensor.at.clone(),
                what: "it must share no byte with a tensor that may be alive with it",
                left: format!("[{}, {})", tensor.bytes.offset, tensor.bytes.end),
                right: format!("[{}, {}) of {}", other.bytes.offset, other.bytes.end, other.at),
            };
            if !apart {
                return Err(clash());
            }
        }
    }
    let alone = tensors.iter().filter(|tensor| tensor.alone);
    let shared = tensors.iter().filter(|tensor| !tensor.alone);
    let alone = covered(alone.map(|tensor| *tensor.bytes));
    let shared = covered(shared.map(|tensor| *tensor.bytes));
    same("memory.resident", Time::from(resident.0), alone)?;
    same("memory.scratch", Time::from(scratch.0), shared)?;
    at_most("memory.limit", "resident + scratch <= limit must hold", alone + shared, limit.0)?;
    same("memory.left", Time::from(left.0), Time::from(limit.0) - alone - shared)?;
    let Some(Pressure { enter, room }) = pressure else { return Ok(()) };
    let admitted = certificate.models.iter().filter(|it| it.outcome == Outcome::Admitted);
    let found = i128::try_from(free(limit, admitted)).unwrap_or(0) - i128::from(enter.0);
    same("memory.pressure.room", i128::from(room), found)
}

/// What counts as free beside some admitted models: scratch is stacked from the end downwards, so all
/// from its lowest address on is taken, and what must be resident counts wherever it lies.
pub(crate) fn free<'c>(limit: Bytes, models: impl Iterator<Item = &'c Model>) -> Time {
    let (mut lowest, mut resident) = (Time::from(limit.0), 0);
    for model in models {
        let shared = model.tensors.iter().filter(|tensor| !is_alone(model, tensor));
        let offsets = shared.filter_map(|tensor| tensor.at).map(|at| Time::from(at.offset));
        lowest = offsets.fold(lowest, Time::min);
        resident += Time::from(model.need.resident.0);
    }
    lowest.saturating_sub(resident)
}

fn lying(certificate: &Certificate) -> Vec<Lying<'_>> {
    let mut tensors = Vec::new();
    for (model, place) in certificate.models.iter().zip(0..) {
        for (index, tensor) in model.tensors.iter().enumerate() {
            let Some(bytes) = &tensor.at else { continue };
            tensors.push(Lying {
                at: format!("models[{place}].tensors[{index}].at"),
                model: place,
                partition: model.partition,
                alone: is_alone(model, tensor),
                live: tensor.live,
                bytes,
            });
        }
    }
    tensors
}

/// Whether two tensors may lie in the same bytes.
fn may_share(a: &Lying<'_>, b: &Lying<'_>) -> bool {
    if a.alone || b.alone || a.partition != b.partition {
        return false;
    }
    match (a.live, b.live) {
        (Some((from_a, to_a)), Some((from_b, to_b))) if a.model == b.model => {
            to_a <= from_b || to_b <= from_a
        }
        _ => a.model != b.model,
    }
}

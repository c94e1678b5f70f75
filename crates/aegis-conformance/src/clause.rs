//! Each clause as code: one function that finds what is wrong, or tells what it saw.

use aegis_context::agreement::Agreement;
use aegis_context::context::error_line;
use aegis_context::{
    BackendError, BusyStream, ContextError, ContextState, ExecutionContext, JobSlot, MemoryLedger,
    ModelDescription, ResourceBudget, RuntimeBackend, SlotPool, StreamPool,
};
use aegis_memory::{TensorClass, TensorLifetime};
use aegis_trace::{Bytes, Category, Nanos, StageIndex};

use crate::ground::{Ground, fill, queued};
use crate::tensors::{Tensors, distance, hostile};
use crate::{Clause, Fault, Subject};

/// What a model may take while it is measured.
const ROOM: Bytes = Bytes::from_mib(256);
/// Jobs that must repeat the first.
const REPEATS: usize = 20;
/// How much the memory of two loads of one model may differ: what a runtime keeps in the heap is
/// measured, and the heap has its own ways.
const HEAP_SLACK: Bytes = Bytes::from_mib(1);

/// Tries `clause` on `subject`.
pub(crate) fn judge(
    clause: Clause,
    subject: &Subject<'_>,
    ground: Ground,
) -> Result<String, Fault> {
    match clause {
        Clause::Description => description(subject),
        Clause::Memory => memory(subject),
        Clause::Prepare => prepare(subject, ground),
        Clause::Enqueue => enqueue(subject, ground),
        Clause::WrongUse => wrong_use(subject, ground),
        Clause::HostileInputs => hostile_inputs(subject, ground),
        Clause::BudgetOverrun => budget_overrun(subject),
        Clause::Repeats => repeats(subject, ground),
        Clause::Ahead => ahead(subject, ground),
        Clause::Fencing => fencing(subject, ground),
        Clause::DropOrder => drop_order(subject, ground),
    }
}

fn require(holds: bool, why: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(why().into()) }
}

fn load(subject: &Subject<'_>) -> Result<Box<dyn RuntimeBackend>, Fault> {
    Ok((subject.load)(ROOM)?)
}

/// That `refused` is an error of this request, and the caller need not end the process.
fn permanent<T>(refused: Result<T, BackendError>, of: &str) -> Result<BackendError, Fault> {
    match refused {
        Ok(_) => Err(format!("{of} was accepted").into()),
        Err(error) if error.category() == Category::Permanent => Ok(error),
        Err(error) => Err(format!("{of} is {:?}: {error}", error.category()).into()),
    }
}

fn description(subject: &Subject<'_>) -> Result<String, Fault> {
    let (one, other) = (load(subject)?, load(subject)?);
    let ModelDescription { inputs, outputs, stages } = one.description();
    require(*stages > 0 && !outputs.is_empty(), || "it has no stage or no output".into())?;
    require(one.description() == other.description(), || "two loads differ".into())?;
    require(!one.runtime_name().is_empty(), || "it has no name".into())?;
    let mut names: Vec<&str> =
        inputs.iter().chain(outputs).map(|spec| spec.name.as_str()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    require(names.len() == count, || "two tensors have one name".into())?;
    Ok(format!("{}: {} inputs, {} outputs", one.runtime_name(), inputs.len(), outputs.len()))
}

fn memory(subject: &Subject<'_>) -> Result<String, Fault> {
    let (one, other) = (load(subject)?, load(subject)?);
    let (tensors, description) = (one.memory(), one.description());
    for need in tensors {
        let sound = need.size > Bytes::ZERO
            && need.alignment.is_power_of_two()
            && need.span.end() <= u32::from(description.stages);
        require(sound, || format!("{need:?} is no requirement"))?;
        let same = tensors.iter().filter(|other| other.tensor == need.tensor).count();
        require(same == 1, || format!("{} is declared twice", need.tensor))?;
    }
    let of_io = |wanted: TensorClass| -> u64 {
        tensors.iter().filter(|need| need.class == wanted).map(|need| need.size.0).sum()
    };
    let described = description.inputs.iter().chain(&description.outputs);
    let described: u64 = described.map(|spec| spec.bytes() as u64).sum();
    let declared = of_io(TensorClass::Io);
    require(declared >= described, || format!("{declared} bytes hold no {described}"))?;
    require(tensors.len() == other.memory().len(), || "two loads declare other tensors".into())?;
    for (one, other) in tensors.iter().zip(other.memory()) {
        let apart = one.size.0.abs_diff(other.size.0);
        let allowed = if one.class == TensorClass::Persistent { HEAP_SLACK.0 } else { 0 };
        require(one.tensor == other.tensor && apart <= allowed, || {
            format!("{} is {} in one load and {} in another", one.tensor, one.size, other.size)
        })?;
    }
    let of = |class| Bytes(of_io(class));
    Ok(format!(
        "persistent {}, scratch {}, carried {}",
        of(TensorClass::Persistent),
        of(TensorClass::Scratch),
        of(TensorClass::Carried)
    ))
}

fn prepare(subject: &Subject<'_>, mut ground: Ground) -> Result<String, Fault> {
    let mut backend = load(subject)?;
    let declared = backend.memory().to_vec();
    let mut refusals = 0;
    for (index, need) in declared.iter().enumerate() {
        // What stands for the heap need not be used, and so not be looked at.
        if need.size <= Bytes(need.alignment) || need.class == TensorClass::Persistent {
            continue;
        }
        let mut smaller: Vec<TensorLifetime> = declared.clone();
        smaller[index].size = Bytes(need.alignment);
        let (id, binding) = ground.binding(smaller)?;
        permanent(backend.bind(binding), "a binding that is too small")?;
        ground.memory.release(id)?;
        refusals += 1;
    }
    let (_, binding) = ground.binding(declared.clone())?;
    backend.bind(binding)?;
    let (_, again) = ground.binding(declared)?;
    permanent(backend.bind(again), "a second binding")?;
    Ok(format!("{refusals} bindings too small were refused, one that fits was taken, once"))
}

fn enqueue(subject: &Subject<'_>, mut ground: Ground) -> Result<String, Fault> {
    let mut model = ground.admit(load(subject)?)?;
    let description = model.backend.description().clone();
    let (given, others) =
        (subject.inputs(&description.inputs, 7), subject.inputs(&description.inputs, 8));
    let found = ground.run(&mut model, &given)?;
    let written = |output: &Vec<u8>| output.iter().any(|byte| *byte != 0xa5);
    require(found.iter().all(written), || "an output was not written".into())?;
    let other = ground.run(&mut model, &others)?;
    require(given == others || other != found, || "other inputs give the same".into())?;
    let Some(reference) = subject.reference else {
        return Ok("outputs are written, and depend on the inputs; no other runtime".into());
    };
    let apart = distance(&description.outputs, &reference(&given)?, &found);
    require(apart <= subject.tolerance, || {
        format!("{apart:.1e} of the largest value from the reference")
    })?;
    Ok(format!("{apart:.1e} from the reference, as a share of the largest value"))
}

fn wrong_use(subject: &Subject<'_>, mut ground: Ground) -> Result<String, Fault> {
    let mut backend = load(subject)?;
    let slot = queued(JobSlot::on(&ground.arena, backend.description())?);
    let first = StageIndex(0);
    permanent(backend.enqueue(first, &slot, &ground.stream), "a job before the binding")?;
    let mut model = ground.admit(backend)?;
    let beyond = StageIndex(model.backend.description().stages);
    let refused = model.backend.enqueue(beyond, &model.slot, &ground.stream);
    let error = permanent(refused, "a stage that does not exist")?;
    let given = subject.inputs(&model.backend.description().inputs, 1);
    ground.run(&mut model, &given)?;
    Ok(error.to_string())
}

fn hostile_inputs(subject: &Subject<'_>, mut ground: Ground) -> Result<String, Fault> {
    let mut model = ground.admit(load(subject)?)?;
    let description = model.backend.description().clone();
    let given = subject.inputs(&description.inputs, 7);
    let expected = ground.run(&mut model, &given)?;
    let answer = ground.run(&mut model, &hostile(&description.inputs));
    let after = ground.run(&mut model, &given)?;
    require(same(&model, &description, &expected, &after), || "they left a trace".into())?;
    Ok(match answer {
        Ok(_) => "they were computed with, and left no trace".into(),
        Err(error) => format!("refused, without a trace: {}", error_line(&*error)),
    })
}

fn budget_overrun(subject: &Subject<'_>) -> Result<String, Fault> {
    let needs = load(subject)?.memory().to_vec();
    if !needs.iter().any(|need| need.class == TensorClass::Scratch) {
        return Ok("no occasion: the model needs no scratch".into());
    }
    let error = match (subject.load)(Bytes(1)) {
        Err(error @ BackendError::OutOfScratch { .. }) => error,
        Err(other) => return Err(format!("refused for another reason: {other}").into()),
        Ok(_) => return Err("a model was loaded within one byte".into()),
    };
    load(subject)?;
    Ok(error.to_string())
}

fn repeats(subject: &Subject<'_>, mut ground: Ground) -> Result<String, Fault> {
    let mut model = ground.admit(load(subject)?)?;
    // A neighbour of the same kind, whose scratch the plan puts where the model has its own.
    let mut neighbour = ground.admit(load(subject)?)?;
    let description = model.backend.description().clone();
    let (given, others) =
        (subject.inputs(&description.inputs, 3), subject.inputs(&description.inputs, 4));
    let expected = ground.run(&mut model, &given)?;
    let agreement = Agreement::of(&expected, &ground.run(&mut model, &given)?);
    for repeat in 0..REPEATS {
        ground.run(&mut neighbour, &others)?;
        let found = ground.run(&mut model, &given)?;
        let holds = agreement.holds(&description.outputs, &expected, &found);
        require(holds, || format!("job {repeat} behind a neighbour's differs"))?;
    }
    Ok(match agreement {
        Agreement::Bits => format!("{REPEATS} jobs equal to the bit, each behind a neighbour's"),
        Agreement::Close => format!("{REPEATS} jobs within a tolerance, each behind a neighbour's"),
    })
}

fn ahead(subject: &Subject<'_>, mut ground: Ground) -> Result<String, Fault> {
    let mut neighbour = ground.admit(load(subject)?)?;
    let mut model = ground.admit(load(subject)?)?;
    if model.backend.uploads_ahead().is_none() {
        return Ok("its inputs stay within their stage here".into());
    }
    let description = model.backend.description().clone();
    let given: Vec<Tensors> =
        (20..24).map(|seed| subject.inputs(&description.inputs, seed)).collect();
    let expected: Vec<Tensors> =
        given.iter().map(|given| ground.run(&mut model, given)).collect::<Result<_, _>>()?;
    let pool = StreamPool::uploading_ahead(&ground.device, 1)?;
    let first = StageIndex(0);
    for job in 0..REPEATS {
        let at = job % given.len();
        fill(&neighbour.slot, &given[(at + 1) % given.len()]);
        fill(&model.slot, &given[at]);
        let (slot, backend) = (&neighbour.slot, &mut neighbour.backend);
        let running =
            pool.lease()?.launch_job(slot, |stream| backend.enqueue(first, slot, stream))?;
        let behind = put_behind(&mut model, &running, job % 3 < 2)?;
        running.wait()?;
        let told = behind.wait()?.ahead;
        require((told > Nanos::ZERO) == (job % 3 < 2), || format!("an upload of {told} was told"))?;
        drop((running, behind));
        let found = ground.finish(&mut model)?;
        let unmoved = same(&model, &description, &expected[at], &found);
        require(unmoved, || format!("job {job} got the outputs of other inputs"))?;
    }
    Ok(format!("{REPEATS} jobs behind a neighbour's, two of three with their inputs ahead"))
}

/// Puts the first stage of the model's job behind the running one, its inputs ahead of it or within.
fn put_behind(
    model: &mut crate::Model,
    running: &BusyStream,
    is_ahead: bool,
) -> Result<BusyStream, Fault> {
    let (slot, failed) = (&model.slot, ContextError::from);
    if !is_ahead {
        let backend = &mut model.backend;
        return Ok(running.launch_job_behind(slot, |stream| {
            backend.enqueue(StageIndex(0), slot, stream).map_err(failed)
        })?);
    }
    let backend = model.backend.uploads_ahead().ok_or("its inputs went ahead until now")?;
    let uploaded =
        running.upload_behind(slot, |stream| backend.upload(slot, stream).map_err(failed))?;
    Ok(uploaded.launch(|stream| backend.enqueue_uploaded(slot, stream).map_err(failed))?)
}

fn fencing(subject: &Subject<'_>, mut ground: Ground) -> Result<String, Fault> {
    let mut neighbour = ground.admit(load(subject)?)?;
    let description = neighbour.backend.description().clone();
    let given = subject.inputs(&description.inputs, 5);
    let expected = ground.run(&mut neighbour, &given)?;
    let mut backend = load(subject)?;
    let (id, binding) = ground.binding(backend.memory().to_vec())?;
    backend.bind(binding)?;
    let slots = SlotPool::on(&ground.arena, &description, 1)?;
    let (memory, compute) = (Bytes::from_mib(1), Nanos::MAX);
    let ledger = MemoryLedger::new(memory);
    let budget = ResourceBudget { memory, streams: 1, compute };
    let charge = ledger.charge(memory)?;
    let mut context = ExecutionContext::new(id, budget, backend, slots, charge);
    let pool = StreamPool::new(&ground.device, 1)?;
    let slot = context.slots().claim().ok_or("a new context has a free slot")?;
    slot.queue();
    let beyond = StageIndex(description.stages);
    let Err(error) = context.launch(beyond, &slot, pool.lease()?) else {
        return Err("a stage that does not exist was launched".into());
    };
    context.fault(error_line(&error));
    require(context.launch(StageIndex(0), &slot, pool.lease()?).is_err(), || {
        "a fenced model was launched".into()
    })?;
    require(context.state() == ContextState::Faulted, || "it is not fenced".into())?;
    require(ground.memory.usage_of(id).is_some(), || "its memory went before it did".into())?;
    let found = ground.run(&mut neighbour, &given)?;
    let unmoved = same(&neighbour, &description, &expected, &found);
    require(unmoved, || "the neighbour noticed".into())?;
    context.evict();
    ground.memory.release(id)?;
    require(ledger.used() == Bytes::ZERO, || "its charge stayed".into())?;
    Ok(format!("fenced for: {}", error_line(&error)))
}

fn drop_order(subject: &Subject<'_>, mut ground: Ground) -> Result<String, Fault> {
    let mut models = Vec::new();
    for _ in 0..3 {
        let mut model = ground.admit(load(subject)?)?;
        let given = subject.inputs(&model.backend.description().inputs, 9);
        let outputs = ground.run(&mut model, &given)?;
        models.push((model, given, outputs));
    }
    for at in [1, 0] {
        ground.evict(models.remove(at).0)?;
        for (model, given, expected) in &mut models {
            let description = model.backend.description().clone();
            let found = ground.run(model, given)?;
            let unmoved = same(model, &description, expected, &found);
            require(unmoved, || "one that stays noticed that another went".into())?;
        }
    }
    let (last, ..) = models.remove(0);
    // The slot outlives the model, as it does when a caller still reads its outputs.
    let slot = std::sync::Arc::clone(&last.slot);
    ground.evict(last)?;
    drop(slot);
    let left = ground.memory.current_usage();
    require(left.resident == Bytes::ZERO && left.scratch == Bytes::ZERO, || {
        format!("{} and {} stayed", left.resident, left.scratch)
    })?;
    // Nothing holds any address: all of the arena can be had.
    let whole = ground.arena.buffer(0..ground.arena.size().0)?;
    require(ground.is_host() || !whole.is_empty(), || "the arena is empty".into())?;
    drop(whole); // On a GPU a model is measured in it while it is loaded.
    // Never bound, and dropped all the same.
    drop(load(subject)?);
    Ok("three models went, first the second, and left nothing".into())
}

/// Whether `found` is `expected`: to the bit, unless the backend remarks that it does not repeat itself.
fn same(
    model: &crate::Model,
    description: &ModelDescription,
    expected: &Tensors,
    found: &Tensors,
) -> bool {
    let repeats = model.backend.remarks().is_empty();
    let agreement = if repeats { Agreement::Bits } else { Agreement::Close };
    agreement.holds(&description.outputs, expected, found)
}

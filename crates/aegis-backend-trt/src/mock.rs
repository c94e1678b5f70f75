//! Plans that say what they are, and copy instead of computing.
//!
//! For what cannot be executed on the hardware at hand. The mock that the binding has is none: it
//! answers with null objects, and panics in the calls that this crate is about (`docs/adr/0063`). A
//! mock engine takes part in everything but the library's own work: memory is asked for and refused,
//! tensors are bound, runs are enqueued on the stream they should be on, captured and replayed.
//! On a GPU its copies are made by the device; elsewhere by the caller, at once.
//!
//! Output `k` is a copy of input `k`, counted round; the scratch is filled with zeros first.

use std::sync::Arc;

use aegis_backend_gpu::Memory;
use aegis_context::chain::Chain;
use aegis_context::{BackendError, DType, named};
use aegis_cuda::{CudaStream, DeviceBuffer, DriverKind, HostBuffer};
use aegis_trace::Bytes;
use trtx::Severity;

use crate::facts::{Element, EngineFacts, Place, TensorFact};
use crate::ffi::{self, Addresses};
use crate::gpu::Gpu;
use crate::log::Heard;
use crate::persistent::Persistent;
use crate::refusal;

/// The first line of a mock plan.
const MARK: &str = "aegis mock plan";

/// A mock plan: what the engine is to be.
#[derive(Clone, Debug, Default)]
pub struct MockPlan {
    /// All of fp32.
    pub inputs: Vec<(String, Vec<usize>)>,
    /// All of fp32; each has the shape of the input that it copies.
    pub outputs: Vec<(String, Vec<usize>)>,
    /// What it keeps on the device.
    pub persistent: Bytes,
    /// What a run needs beside.
    pub scratch: Bytes,
    /// Streams beside the job's own.
    pub aux_streams: usize,
    /// What goes wrong.
    pub fault: MockFault,
}

/// What goes wrong with a mock engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MockFault {
    /// Nothing.
    #[default]
    None,
    /// The library refuses the plan with these words.
    Refused(String),
    /// Every run asks for so much more memory.
    Allocates(Bytes),
}

impl MockPlan {
    /// The plan as a file holds it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let tensor = |kind: &str, (name, shape): &(String, Vec<usize>)| {
            let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
            format!("{kind} {name} {}\n", shape.join("x"))
        };
        let inputs = self.inputs.iter().map(|it| tensor("input", it));
        let outputs = self.outputs.iter().map(|it| tensor("output", it));
        let fault = match &self.fault {
            MockFault::None => String::new(),
            MockFault::Refused(words) => format!("refused {words}\n"),
            MockFault::Allocates(bytes) => format!("allocates {}\n", bytes.0),
        };
        let figures = format!(
            "persistent {}\nscratch {}\naux {}\n",
            self.persistent.0, self.scratch.0, self.aux_streams
        );
        let lines: String = inputs.chain(outputs).chain([figures, fault]).collect();
        format!("{MARK}\n{lines}").into_bytes()
    }

    /// The plan that `bytes` hold; none where they are no mock plan.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        if lines.next() != Some(MARK) {
            return None;
        }
        let mut plan = Self::default();
        for line in lines {
            let (kind, rest) = line.split_once(' ')?;
            let number = || rest.parse::<u64>().ok();
            match kind {
                "input" => plan.inputs.push(tensor(rest)?),
                "output" => plan.outputs.push(tensor(rest)?),
                "persistent" => plan.persistent = Bytes(number()?),
                "scratch" => plan.scratch = Bytes(number()?),
                "aux" => plan.aux_streams = usize::try_from(number()?).ok()?,
                "refused" => plan.fault = MockFault::Refused(rest.to_owned()),
                "allocates" => plan.fault = MockFault::Allocates(Bytes(number()?)),
                _ => return None,
            }
        }
        Some(plan)
    }
}

fn tensor(text: &str) -> Option<(String, Vec<usize>)> {
    let (name, shape) = text.split_once(' ')?;
    let shape = shape.split('x').map(|size| size.parse().ok()).collect::<Option<_>>()?;
    Some((name.to_owned(), shape))
}

/// A mock engine.
pub(crate) struct MockEngine {
    plan: MockPlan,
    /// Where it is: which tensors of the model it copies.
    copies: Vec<Pair>,
    range: Arc<Persistent>,
    on_gpu: bool,
}

/// One copy, by way of memory of the host.
struct Pair {
    staging: HostBuffer,
    from: usize,
    to: usize,
}

impl MockEngine {
    /// The engine of `plan`; `None` where that is none of ours.
    pub(crate) fn read(
        path: &str,
        plan: &[u8],
        gpu: &Gpu,
        range: &Arc<Persistent>,
    ) -> Result<Option<Self>, BackendError> {
        let Some(plan) = MockPlan::from_bytes(plan) else { return Ok(None) };
        if let MockFault::Refused(words) = &plan.fault {
            let heard = Heard::of(&[(Severity::Error, words)]);
            return Err(refusal::refused(path, None, &Heard::default(), &heard));
        }
        let kept = plan.persistent.0;
        if kept > 0 && range.request(kept, 256).is_none() {
            let refused = range.take_refused().expect("it was refused a moment ago");
            let (requested, available) = (refused.requested, refused.available);
            return Err(BackendError::OutOfScratch { requested, available });
        }
        let mut copies = Vec::with_capacity(plan.outputs.len());
        for (index, (_, shape)) in plan.outputs.iter().enumerate() {
            let (_, source) = &plan.inputs[index % plan.inputs.len()];
            assert_eq!(shape, source, "an output of a mock has the shape of its input");
            let bytes = shape.iter().product::<usize>() * DType::F32.size();
            let staging = gpu.arena.host_buffer(bytes)?;
            copies.push(Pair { staging, from: 0, to: 0 });
        }
        let on_gpu = gpu.device.kind() == DriverKind::Cuda;
        Ok(Some(Self { plan, copies, range: Arc::clone(range), on_gpu }))
    }

    pub(crate) fn facts(&self) -> EngineFacts {
        let fact = |(name, shape): &(String, Vec<usize>)| TensorFact {
            name: name.clone(),
            element: Element::Known(DType::F32),
            shape: shape.iter().map(|size| i64::try_from(*size).unwrap_or(-1)).collect(),
            place: Place::Device,
        };
        EngineFacts {
            inputs: self.plan.inputs.iter().map(fact).collect(),
            outputs: self.plan.outputs.iter().map(fact).collect(),
            scratch: self.plan.scratch,
            aux_streams: self.plan.aux_streams,
        }
    }

    /// Learns which tensors it copies, and holds the caller to what an engine is promised.
    pub(crate) fn place(&mut self, chain: &Chain, stage: usize, addresses: &Addresses<'_>) {
        assert!(addresses.scratch.1 >= self.plan.scratch, "the scratch is too small");
        assert!(addresses.aux.len() >= self.plan.aux_streams, "a stream is missing");
        let named = |name: &str| addresses.tensors.iter().any(|(given, _)| *given == name);
        let mut all = self.plan.inputs.iter().chain(&self.plan.outputs);
        assert!(all.all(|(name, _)| named(name)), "a tensor has no address");
        for (index, pair) in self.copies.iter_mut().enumerate() {
            let takes = &chain.takes[stage];
            pair.from = takes[index % takes.len()];
            pair.to = chain.gives[stage][index];
        }
    }

    pub(crate) fn enqueue(
        &mut self,
        stream: &CudaStream,
        memory: &mut Memory,
    ) -> Result<(), BackendError> {
        if let MockFault::Allocates(bytes) = self.plan.fault
            && self.range.request(bytes.0, 256).is_none()
        {
            return Err(BackendError::Runtime { reason: "allocation failed".to_owned() });
        }
        if let Some(scratch) = memory.scratch().filter(|_| self.on_gpu) {
            ffi::fill_scratch(stream, scratch, 0)?;
        }
        for Pair { staging, from, to } in &mut self.copies {
            if self.on_gpu {
                ffi::gather(stream, own(memory, *from)?, staging)?;
                ffi::scatter(stream, staging, own(memory, *to)?)?;
            } else {
                own(memory, *from)?.read(0, staging)?;
                memory.own(*to).write(0, staging)?;
            }
        }
        Ok(())
    }
}

fn own(memory: &Memory, tensor: usize) -> Result<&DeviceBuffer, BackendError> {
    match memory.place(tensor, "a tensor of a mock")? {
        named::Place::Own(buffer) => Ok(buffer),
        named::Place::Shared(_) => {
            let reason = "a mock does not copy what other models share".to_owned();
            Err(BackendError::Runtime { reason })
        }
    }
}

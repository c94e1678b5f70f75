//! A run that asks for more than its region ends as that model's fault, and touches nothing else.
//!
//! The model here fills a vector of `1000 + n` ones, doubles it in length and adds it up. What it
//! allocates depends on the value of its input: the measuring runs, which are of `n = 0`, cannot know.

#[path = "golden/reference.rs"]
mod reference;
mod world;

use std::path::{Path, PathBuf};

use aegis_backend_onnx::scratch;
use aegis_context::RuntimeBackend;
use aegis_cuda::{DeviceBuffer, DeviceError};
use aegis_trace::{Bytes, Category};
use reference::Golden;
use world::{Tensors, World, floats};

const ARENA: Bytes = Bytes::from_mib(64);

#[test]
fn a_run_beyond_its_region_is_stopped_and_nobody_else_notices() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut world = World::new(ARENA);
    let mut growing = world.admit(world::load(vec![vector_of_ones(folder.path())]));
    let golden = Golden::read();
    let entry = golden.model("unet");
    let (mut neighbour, expected) = entry.admitted(&mut world, entry.whole());
    let (mine, theirs) = (growing.scratch(), neighbour.scratch());
    assert!(mine.start < theirs.end && theirs.start < mine.end, "they share scratch");
    let guard = Guard::around(&world, [&growing, &neighbour]);

    let good = world.run(&mut growing, &ones(0)).expect("what was measured");
    assert_eq!(floats(&good[0]), [2000.0]);
    let spilled = scratch::spilled();
    for _ in 0..3 {
        let error = world.run(&mut growing, &ones(1_000_000)).expect_err("4 MB of 4 kB");
        let DeviceError::Work { cause, .. } = &error else { panic!("{error}") };
        assert_eq!(cause.category, Category::Permanent);
        let refused = cause.refused.expect("it says how much");
        assert_eq!(refused.requested, Bytes(4 * 1_001_000));
        assert!(refused.available.0 <= mine.end - mine.start);
        let text = &cause.message;
        let asked = format!("the runtime asked for {} with ", Bytes(4 * 1_001_000));
        assert!(text.starts_with(&asked) && text.ends_with(" of its scratch left"), "{text}");

        let outputs = world.run(&mut neighbour, &entry.inputs()).expect("a good input");
        assert_eq!(outputs, expected);
        for (n, sum) in [(-1, 1998.0), (0, 2000.0)] {
            let again = world.run(&mut growing, &ones(n)).expect("no more than was measured");
            assert_eq!(floats(&again[0]), [sum]);
        }
    }
    // One request a run: stopped where the vector was filled, it never came to doubling it.
    assert_eq!(scratch::spilled(), spilled + 3, "the heap served what the runs needed to stop");
    assert!(growing.backend.scratch_used().0 <= mine.end - mine.start);
    guard.check();
}

/// Every byte of the arena that no model has.
struct Guard {
    rest: Vec<DeviceBuffer>,
}

impl Guard {
    fn around(world: &World, models: [&world::Model; 2]) -> Self {
        let mut taken: Vec<_> = models
            .iter()
            .flat_map(|model| model.placements.iter().zip(model.backend.memory()))
            .map(|(place, need)| {
                assert_eq!(place.tensor, need.tensor);
                place.offset..place.offset + need.size.0
            })
            .collect();
        taken.push(ARENA.0..ARENA.0);
        taken.sort_by_key(|range| range.start);
        let (mut rest, mut end) = (Vec::new(), 0);
        for range in taken {
            if end < range.start {
                let mut buffer = world.arena.buffer(end..range.start).expect("no model has it");
                buffer.fill(0x5A).expect("host memory");
                rest.push(buffer);
            }
            end = end.max(range.end);
        }
        assert!(rest.iter().map(DeviceBuffer::len).sum::<u64>() > ARENA.0 / 2);
        Self { rest }
    }

    fn check(self) {
        for buffer in self.rest {
            let mut bytes = vec![0; Bytes(buffer.len()).as_usize()];
            buffer.read(0, &mut bytes).expect("the buffer itself");
            assert!(bytes.iter().all(|byte| *byte == 0x5A), "{buffer:?} was written to");
        }
    }
}

fn ones(n: i64) -> Tensors {
    vec![n.to_le_bytes().to_vec()]
}

/// Writes `y = sum(concat(v, v)) with v = ones(1000 + n)` as an ONNX file.
fn vector_of_ones(folder: &Path) -> PathBuf {
    use onnx::{FLOAT, INT64, bytes, number};

    let base = onnx::tensor("base", INT64, &1000i64.to_le_bytes());
    let one = onnx::tensor("one", FLOAT, &1f32.to_le_bytes());
    let value = [bytes(1, b"value"), bytes(5, &one), number(20, 4)].concat();
    let fill = [onnx::node("ConstantOfShape", &["length"], "vector"), bytes(5, &value)].concat();
    let axis = [bytes(1, b"axis"), number(3, 0), number(20, 2)].concat();
    let double = [onnx::node("Concat", &["vector", "vector"], "twice"), bytes(5, &axis)].concat();
    let graph = [
        bytes(1, &onnx::node("Add", &["n", "base"], "length")),
        bytes(1, &fill),
        bytes(1, &double),
        bytes(1, &onnx::node("ReduceSum", &["twice"], "y")),
        bytes(2, b"vector_of_ones"),
        bytes(5, &base),
        bytes(11, &onnx::value("n", INT64)),
        bytes(12, &onnx::value("y", FLOAT)),
    ];
    let model = [number(1, 8), bytes(7, &graph.concat()), bytes(8, &number(2, 13))].concat();
    let file = folder.join("vector_of_ones.onnx");
    std::fs::write(&file, model).expect("a writable folder");
    file
}

/// As much of the ONNX file format as one small model takes: protobuf fields by number.
mod onnx {
    pub(crate) const FLOAT: u8 = 1;
    pub(crate) const INT64: u8 = 7;

    /// A field that holds a number below 128.
    pub(crate) fn number(field: u8, value: u8) -> Vec<u8> {
        assert!(value < 128, "one byte");
        [varint(u32::from(field) << 3), vec![value]].concat()
    }

    /// A field that holds bytes: a string or a message.
    pub(crate) fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
        let length = u32::try_from(value.len()).expect("a small model");
        [varint(u32::from(field) << 3 | 2), varint(length), value.to_vec()].concat()
    }

    fn varint(mut value: u32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let low = (value & 0x7F) as u8;
            value >>= 7;
            all.push(if value == 0 { low } else { low | 0x80 });
            if value == 0 {
                return all;
            }
        }
    }

    /// A tensor of one element.
    pub(crate) fn tensor(name: &str, element: u8, value: &[u8]) -> Vec<u8> {
        [number(1, 1), number(2, element), bytes(8, name.as_bytes()), bytes(9, value)].concat()
    }

    /// An input or output of one element.
    pub(crate) fn value(name: &str, element: u8) -> Vec<u8> {
        let shape = bytes(1, &number(1, 1));
        let tensor = [number(1, element), bytes(2, &shape)].concat();
        [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
    }

    pub(crate) fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
        let mut all: Vec<u8> = inputs.iter().flat_map(|name| bytes(1, name.as_bytes())).collect();
        all.extend(bytes(2, output.as_bytes()));
        all.extend(bytes(4, operator.as_bytes()));
        all
    }
}

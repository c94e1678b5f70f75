//! The sub-allocator against a bitmap of its range.

use aegis_memory::{FirstFit, UnknownBlock};
use aegis_trace::Bytes;
use proptest::prelude::*;

/// One call of a foreign runtime.
#[derive(Clone, Debug)]
enum Call {
    Alloc {
        size: u64,
        alignment: u64,
    },
    /// Frees one of the live blocks, in order of allocation.
    Free(prop::sample::Index),
    /// Frees an offset that may or may not be a block's.
    FreeAt(u64),
    Reset,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        6 => (0u64..40, 0u32..6)
            .prop_map(|(size, shift)| Call::Alloc { size, alignment: 1 << shift }),
        5 => any::<prop::sample::Index>().prop_map(Call::Free),
        1 => (0u64..300).prop_map(Call::FreeAt),
        1 => Just(Call::Reset),
    ]
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    prop::collection::vec(call(), 0..80)
}

/// One flag for each byte, and the blocks in order of allocation.
struct Bitmap {
    taken: Vec<bool>,
    blocks: Vec<(usize, usize)>,
    high_water: usize,
}

impl Bitmap {
    fn new(capacity: usize) -> Self {
        Self { taken: vec![false; capacity], blocks: Vec::new(), high_water: 0 }
    }

    fn alloc(&mut self, size: usize, alignment: usize) -> Option<usize> {
        let size = size.max(1);
        let mut starts = (0..self.taken.len()).step_by(alignment);
        let start = starts.find(|start| {
            self.taken.get(*start..start + size).is_some_and(|bytes| !bytes.contains(&true))
        })?;
        self.taken[start..start + size].fill(true);
        self.blocks.push((start, size));
        self.high_water = self.high_water.max(start + size);
        Some(start)
    }

    fn free(&mut self, offset: usize) -> Option<usize> {
        let index = self.blocks.iter().position(|(start, _)| *start == offset)?;
        let (start, size) = self.blocks.remove(index);
        self.taken[start..start + size].fill(false);
        Some(size)
    }
}

fn index(bytes: u64) -> usize {
    Bytes(bytes).as_usize()
}

/// Plays `calls` on `range`, and returns every offset in order; `None` for a refusal.
fn play(range: &mut FirstFit, calls: &[Call]) -> Vec<Option<u64>> {
    let mut live = Vec::new();
    let mut offsets = Vec::new();
    for call in calls {
        match call {
            Call::Alloc { size, alignment } => {
                let offset = range.alloc(*size, *alignment);
                offsets.push(offset);
                live.extend(offset);
            }
            Call::Free(index) if !live.is_empty() => {
                let offset = live.remove(index.index(live.len()));
                range.free(offset).expect("a live block");
            }
            Call::Free(_) => {}
            Call::FreeAt(offset) => {
                if range.free(*offset).is_ok() {
                    live.retain(|other| other != offset);
                }
            }
            Call::Reset => {
                range.reset();
                live.clear();
            }
        }
    }
    offsets
}

proptest! {
    #[test]
    fn every_call_answers_as_the_bitmap_does(capacity in 0usize..300, calls in calls()) {
        let mut range = FirstFit::new(capacity as u64);
        let mut twin = Bitmap::new(capacity);
        for call in calls {
            match call {
                Call::Alloc { size, alignment } => {
                    let expected = twin.alloc(index(size), index(alignment));
                    prop_assert_eq!(range.alloc(size, alignment), expected.map(|at| at as u64));
                }
                Call::Free(which) if !twin.blocks.is_empty() => {
                    let (offset, size) = twin.blocks[which.index(twin.blocks.len())];
                    prop_assert_eq!(range.free(offset as u64), Ok(size as u64));
                    twin.free(offset);
                }
                Call::Free(_) => {}
                Call::FreeAt(offset) => {
                    let expected = twin.free(index(offset)).map(|size| size as u64);
                    prop_assert_eq!(range.free(offset), expected.ok_or(UnknownBlock { offset }));
                }
                Call::Reset => {
                    range.reset();
                    twin.taken.fill(false);
                    twin.blocks.clear();
                }
            }
            let in_use = twin.taken.iter().filter(|taken| **taken).count();
            prop_assert_eq!(range.in_use(), in_use as u64);
            prop_assert_eq!(range.live(), twin.blocks.len());
            prop_assert_eq!(range.high_water(), twin.high_water as u64);
        }
    }

    /// What others rely on: measure once in a large range, bind exactly that much, get the same
    /// addresses.
    #[test]
    fn offsets_do_not_depend_on_the_capacity(calls in calls(), more in 0u64..10_000) {
        let mut large = FirstFit::new(1 << 40);
        let offsets = play(&mut large, &calls);
        prop_assert!(offsets.iter().all(Option::is_some));
        let needed = large.high_water();
        for capacity in [needed, needed + more, u64::MAX] {
            let mut range = FirstFit::new(capacity);
            prop_assert_eq!(&play(&mut range, &calls), &offsets, "in a range of {}", capacity);
            prop_assert_eq!(range.high_water(), needed);
        }
        if needed > 0 {
            let mut short = FirstFit::new(needed - 1);
            prop_assert!(play(&mut short, &calls).contains(&None), "one byte less is too little");
        }
    }
}

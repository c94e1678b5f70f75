//! What the fuzz targets do, over their seeds and over damaged seeds: none of them rots unseen.

#[path = "../../../fuzz/bodies/certificate.rs"]
mod certificate;
#[path = "../../../fuzz/bodies/evidence.rs"]
mod evidence;
#[path = "../../../fuzz/bodies/page.rs"]
mod page;
#[path = "../../../fuzz/bodies/replay.rs"]
mod replay;
#[path = "../../../fuzz/bodies/trace_picture.rs"]
mod trace_picture;
#[path = "../../../fuzz/bodies/trace_reader.rs"]
mod trace_reader;

use std::fs;
use std::path::Path;

use aegis_sched::sim::{Random, Seed};

/// What a target does with some bytes.
type Body = fn(&[u8]);

/// Every target there is, its body, and where its seeds lie.
const TARGETS: [(&str, Body, &str); 6] = [
    ("certificate", certificate::run, "certificate"),
    ("evidence", evidence::run, "evidence"),
    ("page", page::run, "trace"),
    ("replay", replay::run, "trace"),
    ("trace_picture", trace_picture::run, "trace"),
    ("trace_reader", trace_reader::run, "trace"),
];

/// Damaged seeds of each target.
const ROUNDS: u64 = 40;

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz"))
}

/// The files of a folder of `fuzz/`, in order.
fn files(folder: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(fuzz().join(folder)).expect("a folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_is_run_here() {
    let names = files("targets")
        .into_iter()
        .map(|path| path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned());
    assert_eq!(names.collect::<Vec<_>>(), TARGETS.map(|(name, ..)| name));
}

#[test]
fn every_target_takes_its_seeds_whole_and_damaged() {
    let mut random = Random::new(Seed(11));
    for (_, run, seeds) in TARGETS {
        let seeds = files(&format!("seeds/{seeds}"));
        assert!(!seeds.is_empty());
        for seed in seeds {
            let seed = fs::read(seed).expect("a seed");
            run(&seed);
            // Behind a header of its own too: lines without one.
            run(seed.splitn(2, |byte| *byte == b'\n').last().expect("a part"));
            for _ in 0..ROUNDS {
                let mut bytes = seed.clone();
                for _ in 0..random.between(1, 3) {
                    let place = random.up_to(bytes.len() as u64 - 1);
                    let place = usize::try_from(place).expect("small");
                    match random.up_to(2) {
                        0 => bytes[place] ^= 1 << random.up_to(7),
                        1 => drop(bytes.remove(place)),
                        _ => bytes
                            .insert(place, b'0' + u8::try_from(random.up_to(9)).expect("a digit")),
                    }
                }
                run(&bytes);
            }
        }
    }
}

/// The seeds are read as what they are, so that a body that returns at once is noticed.
#[test]
fn seeds_are_what_their_targets_read() {
    let seed = |path: &str| fs::read(fuzz().join("seeds").join(path)).expect("a seed");
    let certificate = seed("certificate/two_models.json");
    let (mut read, intact) = aegis_verify::read(&certificate).expect("a certificate");
    assert!(intact.is_ok(), "it is sealed");
    let evidence = seed("evidence/two_models.json");
    read.evidence = Some(aegis_verify::Digest::of(&evidence));
    let account =
        aegis_verify::check_evidence(&read, std::io::Cursor::new(&evidence)).expect("it is read");
    let account = account.expect("its evidence");
    assert_eq!(account.recomputed.len(), 2);
    let log = aegis_trace::export::json::read(&seed("trace/replayed.jsonl")[..]).expect("a log");
    assert!(log.is_complete());
    let extent = aegis_sched::replay::Extent::Whole;
    let replayed = aegis_sched::replay::replay(&log.trace, extent).expect("it can be replayed");
    assert_eq!(replayed.divergence, None);
}

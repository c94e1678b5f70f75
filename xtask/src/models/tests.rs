//! What the generator promises: equal bytes, static shapes, the published sizes, honest tables.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::edge::{Class, EDGE_ROLES};
use super::efficientnet::EfficientNet;
use super::mobilenet::MobileNet;
use super::mobilenet3::MobileNet3;
use super::resnet::{Depth, ResNet};
use super::schema::{GraphProto, ModelProto, ValueInfoProto};
use super::sets::{GOLDEN, Network, ROLES};
use super::transformer::{Bert, Encoder, Pooling, Vit};
use super::{ModelSet, workload, write_set};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Writes `set` to a folder of its own and reads every file back, by file name.
fn contents(set: ModelSet) -> Vec<(String, Vec<u8>)> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let written = write_set(set, dir.path()).expect("the folder can be written");
    let read = |path: &Path| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        (name, fs::read(path).expect("it was written"))
    };
    written.iter().map(|file| read(&file.path)).collect()
}

fn graph(bytes: &[u8]) -> GraphProto {
    let model = ModelProto::decode(bytes).expect("a protocol buffer");
    model.graph.expect("a model has a graph")
}

fn shape(value: &ValueInfoProto) -> Vec<Option<i64>> {
    let of = value.r#type.as_ref().and_then(|of| of.tensor_type.as_ref());
    let shape = of.and_then(|of| of.shape.as_ref()).expect("a tensor with a shape");
    shape.dim.iter().map(|dim| dim.dim_value).collect()
}

#[test]
fn two_writes_give_equal_files() {
    for set in [ModelSet::Golden, ModelSet::Faulty] {
        assert!(contents(set) == contents(set), "{set:?} is not deterministic");
    }
}

#[test]
fn golden_models_are_those_whose_answers_are_checked_in() {
    let path = repository("crates/aegis-backend-onnx/tests/golden/golden.json");
    let golden = fs::read_to_string(path).expect("it is checked in");
    for (name, bytes) in contents(ModelSet::Golden) {
        let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        // A digest names one file, so its presence is enough and no JSON need be read.
        assert!(golden.contains(&digest), "{name} changed: run make_golden.py again");
    }
}

#[test]
fn every_file_is_a_graph_in_order_with_static_shapes() {
    for set in [ModelSet::Golden, ModelSet::Host24] {
        for (name, bytes) in contents(set) {
            let graph = graph(&bytes);
            let weights = graph.initializer.iter().map(|tensor| tensor.name.as_str());
            let mut known: BTreeSet<&str> =
                weights.chain(graph.input.iter().map(|input| input.name.as_str())).collect();
            known.insert(""); // An optional input that is not given.
            for node in &graph.node {
                let late = node.input.iter().find(|input| !known.contains(input.as_str()));
                assert_eq!(late, None, "{} of {name} uses it too early", node.name);
                known.extend(node.output.iter().map(String::as_str));
            }
            for value in graph.input.iter().chain(&graph.output) {
                assert!(known.contains(value.name.as_str()), "{} of {name}", value.name);
                let fixed = shape(value).iter().all(|dim| dim.is_some_and(|dim| dim > 0));
                assert!(fixed, "{} of {name} is dynamic", value.name);
            }
        }
    }
}

#[test]
fn parameter_counts_are_the_published_ones() {
    let size = [224, 224];
    let resnet = |depth| Network::ResNet(ResNet { depth, size, width: 100, classes: 1000 });
    let encoder = Encoder { layers: 12, width: 768, heads: 12 };
    let bert = Bert { tokens: 128, vocabulary: 30522, positions: 512, encoder };
    let pooling = Pooling::ClassToken;
    let vit = Vit { size, patch: 16, encoder, classes: 1000, pooling };
    let cases = [
        ("ResNet-18", resnet(Depth::D18), 11_689_512),
        ("ResNet-34", resnet(Depth::D34), 21_797_672),
        ("ResNet-50", resnet(Depth::D50), 25_557_032),
        ("ResNet-101", resnet(Depth::D101), 44_549_160),
        (
            "MobileNetV2",
            Network::MobileNet(MobileNet { size, width: 100, classes: 1000 }),
            3_504_872,
        ),
        ("MobileNetV3-Large", Network::MobileNet3(MobileNet3 { size, classes: 1000 }), 5_483_032),
        (
            "EfficientNet-B0",
            Network::EfficientNet(EfficientNet { size, width: 100, depth: 100, classes: 1000 }),
            5_288_548,
        ),
        ("ViT-B/16", Network::Vit(vit), 86_567_656),
        ("BERT-base", Network::Bert(bert), 109_482_240),
    ];
    for (name, network, expected) in cases {
        assert_eq!(network.graph(name, 1).parameters(), expected, "{name}");
    }
}

#[test]
fn names_and_seeds_are_unique() {
    let names: BTreeSet<&str> = ROLES.iter().map(|role| role.name).collect();
    let edge: BTreeSet<&str> = EDGE_ROLES.iter().map(|role| role.name).collect();
    let golden = GOLDEN.iter().map(|golden| golden.seed);
    let others = golden.chain(EDGE_ROLES.iter().map(|role| role.seed));
    let seeds: BTreeSet<u64> = ROLES.iter().map(|role| role.seed).chain(others).collect();
    assert_eq!((names.len(), edge.len()), (ROLES.len(), EDGE_ROLES.len()));
    assert_eq!(seeds.len(), ROLES.len() + GOLDEN.len() + EDGE_ROLES.len());
}

#[test]
fn the_host_roles_leave_half_of_a_core() {
    // In millionths of a core, costs charged half as much again as measured.
    let load = |role: &super::sets::Role| role.host_cost_us * 1500 / role.period_ms;
    let total: u64 = ROLES.iter().map(load).sum();
    assert!((350_000..500_000).contains(&total), "{total} millionths");
}

#[test]
fn the_workload_files_have_the_roles_as_the_tables_have_them() {
    for (set, name) in [(ModelSet::Host24, "edge24-host.toml"), (ModelSet::Edge24, "edge24.toml")] {
        let file = fs::read_to_string(repository(&format!("benches/workloads/{name}")));
        let file = file.expect("it is checked in");
        let models = workload::models(set).expect("the set has a workload");
        let again = "paste the output of `cargo xtask models --set SET --workload`";
        assert!(file.contains(&models), "{name} differs from the table: {again}");
    }
}

#[test]
fn edge_roles_keep_the_periods_of_their_class() {
    for role in &EDGE_ROLES {
        let range = match role.class {
            Class::Control => 1..=10_000,
            Class::Perception => 16_667..=50_000,
            Class::Background => 200_000..=1_000_000,
        };
        assert!(range.contains(&role.period_us), "{}: {} us", role.name, role.period_us);
    }
}

#[test]
fn edge_roles_read_nothing_from_host_memory_while_they_run() {
    // Operators whose number of elements or of steps depends on data, or whose kernels copy tables
    // from the host. `Concat` is among the latter where its parts differ in length.
    let forbidden =
        ["Loop", "If", "Scan", "NonZero", "NonMaxSuppression", "GRU", "LSTM", "ScatterND"];
    for role in &EDGE_ROLES {
        let graph = role.network.graph(role.name, role.seed);
        for node in &graph.nodes {
            assert!(!forbidden.contains(&node.op_type.as_str()), "{} of {}", node.name, role.name);
            let lengths: BTreeSet<_> = match node.op_type.as_str() {
                "Concat" => node.input.iter().map(|name| &graph.tensors[name].shape).collect(),
                _ => BTreeSet::new(),
            };
            assert!(lengths.len() <= 1, "{} of {} joins {lengths:?}", node.name, role.name);
        }
    }
}

//! Inputs ahead, asked for: where it is refused, and what evidence must say then.

use std::path::Path;

use aegis::evidence::{Evidence, EvidenceError, UploadsMeasured};
use aegis::profile::{ProfileOptions, profile};
use aegis::workload::Workload;
use aegis::{
    Bytes, Category, DType, DeviceChoice, Error, ModelDescription, ModelSource, Nanos, Overheads,
    PolicyKind, Runtime, RuntimeBuilder, SimModel, TensorSpec,
};

fn builder() -> RuntimeBuilder {
    Runtime::builder()
        .streams(1)
        .policy(PolicyKind::Edf)
        .queue_depth(16)
        .max_models(8)
        .overheads(Overheads::default())
        .trace_capacity(1 << 12)
}

fn workload(driver: &str, scheduler: &str) -> Result<Workload, String> {
    let text = format!(
        "[device]\ndriver = \"{driver}\"\nmemory = \"1GiB\"\n[scheduler]\npolicy = \"edf\"\n\
         queue_depth = 8\n{scheduler}\n[[model]]\nname = \"camera\"\nbackend = \"sim\"\n\
         period = \"33ms\"\n[model.sim]\nstages = [\"5ms\"]\n"
    );
    Workload::parse(&text, Path::new("edge.toml")).map_err(|faults| faults.to_string())
}

#[test]
fn a_workload_asks_for_it_beside_look_ahead_and_not_on_a_host() {
    let asked = workload("sim", "look_ahead = true\nuploads_ahead = true").expect("both");
    assert!(asked.overheads.look_ahead && asked.overheads.uploads_ahead);
    assert!(!workload("sim", "look_ahead = true").expect("one").overheads.uploads_ahead);
    let faults = workload("sim", "look_ahead = false\nuploads_ahead = true").expect_err("alone");
    assert!(faults.contains("edge.toml:8:17: `uploads_ahead` needs `look_ahead`"), "{faults}");
    assert!(faults.contains("look_ahead = false"), "the place it is off: {faults}");
    let faults = workload("host", "look_ahead = true\nuploads_ahead = true").expect_err("a host");
    assert!(faults.contains("`uploads_ahead` is not for the driver `host`"), "{faults}");
}

#[test]
fn a_builder_refuses_it_alone_and_on_a_device_that_copies_by_the_processor() {
    let alone = builder().uploads_ahead(true).sim(Bytes::from_mib(64)).build();
    let error = alone.map(drop).expect_err("look-ahead is off");
    let Error::Build { faults } = error else { panic!("{error}") };
    assert_eq!(
        faults,
        [
            "`uploads_ahead` is on without `look_ahead`; inputs go ahead of a stage that waits behind \
             another"
        ]
    );
    let both = || builder().look_ahead(true).uploads_ahead(true);
    assert!(both().sim(Bytes::from_mib(64)).build().is_ok());
    let error = both().host(Bytes::from_mib(64)).build().map(drop).expect_err("no engine");
    assert_eq!(error.category(), Category::Permanent);
    assert!(
        error.to_string().contains("two copy engines") || {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            cause.is_some_and(|cause| cause.contains("two copy engines"))
        }
    );
}

/// Evidence of two models, as a profile without uploads ahead writes it.
fn evidence() -> Evidence {
    let x = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![4] };
    let description = ModelDescription { inputs: vec![x.clone()], outputs: vec![x], stages: 1 };
    let (size, carried) = (Bytes(64), Bytes::ZERO);
    let model = SimModel { description, persistent: size, scratch: size, carried };
    let source = ModelSource::Sim { model, costs: vec![Nanos::from_micros(50)] };
    let models = ["camera", "lidar"].map(|name| (name.to_owned(), source.clone()));
    let options = ProfileOptions {
        device: DeviceChoice::Host,
        memory: Bytes::from_mib(64),
        partitions: Vec::new(),
        rounds: 2,
        spin: Nanos::ZERO,
        realtime: false,
        uploads_ahead: false,
    };
    profile(&models, &options, |_, _| {}).expect("profiled")
}

#[test]
fn evidence_must_be_measured_beside_copies_as_large_as_the_inputs_of_every_other_model() {
    let mut evidence = evidence();
    assert!(evidence.models.values().all(|model| model.uploads.is_none()));
    let unknown = evidence.holds_beside_uploads("camera", ["lidar"].into_iter());
    assert!(matches!(unknown, Err(EvidenceError::UnknownInputs { ref model }) if model == "lidar"));
    let mut say = |model: &str, own, beside| {
        let uploads = Some(UploadsMeasured { own: Bytes(own), beside: Bytes(beside) });
        evidence.models.get_mut(model).expect("profiled").uploads = uploads;
        evidence.clone()
    };
    say("lidar", 4 << 20, 600_000);
    let short = say("camera", 600_000, 3 << 20);
    let of = |evidence: &Evidence, model, other: &'static str| {
        evidence.holds_beside_uploads(model, std::iter::once(other)).map_err(|e| e.to_string())
    };
    assert_eq!(of(&short, "lidar", "camera"), Ok(()), "its own inputs never go beside it");
    let error = of(&short, "camera", "lidar").expect_err("a mebibyte short");
    for part in ["camera", "copies of 3 MiB", "inputs of 4 MiB", "accept = [\"copies\"]"] {
        assert!(error.contains(part), "{part} in: {error}");
    }
    assert_eq!(of(&say("camera", 600_000, 4 << 20), "camera", "lidar"), Ok(()));
    assert_eq!(short.holds_beside_uploads("camera", std::iter::empty()).ok(), Some(()));
    let mut none = short;
    none.models.get_mut("camera").expect("profiled").uploads = None;
    let error = of(&none, "camera", "lidar").expect_err("beside none");
    assert!(error.contains("measured beside no copies"), "{error}");
    let read: Evidence =
        serde_json::from_str(&serde_json::to_string(&none).expect("plain data")).expect("the same");
    assert_eq!(read, none);
}

#[test]
fn a_profile_beside_copies_needs_a_device_that_makes_them() {
    let options = ProfileOptions {
        device: DeviceChoice::Host,
        memory: Bytes::from_mib(64),
        partitions: Vec::new(),
        rounds: 2,
        spin: Nanos::ZERO,
        realtime: false,
        uploads_ahead: true,
    };
    let x = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![4] };
    let description = ModelDescription { inputs: vec![x.clone()], outputs: vec![x], stages: 1 };
    let (size, carried) = (Bytes(64), Bytes::ZERO);
    let model = SimModel { description, persistent: size, scratch: size, carried };
    let source = ModelSource::Sim { model, costs: vec![Nanos::from_micros(50)] };
    let refused = profile(&[("camera".to_owned(), source)], &options, |_, _| {});
    assert!(matches!(refused, Err(Error::Device(..))), "{refused:?}");
}

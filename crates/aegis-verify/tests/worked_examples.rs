//! Certificates written by hand, of examples from the literature and of our own notes.
//!
//! No scheduler takes part: what is checked here was computed on paper.

use std::io::{Cursor, Read, Seek, SeekFrom};

use aegis_trace::{Bytes, Nanos};
use aegis_verify::{
    Budget, Certificate, Chain, ChainKind, Charge, Charges, Class, Digest, Files, Handover,
    JOBS_MAX, Left, Level, Measured, Memory, Method, Model, Need, Outcome, Overheads, Partition,
    Placed, Policy, Pressure, Proof, Raised, Refusal, Service, Tensor, Totals, Verdict, Witness,
    account, check, check_evidence, read, verify, write,
};
use expect_test::{Expect, expect};

const NONE: Nanos = Nanos::ZERO;

/// A model of one stage without memory: cost, period, deadline.
fn model(name: &str, cost: u64, period: u64, deadline: u64, rank: Option<u32>) -> Model {
    let share = u64::try_from((u128::from(cost) << 63).div_ceil(u128::from(period))).expect("<= 1");
    let (cost, period, deadline) = (Nanos(cost), Nanos(period), Nanos(deadline));
    let room = i64::try_from(deadline.0).expect("small") - i64::try_from(cost.0).expect("small");
    Model {
        name: name.into(),
        partition: 0,
        measured: None,
        stages: vec![cost],
        suspend: true,
        service: Service::Guaranteed { period, deadline, jitter: NONE, rank },
        budget: Budget { memory: Bytes(10_000), streams: 1, compute: None },
        left: Left { memory: 10_000, streams: 0, compute: None },
        charge: Charge { job: cost, cost, longest: cost, last: cost, share, room },
        tensors: vec![],
        need: need(),
        outcome: Outcome::Admitted,
    }
}

fn need() -> Need {
    let zero = Bytes::ZERO;
    Need {
        persistent: zero,
        io: zero,
        carried: zero,
        scratch: zero,
        resident: zero,
        peak: zero,
        steps: 0,
        covered: zero,
    }
}

/// The certificate of models on an otherwise empty device that costs nothing.
fn certificate(policy: Policy, models: Vec<Model>, proof: Proof) -> Certificate {
    let admitted = || models.iter().filter(|model| model.outcome == Outcome::Admitted);
    let count = |count: usize| u32::try_from(count).expect("a few");
    let all = admitted().count() == models.len();
    let charges = Charges { only: NONE, first: NONE, inner: NONE, last: NONE, idle: NONE };
    Certificate {
        verdict: if all { Verdict::Yes } else { Verdict::No },
        totals: Totals {
            models: count(models.len()),
            admitted: count(admitted().count()),
            chains: 0,
            kept: 0,
        },
        workload: Digest::of(b"a workload"),
        evidence: None,
        overheads: Overheads {
            dispatch: NONE,
            wake: NONE,
            boundary: NONE,
            copy: NONE,
            look_ahead: false,
            charges,
        },
        memory: Memory {
            limit: Bytes(10_000),
            resident: Bytes::ZERO,
            scratch: Bytes::ZERO,
            left: Bytes(10_000),
            pressure: None,
        },
        partitions: vec![Partition {
            name: None,
            policy,
            streams: 1,
            suspended: None,
            floor: NONE,
            committed: NONE,
            share: admitted().map(|model| model.charge.share).sum(),
            proof,
        }],
        models,
        chains: vec![],
    }
}

fn refused(witness: Witness) -> Outcome {
    Outcome::Refused(Refusal { raised: vec![], witness })
}

/// A busy period: whose, what blocks it, how long it is, its starts, and the worst with its response
/// and slack.
fn level(
    model: u32,
    (blocking, blocked_by): (u64, Option<u32>),
    busy: u64,
    starts: &[u64],
    (worst, response, slack): (u32, u64, u64),
) -> Level {
    Level {
        model,
        blocking: Nanos(blocking),
        blocked_by,
        busy: Nanos(busy),
        starts: starts.iter().copied().map(Nanos).collect(),
        worst,
        response: Nanos(response),
        slack: Nanos(slack),
    }
}

fn says(certificate: &Certificate, expected: &Expect) {
    let words = match check(certificate) {
        Ok(()) => "it holds".into(),
        Err(fault) => fault.to_string(),
    };
    expected.assert_eq(&words);
}

/// Davis, Burns, Bril, Lukkien 2007, the set that refutes the analysis of 1994: the second job of C is
/// the worst. Times in hundredths of a millisecond.
fn davis_et_al() -> Certificate {
    let models = vec![
        model("a", 100, 250, 250, Some(0)),
        model("b", 100, 350, 350, Some(1)),
        model("c", 100, 350, 350, Some(2)),
    ];
    let bounds = vec![
        level(0, (100, Some(1)), 200, &[100], (0, 200, 50)),
        level(1, (100, Some(2)), 500, &[200, 400], (0, 300, 50)),
        level(2, (0, None), 700, &[200, 600], (1, 350, 0)),
    ];
    certificate(Policy::Priority, models, Proof::NpFixedPriority { bounds })
}

#[test]
fn the_second_job_of_the_can_example_is_the_worst() {
    says(&davis_et_al(), &expect!["it holds"]);
}

#[test]
fn the_analysis_that_was_refuted_is_refused() {
    // It looks at the first job alone and finds 300.
    let mut refuted = davis_et_al();
    let Proof::NpFixedPriority { bounds } = &mut refuted.partitions[0].proof else {
        unreachable!()
    };
    bounds[2] = level(2, (0, None), 700, &[200], (0, 300, 50));
    says(
        &refuted,
        &expect![
            "partitions[0].proof.bounds[2].starts, how many: the certificate says 1, and what follows is 2"
        ],
    );
}

#[test]
fn a_set_that_the_bound_of_liu_and_layland_accepts_is_late() {
    // U = 0.8, and sum C/D <= 1; the long job begins an instant before the short one is ready.
    let mut long = model("long", 3, 10, 10, None);
    let witness = Witness::Response {
        model: 0,
        blocking: Nanos(3),
        blocked_by: Some(1),
        committed: NONE,
        job: 0,
        start: Nanos(3),
        response: Nanos(4),
    };
    long.outcome = refused(witness);
    let models = vec![model("short", 1, 2, 2, None), long];
    let alone = Proof::NpFixedPriority { bounds: vec![level(0, (0, None), 1, &[0], (0, 1, 1))] };
    let refused = certificate(Policy::Rms, models, alone);
    says(&refused, &expect!["it holds"]);
    let text = write(&refused);
    let files = Files {
        certificate: text.as_bytes(),
        workload: Some(&mut &b"a workload"[..]),
        evidence: None,
    };
    let account = verify(files).expect("a certificate").expect("it holds");
    let line = account.lines().find(|line| line.starts_with("long")).expect("it is refused");
    expect!["long is refused: job 0 of a busy period of short starts its last stage at 3 ns behind 3 ns of a stage of long: response 4 ns > deadline 2 ns"].assert_eq(line);
}

/// A camera triggers a detector, one after it at the latest, and a map of 4 in 20 asks.
///
/// Without the map the camera waits 3 for the detector and responds in 5, so the detector is ready within
/// 6, starts at 2 and responds in 6 + 2 + 3 = 11 of 12. Behind the map the camera responds in 4 + 2 = 6,
/// so the detector is ready within 7 at least, starts at 4 + 2 and responds in 7 + 6 + 3 = 16.
fn a_map_beside_a_chain() -> Certificate {
    let camera = model("camera", 2, 10, 10, Some(0));
    let mut detector = model("detector", 3, 10, 12, Some(1));
    let Service::Guaranteed { jitter, .. } = &mut detector.service else { unreachable!() };
    *jitter = Nanos(6);
    detector.charge.room = 3;
    let mut map = model("map", 4, 20, 20, Some(2));
    let behind_the_map = |model, start, response| Witness::Response {
        model,
        blocking: Nanos(4),
        blocked_by: Some(2),
        committed: NONE,
        job: 0,
        start: Nanos(start),
        response: Nanos(response),
    };
    let step = Raised { model: 1, by: behind_the_map(0, 4, 6), jitter: Nanos(7) };
    let witness = behind_the_map(1, 6, 16);
    map.outcome = Outcome::Refused(Refusal { raised: vec![step], witness });
    let bounds = vec![
        level(0, (3, Some(1)), 5, &[3], (0, 5, 5)),
        level(1, (0, None), 8, &[2, 5], (0, 11, 1)),
    ];
    let proof = Proof::NpFixedPriority { bounds };
    let mut certificate = certificate(Policy::Priority, vec![camera, detector, map], proof);
    certificate.chains = vec![Chain {
        name: "sight".into(),
        kind: ChainKind::Triggered,
        members: vec![0, 1],
        handover: vec![Handover { asked: Nanos(1), spare: Some(NONE) }],
        bound: Some(Nanos(11)),
        deadline: None,
        slack: None,
        age: None,
        max_age: None,
        age_slack: None,
    }];
    (certificate.totals.chains, certificate.totals.kept) = (1, 1);
    certificate
}

#[test]
fn a_refusal_beside_a_chain_holds_with_the_jitters_that_follow_and_no_others() {
    let with = |change: &dyn Fn(&mut Refusal)| {
        let mut certificate = a_map_beside_a_chain();
        let Outcome::Refused(refusal) = &mut certificate.models[2].outcome else { unreachable!() };
        change(refusal);
        certificate
    };
    says(&with(&|_| {}), &expect!["it holds"]);
    says(
        &with(&|refusal| refusal.raised[0].jitter = Nanos(8)),
        &expect![
            "models[2].outcome.raised[0].jitter: the certificate says 8, and what follows is 7"
        ],
    );
    says(
        &with(&|refusal| refusal.raised[0].model = 0),
        &expect![
            "models[2].outcome.raised[0].model: a member of a triggered chain must follow another one"
        ],
    );
    says(
        &with(&|refusal| refusal.raised[0].by = refusal.witness),
        &expect![
            "models[2].outcome.raised[0].by.response: the certificate says 16, and what follows is 10"
        ],
    );
    says(
        &with(&|refusal| refusal.raised.push(refusal.raised[0])),
        &expect![
            "models[2].outcome.raised[1].jitter: a step must raise it, and here it is 7 against 7"
        ],
    );
    // With the hand-over alone the detector responds in 1 + 6 + 3.
    says(
        &with(&|refusal| refusal.raised.clear()),
        &expect!["models[2].outcome.response: the certificate says 16, and what follows is 10"],
    );
    let mut hasty = a_map_beside_a_chain();
    hasty.chains[0].handover[0].asked = NONE;
    says(
        &hasty,
        &expect![
            "models[2].outcome.raised[0].jitter: the certificate says 7, and what follows is 6"
        ],
    );
    let text = write(&a_map_beside_a_chain());
    let files = Files { certificate: text.as_bytes(), workload: None, evidence: None };
    let account = verify(files).expect("a certificate").expect("it holds");
    let line = account.lines().find(|line| line.starts_with("map")).expect("it is refused");
    expect!["map is refused: with detector ready 7 ns after its chain arrives, job 0 of a busy period of detector starts its last stage at 6 ns behind 4 ns of a stage of map: response 16 ns > deadline 12 ns"].assert_eq(line);
}

/// Jobs of 2 in every 2, and something that held the device for 1 before the first: it is never idle.
#[test]
fn a_busy_period_without_an_end_is_a_reason_and_one_with_an_end_is_none() {
    let set = |cost, window, jobs| {
        let mut asks = model("asks", cost, 2, 1_000, None);
        asks.outcome = refused(Witness::Endless { window: Nanos(window), jobs });
        let none = Proof::NpEdf { horizon: NONE, points: vec![], bounds: vec![] };
        let mut certificate = certificate(Policy::Edf, vec![asks], none);
        certificate.overheads.wake = Nanos(1);
        certificate.overheads.charges.idle = Nanos(1);
        certificate.partitions[0].floor = Nanos(1);
        certificate
    };
    // The window grows by the second of each job: 1, 3, 5, ..
    says(&set(2, 2 * JOBS_MAX + 1, JOBS_MAX + 1), &expect!["it holds"]);
    says(
        &set(2, 2 * JOBS_MAX + 3, JOBS_MAX + 2),
        &expect![
            "models[0].outcome (window, jobs): the certificate says (262147, 131074), and what follows is (262145, 131073)"
        ],
    );
    says(
        &set(2, 2 * JOBS_MAX - 1, JOBS_MAX),
        &expect![
            "models[0].outcome (window, jobs): the certificate says (262143, 131072), and what follows is (262145, 131073)"
        ],
    );
    says(
        &set(1, 2 * JOBS_MAX + 1, JOBS_MAX + 1),
        &expect![
            "models[0].outcome: the busy period must go on where nobody looks any more, and here it is 2 against 2"
        ],
    );
}

#[test]
fn memory_that_is_short_refuses_and_memory_that_is_free_does_not() {
    let set = |enter: u64, free: u64| {
        let mut asks = model("asks", 1, 2, 2, None);
        asks.outcome = refused(Witness::MemoryPressure { free: Bytes(free) });
        let none = Proof::NpEdf { horizon: NONE, points: vec![], bounds: vec![] };
        let mut certificate = certificate(Policy::Edf, vec![asks], none);
        let room = 10_000 - i64::try_from(enter).expect("small");
        certificate.memory.pressure = Some(Pressure { enter: Bytes(enter), room });
        certificate
    };
    says(&set(10_001, 10_000), &expect!["it holds"]);
    says(
        &set(10_001, 9_999),
        &expect!["models[0].outcome.free: the certificate says 9999, and what follows is 10000"],
    );
    says(
        &set(10_000, 10_000),
        &expect![
            "models[0].outcome: less must be free than a new model requires, and here it is 10000 against 10000"
        ],
    );
    let mut unasked = set(10_001, 10_000);
    unasked.memory.pressure = None;
    says(
        &unasked,
        &expect![
            "models[0].outcome: less must be free than a new model requires, and here it is 0 against 10000"
        ],
    );
    let mut admitted = davis_et_al();
    admitted.memory.pressure = Some(Pressure { enter: Bytes(10_001), room: -1 });
    says(
        &admitted,
        &expect![
            "models[0].outcome: so much memory must be free before it is admitted, and here it is 10001 against 10000"
        ],
    );
}

/// Three models with look-ahead, of which the map has the longest stage: Q = 4.
///
/// ```text
/// camera    B = 4  L = 8 + 2 = 10                    s = 8                       R = 10
/// detector  B = 4  L = 8 + 3 + 2 2 = 15              s = 8 + 2 = 10              R = 13
/// map       B = 0  L = 4 + 4 + 3 + 2 2 = 15          s = 4 + 3 + 2 = 9           R = 13
/// ```
///
/// Two jobs of the camera are ready before 15, and one before 10; nobody can block the map, and it is
/// charged all the same.
fn one_stage_ahead() -> Certificate {
    let models = vec![
        model("camera", 2, 10, 10, None),
        model("detector", 3, 16, 16, None),
        model("map", 4, 20, 20, None),
    ];
    let bounds = vec![
        level(0, (4, Some(2)), 10, &[8], (0, 10, 0)),
        level(1, (4, Some(2)), 15, &[10], (0, 13, 3)),
        level(2, (0, None), 15, &[9], (0, 13, 7)),
    ];
    let mut ahead = certificate(Policy::Rms, models, Proof::NpFixedPriority { bounds });
    ahead.overheads.look_ahead = true;
    ahead.partitions[0].committed = Nanos(4);
    ahead
}

#[test]
fn look_ahead_adds_the_longest_stage_to_every_window_and_is_no_blocker() {
    says(&one_stage_ahead(), &expect!["it holds"]);
    let mut off = one_stage_ahead();
    off.overheads.look_ahead = false;
    says(&off, &expect!["partitions[0].committed: the certificate says 4, and what follows is 0"]);
    let mut less = one_stage_ahead();
    less.partitions[0].committed = Nanos(3);
    says(&less, &expect!["partitions[0].committed: the certificate says 3, and what follows is 4"]);
    // The camera's bound without the charge, beside the charge.
    let mut forgotten = one_stage_ahead();
    let Proof::NpFixedPriority { bounds } = &mut forgotten.partitions[0].proof else {
        unreachable!()
    };
    bounds[0] = level(0, (4, Some(2)), 6, &[4], (0, 6, 4));
    says(
        &forgotten,
        &expect![
            "partitions[0].proof.bounds[0].busy: the certificate says 6, and what follows is 10"
        ],
    );
    let words = account(&one_stage_ahead());
    assert!(
        words.contains("and for 4 ns by what ran when that was put behind it: look-ahead"),
        "{words}"
    );
}

#[test]
fn a_refusal_that_refuses_nobody_late_is_refused() {
    let mut long = model("long", 1, 10, 10, None);
    let witness = Witness::Response {
        model: 0,
        blocking: Nanos(1),
        blocked_by: Some(1),
        committed: NONE,
        job: 0,
        start: Nanos(1),
        response: Nanos(2),
    };
    long.outcome = refused(witness);
    let models = vec![model("short", 1, 2, 2, None), long];
    let alone = Proof::NpFixedPriority { bounds: vec![level(0, (0, None), 1, &[0], (0, 1, 1))] };
    let refused = certificate(Policy::Rms, models, alone);
    says(
        &refused,
        &expect![
            "models[1].outcome.response: R > D must hold of a refusal, and here it is 2 against 2"
        ],
    );
}

#[test]
fn other_files_than_those_that_were_used_are_told() {
    let text = write(&davis_et_al());
    let files = Files {
        certificate: text.as_bytes(),
        workload: Some(&mut &b"another"[..]),
        evidence: None,
    };
    let fault = verify(files).expect("a certificate").expect_err("another workload");
    assert!(fault.to_string().starts_with("workload, the hash of the file: "), "{fault}");
    let mut evidence = tempfile::tempfile().expect("a file");
    let files =
        Files { certificate: text.as_bytes(), workload: None, evidence: Some(&mut evidence) };
    let fault = verify(files).expect("a certificate").expect_err("there is no evidence");
    assert!(fault.to_string().starts_with("evidence: the certificate names none"), "{fault}");
}

/// Evidence that may be read once, and not again.
struct Once<R>(R);

impl<R: Read> Read for Once<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R> Seek for Once<R> {
    fn seek(&mut self, _: SeekFrom) -> std::io::Result<u64> {
        Err(std::io::Error::other("it was to be parsed"))
    }
}

#[test]
fn evidence_of_another_hash_is_not_parsed() {
    let file = evidence(83, 0);
    let certificate = measured(&file, Method::Margin);
    let fault = check_evidence(&certificate, Once(&b"another"[..])).expect("it is hashed");
    let fault = fault.expect_err("it is another one").to_string();
    assert!(fault.starts_with("evidence, the hash of the file: "), "{fault}");
    let error = check_evidence(&certificate, Once(&file[..])).expect_err("it is the one");
    assert!(format!("{error:?}").contains("to be parsed"), "{error:?}");
}

#[test]
fn members_of_chains_are_checked_before_anything_is_made_of_them() {
    let with = |members: Vec<u32>| {
        let mut certificate = a_map_beside_a_chain();
        certificate.chains[0].members = members;
        certificate
    };
    says(&with(vec![0, 1]), &expect!["it holds"]);
    let says_of_members = |members, why: &str| {
        let fault = check(&with(members)).expect_err("no chain").to_string();
        assert_eq!(fault, format!("chains[0].members: {why}"));
    };
    says_of_members(vec![u32::MAX; 1 << 20], "a member is a model that is there");
    says_of_members(vec![1; 1 << 20], "each occurs once");
}

#[test]
fn whether_look_ahead_is_assumed_is_said() {
    let mut certificate = davis_et_al();
    assert!(
        account(&certificate).contains("     without look-ahead: no stage is put on the device")
    );
    certificate.overheads.look_ahead = true;
    assert!(
        account(&certificate).contains("     with look-ahead: one stage may wait on the device")
    );
}

#[test]
fn a_changed_content_that_holds_together_breaks_the_seal() {
    let text = write(&davis_et_al()).replace("\"name\":\"a\"", "\"name\":\"z\"");
    let (certificate, intact) = read(text.as_bytes()).expect("still canonical");
    assert_eq!(check(&certificate), Ok(()));
    assert_eq!(
        intact.expect_err("sealed").to_string(),
        "seal: the content was changed after it was written"
    );
}

/// One tensor of `size` bytes at `offset`.
fn tensor(class: Class, live: Option<(u32, u32)>, offset: u64, size: u64) -> Tensor {
    let at = Some(Placed { offset, end: offset + size });
    let (blocks, alignment) = (size.div_ceil(256), 256);
    Tensor { class, live, size: Bytes(size), alignment, blocks, at }
}

/// Two models with weights and scratch, the latter at `offset` in the second.
fn with_memory(offset: u64, carried: bool) -> Certificate {
    let mut certificate = davis_et_al();
    let class = if carried { Class::Carried } else { Class::Scratch };
    for (place, at) in [(0, 2_048), (1, offset)] {
        let model = &mut certificate.models[place];
        let live = (!carried).then_some((0, 1));
        model.tensors = vec![
            tensor(Class::Persistent, None, 512 * place as u64, 512),
            tensor(class, live, at, 1_024),
        ];
        let (held, shared) = if carried { (1_536, 0) } else { (512, 1_024) };
        model.need = Need {
            persistent: Bytes(512),
            carried: Bytes(if carried { 1_024 } else { 0 }),
            scratch: Bytes(shared),
            resident: Bytes(held),
            peak: Bytes(shared),
            steps: u64::from(!carried),
            covered: Bytes(shared),
            ..need()
        };
        model.left.memory = 10_000 - 1_536;
    }
    let (resident, scratch) = if carried { (3_072, 0) } else { (1_024, 1_024) };
    let left = Bytes(10_000 - resident - scratch);
    let (resident, scratch) = (Bytes(resident), Bytes(scratch));
    certificate.memory = Memory { limit: Bytes(10_000), resident, scratch, left, pressure: None };
    certificate
}

#[test]
fn scratch_of_two_models_of_one_partition_may_share_and_what_is_carried_may_not() {
    says(&with_memory(2_048, false), &expect!["it holds"]);
    says(
        &with_memory(2_048, true),
        &expect![
            "models[0].tensors[1].at: it must share no byte with a tensor that may be alive with it, and here it is [2048, 3072) against [2048, 3072) of models[1].tensors[1].at"
        ],
    );
    says(&with_memory(3_072, true), &expect!["it holds"]);
    says(
        &with_memory(256, false),
        &expect![
            "models[0].tensors[0].at: it must share no byte with a tensor that may be alive with it, and here it is [0, 512) against [256, 1280) of models[1].tensors[1].at"
        ],
    );
    says(
        &with_memory(9_216, false),
        &expect![
            "models[1].tensors[1].at: it must end within the limit, and here it is 10240 against 10000"
        ],
    );
    says(
        &with_memory(2_050, false),
        &expect!["models[1].tensors[1].at.offset: it must be a multiple of the alignment"],
    );
}

/// Evidence of one model whose longest sample is `longest`.
fn evidence(longest: u64, carried: u64) -> Vec<u8> {
    let model = Digest::of(b"network");
    format!(
        r#"{{"aegis_evidence":2,"models":{{"a":{{"model":"{model}","memory":{{"resident":{},"scratch":0,"carried":{carried}}},"samples":[[70,{longest},80]],"scenarios":{{"alone":[[60]]}}}}}}}}"#,
        512 + carried
    )
    .into_bytes()
}

/// The certificate of `A`, measured, beside others that are declared.
fn measured(file: &[u8], method: Method) -> Certificate {
    let mut certificate = with_memory(2_048, false);
    certificate.evidence = Some(Digest::of(file));
    let model = &mut certificate.models[0];
    model.measured = Some(Measured { model: Digest::of(b"network"), method, margin_percent: 20 });
    certificate
}

#[test]
fn costs_are_recomputed_from_the_samples() {
    let scratch = |file: Vec<u8>| {
        String::from_utf8(file)
            .expect("text")
            .replace("\"scratch\":0", "\"scratch\":1024")
            .into_bytes()
    };
    let file = scratch(evidence(83, 0)); // 83 * 1.2 = 99.6
    let account = check_evidence(&measured(&file, Method::Margin), Cursor::new(&file))
        .expect("it is read")
        .expect("it is what was used");
    assert_eq!((account.recomputed.len(), account.declared.len()), (1, 2));
    let other = scratch(evidence(84, 0));
    let fault = check_evidence(&measured(&other, Method::Margin), Cursor::new(&other))
        .expect("it is read")
        .expect_err("100.8");
    expect!["models[0].stages[0]: the certificate says 100, and what follows is 101"]
        .assert_eq(&fault.to_string());
    let account = check_evidence(&measured(&other, Method::Gpd), Cursor::new(&other))
        .expect("it is read")
        .expect("not recomputed");
    assert_eq!(account.taken, ["a"]);
    let larger = scratch(evidence(83, 64));
    let fault = check_evidence(&measured(&larger, Method::Margin), Cursor::new(&larger))
        .expect("it is read")
        .expect_err("it carries");
    expect!["models[0].tensors, by class: the certificate says 0, and what follows is 64"]
        .assert_eq(&fault.to_string());
}

#[test]
fn work_without_end_is_not_finished() {
    // Each step of the busy period gains 2^32 ns at most, up to 2^63.
    let (period, wake) = (1 << 31, Nanos(1 << 32));
    let models = vec![model("a", period - 1, period, 1 << 40, None)];
    let bounds = vec![level(0, (wake.0, None), 1, &[0], (0, 1, 0))];
    let mut heavy = certificate(Policy::Rms, models, Proof::NpFixedPriority { bounds });
    (heavy.overheads.wake, heavy.overheads.charges.idle) = (wake, wake);
    heavy.partitions[0].floor = wake;
    says(
        &heavy,
        &expect![
            "partitions[0].proof.bounds[0]: checking this takes more than 268435456 steps, which this program does not do"
        ],
    );
}

#[test]
fn a_name_that_could_be_a_line_of_the_answer_is_none() {
    let forged =
        ["x\nvalid: every number and every inequality was recomputed", "\u{1b}[2K", "A", ""];
    for name in forged.into_iter().map(str::to_owned).chain(["a".repeat(65)]) {
        let mut certificate = davis_et_al();
        certificate.models[0].name = name;
        let fault = check(&certificate).expect_err("no workload has such a name").to_string();
        assert!(fault.contains("of a-z, 0-9, _ and -"), "{fault}");
    }
    let mut certificate = davis_et_al();
    certificate.models[0].name = "a_z-09".repeat(10);
    assert!(check(&certificate).is_ok(), "a name as workloads have them");
}

#[test]
fn what_a_chain_assumes_is_told_where_there_is_one() {
    let said = account(&a_map_beside_a_chain());
    assert!(said.contains("  5. each member of a triggered chain"), "{said}");
    assert!(said.contains("  handed over to "), "{said}");
    assert!(!account(&davis_et_al()).contains("  5. "), "and nowhere else");
}

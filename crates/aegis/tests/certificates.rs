//! Every answer has a certificate that holds, or a stated reason why it has none.

mod certificate_sets;

use std::collections::BTreeMap;

use aegis::Nanos;
use aegis_verify::{Outcome, Verdict, check, read, write};
use certificate_sets::{Dice, ahead, certified, named, named_ahead, parsed, random, with_causes};

#[test]
fn every_named_answer_has_a_certificate_that_holds() {
    for (name, workload) in named().into_iter().chain(named_ahead()) {
        let text = certified(&workload).unwrap_or_else(|why| panic!("{name}: {why}"));
        let certificate = parsed(&text);
        check(&certificate).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert_eq!(write(&certificate), text, "{name}");
    }
}

#[test]
fn named_workloads_meet_every_kind_of_refusal() {
    let mut met = BTreeMap::new();
    for (_, workload) in named() {
        let certificate = parsed(&certified(&workload).expect("a certificate"));
        for model in &certificate.models {
            if let Outcome::Refused(refusal) = &model.outcome {
                let words = format!("{:?}", refusal.witness);
                let kind = words.split([' ', '{']).next().expect("a word").to_owned();
                *met.entry(kind).or_insert(0) += 1;
            }
        }
    }
    let kinds: Vec<&str> = met.keys().map(String::as_str).collect();
    // Streams and suspended models are refused when the file is read.
    let expected = [
        "Alone",
        "ComputeBudget",
        "Demand",
        "DeviceMemory",
        "Endless",
        "Load",
        "MemoryBudget",
        "MemoryPressure",
        "Queue",
        "Response",
        "ServerBudget",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn random_answers_have_certificates_that_hold_or_reasons_that_are_known() {
    let (mut yes, mut no, mut without) = (0, 0, BTreeMap::new());
    for seed in 0..600 {
        let workload = random(&mut Dice::new(seed));
        match certified(&workload) {
            Ok(text) => match parsed(&text).verdict {
                Verdict::Yes => yes += 1,
                Verdict::No => no += 1,
            },
            Err(why) => {
                let known = [
                    "or without what was refused since, it passes",
                    "that there is none is not proved",
                    "the plan takes more than the model needs at least",
                ];
                let known = known.iter().find(|reason| why.contains(**reason));
                let reason = known.unwrap_or_else(|| panic!("seed {seed}: {why}\n{workload}"));
                *without.entry(*reason).or_insert(0) += 1;
            }
        }
    }
    println!("{yes} yes, {no} no, without: {without:?}");
    assert!(yes > 100 && no > 350, "{yes} yes, {no} no, without: {without:?}");
    assert!(without.values().sum::<u32>() < 100, "{without:?}");
}

/// What is proved without the charge of look-ahead is not proved with it, and the charge is exact.
#[test]
fn a_certificate_with_less_for_look_ahead_than_there_may_be_never_holds() {
    let randoms = (0..300).map(|seed| random(&mut Dice::new(seed)));
    let without = |text: &str| text.replacen("look_ahead = true\n", "", 1);
    let workloads = named().into_iter().map(|(_, text)| text).chain(randoms);
    let (mut charged, mut proofs, mut free) = (0, 0, 0);
    for workload in workloads {
        let workload = without(&workload);
        let both = (certified(&workload), certified(&ahead(&workload)));
        let (Ok(plain), Ok(looks)) = both else { continue };
        let (plain, looks) = (parsed(&plain), parsed(&looks));
        let mut flipped = plain.clone();
        flipped.overheads.look_ahead = true;
        let binds = looks.partitions.iter().any(|it| it.committed > Nanos::ZERO);
        free += u32::from(!binds);
        for (place, partition) in looks.partitions.iter().enumerate() {
            let Some(less) = partition.committed.checked_sub(Nanos(1)) else { continue };
            let mut lowered = looks.clone();
            lowered.partitions[place].committed = less;
            let fault = check(&lowered).expect_err("less than may run").to_string();
            assert!(fault.starts_with(&format!("partitions[{place}].committed")), "{fault}");
            charged += 1;
            // The right charge beside a proof that knows none.
            if flipped.partitions[place].floor == partition.floor && plain.models == looks.models {
                flipped.partitions[place].committed = partition.committed;
                let fault = check(&flipped).expect_err("the proof is of another set").to_string();
                assert!(fault.contains(".proof."), "{fault}");
                proofs += 1;
            }
        }
    }
    println!("{charged} charges lowered, {proofs} proofs without them, {free} sets without any");
    assert!(charged > 200 && proofs > 40 && free > 60, "{charged}, {proofs}, {free}");
}

/// A model that is never suspended blocks for all of its length, also where jitters are planned.
#[test]
fn a_whole_model_beside_a_chain_leaves_the_hand_over_that_was_asked_for() {
    let beside = named().into_iter().filter(|(name, _)| name.ends_with("whole beside a chain"));
    let beside: Vec<_> = beside.collect();
    assert_eq!(beside.len(), 3);
    for (name, workload) in beside {
        let certificate = parsed(&certified(&workload).expect("a certificate"));
        assert!(certificate.models.iter().all(|it| it.outcome == Outcome::Admitted), "{name}");
        let handover = &certificate.chains[0].handover;
        let asked: Vec<u64> = handover.iter().map(|it| it.asked.0).collect();
        // Of the detector the wake-up, which stands for a jitter that is not stated.
        assert_eq!(asked, [300_000, 400_000], "{name}");
        assert!(handover.iter().all(|it| it.spare.is_some()), "{name}");
    }
}

#[test]
fn certificates_do_not_depend_on_the_run() {
    for (name, workload) in named().into_iter().step_by(5) {
        assert_eq!(certified(&workload), certified(&workload), "{name}");
    }
}

#[test]
fn a_text_that_is_not_its_own_is_refused_with_its_place() {
    let text = certified(&named()[0].1).expect("a certificate");
    let place = |bytes: &[u8]| match read(bytes) {
        Ok((_, intact)) => intact.expect_err("another content").to_string(),
        Err(error) => with_causes(&error),
    };
    assert!(place(b"").contains("line 1 column 0"), "{}", place(b""));
    let half = &text.as_bytes()[..text.len() / 2];
    assert!(place(half).contains("line 1 column"), "{}", place(half));
    let spaced = text.replacen(':', ": ", 1);
    assert!(place(spaced.as_bytes()).starts_with("byte 21: "), "{}", place(spaced.as_bytes()));
    for other in [2, 4] {
        let version = format!("\"aegis_certificate\":{other}");
        let renamed = text.replacen("\"aegis_certificate\":3", &version, 1);
        assert_eq!(
            place(renamed.as_bytes()),
            format!("the certificate has format version {other}, and this program reads 3")
        );
    }
    let foreign = br#"{"aegis_evidence":2,"models":{}}"#;
    assert!(place(foreign).contains("aegis_certificate"), "{}", place(foreign));
    let unknown = text.replacen("\"workload\"", "\"colour\":1,\"workload\"", 1);
    assert!(
        place(unknown.as_bytes()).contains("unknown field `colour`"),
        "{}",
        place(unknown.as_bytes())
    );
    let twice = text.replacen("\"chains\":[]", "\"chains\":[],\"chains\":[]", 1);
    assert!(
        place(twice.as_bytes()).contains("duplicate field `chains`"),
        "{}",
        place(twice.as_bytes())
    );
    let deep = format!("{}{}", text.trim_end_matches("}\n"), ",\"x\":") + &"[".repeat(100_000);
    assert!(place(deep.as_bytes()).contains("line 1 column"), "{}", place(deep.as_bytes()));
    let list = "[".repeat(100_000);
    assert!(place(list.as_bytes()).contains("line 1 column 1"), "{}", place(list.as_bytes()));
    let more = format!("{text}x");
    assert!(place(more.as_bytes()).contains("trailing characters"), "{}", place(more.as_bytes()));
    let huge = vec![b' '; (64 << 20) + 1];
    assert!(place(&huge).contains("and at most 67108864 are read"), "{}", place(&huge));
}

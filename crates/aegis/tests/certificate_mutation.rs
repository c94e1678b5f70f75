//! A certificate in which anything was changed is not believed.
//!
//! Every number, string, flag and list of many certificates is changed in every way listed in
//! `changes`. As a file with the old seal each must be refused, without exception. Then the
//! attacker computes the seal anew, and what remains is what the numbers themselves prove: changes that
//! still pass are other true statements, and only those of the fields in `SEALED` may.

mod certificate_sets;

use std::collections::BTreeMap;

use aegis_verify::{Certificate, Digest, Measured, Method, check, read, write};
use certificate_sets::{Dice, certified, named, named_ahead, parsed, random};
use serde_json::Value;

/// Fields of which some change leaves a true statement about another workload, with the reason.
const SEALED: &[(&str, &str)] = &[
    ("workload", "which file it is for; --workload compares"),
    ("evidence", "which file the costs come from; --evidence compares"),
    (
        "models/measured",
        "of a model that was refused; without it, --evidence has nothing to compare",
    ),
    ("models/measured/model", "which networks were measured; --evidence compares"),
    ("models/measured/method", "by which rule; --evidence recomputes"),
    ("models/measured/margin_percent", "with which margin; --evidence recomputes"),
    (
        "overheads/look_ahead",
        "where nobody can be put behind another one: first in, first out, and one task alone",
    ),
    ("models/name", "a name"),
    ("partitions/name", "a name"),
    ("chains/name", "a name"),
    ("partitions/policy", "another policy that orders these tasks alike"),
    (
        "models/service/rank",
        "another order of priorities with the same bounds, or the same witness",
    ),
    ("models/suspend", "of a model of one stage that carries nothing"),
    ("models", "another order of decisions that comes to the same"),
    ("models/stages", "another order of stages that comes to the same charges"),
    ("models/tensors", "another order of tensors"),
    ("partitions/suspended", "a limit that is kept"),
    ("chains", "another order of chains"),
    ("chains/members", "another order of models that sample each other, with the same sum"),
    ("chains/kind", "of a chain that a refused member leaves without a bound"),
    ("chains/deadline", "of a chain that a refused member leaves without a bound"),
    ("chains/max_age", "of a chain that a refused member leaves without a bound"),
    ("models/partition", "of a model that would be refused in another partition, too"),
    ("models/outcome/refused/witness/job", "another late job of the same busy period"),
    ("models/outcome/refused/raised", "a step that nothing after it needs"),
];

/// One change of a value, in words.
type Change = (String, Value);

/// Every change of the value itself; those of what it holds are not among them.
fn changes(value: &Value, vocabulary: &[&str]) -> Vec<Change> {
    let named = |name: &str, value: Value| (name.to_owned(), value);
    match value {
        Value::Number(number) => numbers(number),
        Value::Bool(flag) => vec![named("flipped", Value::Bool(!flag))],
        Value::Null => vec![named("0 for null", 0.into()), named("1 for null", 1.into())],
        Value::String(text) => strings(text, vocabulary),
        Value::Array(items) => arrays(items),
        Value::Object(_) => vec![named("null", Value::Null)],
    }
}

fn numbers(number: &serde_json::Number) -> Vec<Change> {
    let signed = number.as_i64();
    let mut others: Vec<(String, Value)> = Vec::new();
    match (number.as_u64(), signed) {
        (Some(n), _) => {
            others.extend(n.checked_add(1).map(|n| ("+1".into(), n.into())));
            others.extend(n.checked_sub(1).map(|n| ("-1".into(), n.into())));
            others.extend(n.checked_mul(2).map(|n| ("x2".into(), n.into())));
            others.push(("/2".into(), (n / 2).into()));
            others.push(("zero".into(), 0.into()));
        }
        (None, Some(n)) => {
            others.extend([("+1".into(), (n + 1).into()), ("-1".into(), (n - 1).into())]);
            others.push(("negated".into(), (-n).into()));
        }
        (None, None) => unreachable!("certificates have whole numbers"),
    }
    others.push(("null".into(), Value::Null));
    others
}

fn strings(text: &str, vocabulary: &[&str]) -> Vec<Change> {
    let mut others: Vec<String> = vocabulary.iter().map(|word| (*word).to_owned()).collect();
    others.extend([format!("{text}x"), text[1..].to_owned(), String::new()]);
    let flipped = if text.starts_with('a') { "b" } else { "a" };
    others.push(format!("{flipped}{}", &text[1..]));
    others.into_iter().map(|other| (format!("`{other}`"), Value::String(other))).collect()
}

fn arrays(items: &[Value]) -> Vec<Change> {
    let with = |name: String, change: &dyn Fn(&mut Vec<Value>)| {
        let mut items = items.to_vec();
        change(&mut items);
        (name, Value::Array(items))
    };
    let mut others = Vec::new();
    for place in 0..items.len() {
        others.push(with(format!("without {place}"), &|items| drop(items.remove(place))));
        others.push(with(format!("{place} twice"), &|items| {
            items.insert(place, items[place].clone())
        }));
        if place > 0 {
            others.push(with(format!("{place} swapped"), &|items| items.swap(place - 1, place)));
        }
    }
    others
}

/// The words that any field of few values can have.
const VOCABULARY: &[&str] = &[
    "yes",
    "no",
    "fifo",
    "rms",
    "dm",
    "edf",
    "priority",
    "persistent",
    "io",
    "carried",
    "scratch",
    "guaranteed",
    "background",
    "server",
    "sampled",
    "triggered",
    "margin",
    "auto",
    "np_edf",
    "np_fixed_priority",
    "load",
    "alone",
    "compute_budget",
];

/// Every place in a value, as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => {
            (0..)
                .zip(items)
                .for_each(|(place, item)| places(item, &format!("{at}/{place}"), found));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(key, field)| places(field, &format!("{at}/{key}"), found));
        }
        _ => {}
    }
}

/// The field of a place: its keys, with the numbers of lists left out.
fn field(place: &str) -> String {
    let keys = place.split('/').filter(|key| key.parse::<u64>().is_err());
    keys.filter(|key| !key.is_empty()).collect::<Vec<_>>().join("/")
}

/// Of one field: changes, and those that only the seal finds, with an example.
#[derive(Default)]
struct Score {
    changes: u32,
    sealed: u32,
    example: Option<String>,
}

/// Fields that are changed wherever they stand.
fn is_rare(place: &str) -> bool {
    place.ends_with("/committed") || place.ends_with("/look_ahead")
}

/// Makes every change of one certificate, or every one in `step` and those of rare fields.
fn attack(name: &str, text: &str, step: usize, scores: &mut BTreeMap<String, Score>) {
    let original = parsed(text);
    let content = serde_json::to_value(&original).expect("plain data");
    let mut found = Vec::new();
    places(&content, "", &mut found);
    let mut count = 0;
    for place in found {
        let value = content.pointer(&place).expect("a place in it").clone();
        for (change, other) in changes(&value, VOCABULARY) {
            count += 1;
            let mut changed = content.clone();
            *changed.pointer_mut(&place).expect("a place in it") = other;
            let skipped = count % step != 0 && !is_rare(&place);
            if skipped || changed == content {
                continue;
            }
            let score = scores.entry(field(&place)).or_default();
            // A key that may be left out stands for null, and is refused as another text.
            let Ok(certificate) = serde_json::from_value::<Certificate>(changed) else {
                score.changes += 1;
                continue;
            };
            if certificate == original {
                continue;
            }
            score.changes += 1;
            must_be_refused(text, &certificate, &place);
            if check(&certificate).is_ok() {
                score.sealed += 1;
                score.example.get_or_insert(format!("{name}: {place} {change}"));
            }
        }
    }
}

/// With the seal of the original, a changed content is refused whatever it is.
fn must_be_refused(text: &str, certificate: &Certificate, place: &str) {
    let (changed, seal) = (write(certificate), &text[text.len() - 67..]);
    let unsealed = format!("{}{seal}", &changed[..changed.len() - 67]);
    let (_, intact) = read(unsealed.as_bytes()).expect("a canonical text");
    assert!(intact.is_err(), "{place}: the seal did not notice");
}

/// The same certificate with costs that were measured.
fn measured(text: &str) -> String {
    let mut certificate = parsed(text);
    certificate.evidence = Some(Digest::of(b"evidence"));
    for (place, model) in certificate.models.iter_mut().enumerate() {
        let method = [Method::Margin, Method::Auto, Method::Order][place % 3];
        let model_hash = Digest::of(model.name.as_bytes());
        model.measured = Some(Measured { model: model_hash, method, margin_percent: 20 });
    }
    check(&certificate).expect("where costs come from is no part of the proof");
    write(&certificate)
}

#[test]
fn no_single_change_passes_but_of_fields_that_are_sealed() {
    let (mut scores, mut certificates) = (BTreeMap::new(), 0);
    for (name, workload) in named() {
        certificates += 2;
        let text = certified(&workload).expect("a certificate");
        attack(&name, &text, 1, &mut scores);
        attack(&format!("{name}, measured"), &measured(&text), 29, &mut scores);
    }
    for (name, workload) in named_ahead() {
        certificates += 1;
        attack(&name, &certified(&workload).expect("a certificate"), 5, &mut scores);
    }
    for seed in 0..60 {
        if let Ok(text) = certified(&random(&mut Dice::new(seed))) {
            certificates += 1;
            attack(&format!("seed {seed}"), &text, 7, &mut scores);
        }
    }
    let (mut changes, mut sealed) = (0, 0);
    let mut unexpected = Vec::new();
    for (field, score) in &scores {
        (changes, sealed) = (changes + score.changes, sealed + score.sealed);
        let example = score.example.as_deref().unwrap_or("");
        println!(
            "{field:40} {:6} changes, {:5} by the seal alone  {example}",
            score.changes, score.sealed
        );
        if score.sealed > 0 && !SEALED.iter().any(|(known, _)| known == field) {
            unexpected.push(format!("{field}: {example}"));
        }
    }
    println!(
        "{certificates} certificates, {changes} changes: all refused; {sealed} of them by the seal alone"
    );
    for field in
        ["overheads/look_ahead", "partitions/committed", "models/outcome/refused/witness/committed"]
    {
        assert!(
            scores.get(field).is_some_and(|score| score.changes > 40),
            "{field} was not changed"
        );
    }
    assert!(changes > 20_000, "{changes}");
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    assert!(sealed * 100 < changes * 8, "{sealed} of {changes}");
}

#[test]
fn bytes_that_were_changed_never_pass_and_never_panic() {
    let mut dice = Dice::new(9);
    for (name, workload) in named().into_iter().step_by(4) {
        let text = certified(&workload).expect("a certificate");
        for _ in 0..400 {
            let mut bytes = text.clone().into_bytes();
            let at = usize::try_from(dice.below(bytes.len() as u64)).expect("a place");
            match dice.below(4) {
                0 => bytes[at] ^= 1 << dice.below(8),
                1 => bytes.truncate(at),
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b'0' + u8::try_from(dice.below(10)).expect("a digit")),
            }
            let passes = bytes != text.as_bytes()
                && read(&bytes).is_ok_and(|(certificate, intact)| {
                    let holds = check(&certificate).is_ok();
                    holds && intact.is_ok()
                });
            assert!(!passes, "{name}: byte {at}");
        }
    }
}

/// The table of `docs/certificates.md` is the list above, word for word.
#[test]
fn the_fields_that_rest_on_the_seal_are_documented() {
    let row = |(field, why): &(&str, &str)| format!("| `{field}` | {why} |\n");
    let table: String = SEALED.iter().map(row).collect();
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/certificates.md");
    let docs = std::fs::read_to_string(docs).expect("it is there");
    let head = "| Field | Whose change leaves a true statement |\n|---|---|\n";
    assert!(docs.contains(&format!("{head}{table}\n")), "it must say:\n{head}{table}");
}

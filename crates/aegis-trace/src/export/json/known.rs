//! Whether a line says more than what was read of it.
//!
//! The derived parsers pass over keys that they do not know, and a log with such keys would be judged
//! by the rest. Ours never write one, so whatever has one was written by somebody else.

use serde::Serialize;
use serde_json::Value;

/// The first key of `line` that `read` is written without, with those around it: `what.partition`.
/// `None` where either is no JSON.
///
/// What is missing in the line is no fault here: an older version lacks what a newer one added.
pub(super) fn unknown_key(line: &[u8], read: &impl Serialize) -> Option<Option<String>> {
    let line: Value = serde_json::from_slice(line).ok()?;
    let read = serde_json::to_value(read).ok()?;
    Some(beyond(&line, &read))
}

fn beyond(line: &Value, read: &Value) -> Option<String> {
    match (line, read) {
        (Value::Object(line), Value::Object(read)) => line.iter().find_map(|(key, value)| {
            let Some(known) = read.get(key) else { return Some(key.clone()) };
            beyond(value, known).map(|inner| format!("{key}.{inner}"))
        }),
        (Value::Array(line), Value::Array(read)) => {
            line.iter().zip(read).find_map(|(line, read)| beyond(line, read))
        }
        _ => None,
    }
}

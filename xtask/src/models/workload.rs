//! The models of a workload file, as the table of roles has them.

use std::fmt::Write as _;

use super::sets::{ROLES, Role};

/// The `[[model]]` tables of `benches/workloads/edge24-host.toml`.
pub(crate) fn models() -> String {
    ROLES.iter().map(model).collect::<Vec<_>>().join("\n")
}

fn model(role: &Role) -> String {
    let folder = "../../.aegis/models/host24";
    let mut text = format!("[[model]]\nname = \"{}\"\nbackend = \"onnx\"\n", role.name);
    if role.host.cuts.is_empty() {
        writeln!(text, "path = \"{folder}/{}.onnx\"", role.name)
    } else {
        let stage = |k| format!("    \"{folder}/{}.stage{k}.onnx\",\n", role.name);
        let stages: String = (0..=role.host.cuts.len()).map(stage).collect();
        writeln!(text, "stages = [\n{stages}]")
    }
    .and_then(|()| writeln!(text, "period = \"{}ms\"", role.period_ms))
    .expect("writing to a string cannot fail");
    text
}

//! The models of a workload file, as the tables of roles have them.

use std::fmt::Write as _;

use super::ModelSet;
use super::edge::{EDGE_ROLES, EdgeRole};
use super::sets::{ROLES, Role};

/// The `[[model]]` tables of the workload file of `set`, in `benches/workloads`; `None` if it has
/// none.
pub(crate) fn models(set: ModelSet) -> Option<String> {
    let tables: Vec<String> = match set {
        ModelSet::Host24 => ROLES.iter().map(host).collect(),
        ModelSet::Edge24 => EDGE_ROLES.iter().map(edge).collect(),
        ModelSet::Golden | ModelSet::Faulty => return None,
    };
    Some(tables.join("\n"))
}

fn host(role: &Role) -> String {
    let period = format!("{}ms", role.period_ms);
    model(ModelSet::Host24, role.name, role.host.cuts.len(), &period)
}

fn edge(role: &EdgeRole) -> String {
    let period = match (role.period_us / 1000, role.period_us % 1000) {
        (millis, 0) => format!("{millis}ms"),
        _ => format!("{}us", role.period_us),
    };
    model(ModelSet::Edge24, role.name, 0, &period)
}

fn model(set: ModelSet, name: &str, cuts: usize, period: &str) -> String {
    let folder = format!("../../.aegis/models/{}", set.folder());
    let mut text = format!("[[model]]\nname = \"{name}\"\nbackend = \"onnx\"\n");
    if cuts == 0 {
        writeln!(text, "path = \"{folder}/{name}.onnx\"")
    } else {
        let stage = |k| format!("    \"{folder}/{name}.stage{k}.onnx\",\n");
        let stages: String = (0..=cuts).map(stage).collect();
        writeln!(text, "stages = [\n{stages}]")
    }
    .and_then(|()| writeln!(text, "period = \"{period}\""))
    .expect("writing to a string cannot fail");
    text
}

//! Rules about documents: what they list exists, and what exists they list.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::{Finding, TextFile, Tree};

/// The manifest of the workspace.
const MANIFEST: &str = "Cargo.toml";

/// The document that says why each dependency is there.
const DEPENDENCIES: &str = "docs/dependencies.md";

/// The heading above its table of crates.
const CRATES_HEADING: &str = "## Crates";

/// Where decisions are recorded, one file each.
const DECISIONS: &str = "docs/adr/";

/// What every decision says.
const DECISION_HEADINGS: [&str; 4] = ["## Context", "## Choice", "## Cost", "## Refused"];

/// The tables of a manifest that name dependencies.
const DEPENDENCY_TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Every crate of others is pinned in one place, used, and explained in one line.
pub(super) fn dependencies(tree: &Tree) -> Vec<Finding> {
    let Some(manifest) = parsed(tree, MANIFEST) else {
        return vec![Finding::new(MANIFEST, 1, "it is missing, or is no TOML")];
    };
    let pinned = pinned_versions(&manifest);
    let explained = explained_versions(tree);
    let used = used_dependencies(tree);
    let mut findings = unshared_dependencies(tree);
    for (name, version) in &pinned {
        if !version.starts_with('=') {
            findings.push(Finding::new(MANIFEST, 1, format!("`{name}` is not pinned with `=`")));
        }
        if !used.contains(name) {
            findings.push(Finding::new(MANIFEST, 1, format!("no crate of ours uses `{name}`")));
        }
        if explained.get(name).is_none_or(|(explained, _)| *explained != version.trim_matches('='))
        {
            let what = format!("no line explains `{name}` {}", version.trim_matches('='));
            findings.push(Finding::new(DEPENDENCIES, 1, what));
        }
    }
    for (name, (_, line)) in explained {
        if !pinned.contains_key(&name) {
            let what = format!("`{name}` is not a dependency of the workspace");
            findings.push(Finding::new(DEPENDENCIES, line, what));
        }
    }
    findings
}

/// Every decision has a number of its own and says what was chosen against what.
pub(super) fn decisions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut numbers = BTreeSet::new();
    for file in tree.files.iter().filter(|file| file.path.starts_with(DECISIONS)) {
        let name = file.path.trim_start_matches(DECISIONS);
        match decision_number(name) {
            None => findings.push(Finding::new(&file.path, 1, "its name is not `NNNN-subject.md`")),
            Some(number) if !numbers.insert(number) => {
                findings.push(Finding::new(&file.path, 1, format!("{number} is taken")));
            }
            Some(_) => {}
        }
        for heading in DECISION_HEADINGS {
            if !file.text.lines().any(|line| line == heading) {
                findings.push(Finding::new(&file.path, 1, format!("`{heading}` is missing")));
            }
        }
    }
    findings
}

/// Every relative link of a document leads to a file of the repository.
pub(super) fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in relative_links(&file.text) {
            let found = resolve(&file.path, target).is_some_and(|path| tree.holds(&path));
            if !found {
                let what = format!("the link to `{target}` leads nowhere");
                findings.push(Finding::new(&file.path, line, what));
            }
        }
    }
    findings
}

fn parsed(tree: &Tree, path: &str) -> Option<Table> {
    tree.file(path)?.text.parse().ok()
}

/// The crates of others in the workspace's own table, with the version asked for.
fn pinned_versions(manifest: &Table) -> BTreeMap<String, String> {
    let table = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let entries = table.and_then(Value::as_table).into_iter().flatten();
    let version = |(name, entry): (&String, &Value)| {
        let version = entry.as_str().or_else(|| entry.get("version")?.as_str());
        let ours = entry.get("path").is_some();
        (!ours).then(|| (name.clone(), version.unwrap_or_default().to_owned()))
    };
    entries.filter_map(version).collect()
}

/// Name, version and line of every row of the table of crates.
fn explained_versions(tree: &Tree) -> BTreeMap<String, (&str, usize)> {
    let text = tree.file(DEPENDENCIES).map_or("", |file| file.text.as_str());
    let section = text.lines().enumerate().skip_while(|(_, line)| *line != CRATES_HEADING).skip(1);
    let section = section.take_while(|(_, line)| !line.starts_with("## "));
    section
        .filter_map(|(index, line)| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            let name = cells.next()?.trim_end_matches('`').to_owned();
            Some((name, (cells.next()?, index + 1)))
        })
        .collect()
}

/// The manifests of our crates. One that is a workspace of its own, as that of `fuzz/`, has none of the
/// workspace's table to take from.
fn members(tree: &Tree) -> impl Iterator<Item = (&TextFile, Table)> {
    let files = tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    let manifests = files.filter_map(|file| Some((file, file.text.parse::<Table>().ok()?)));
    manifests.filter(|(_, manifest)| !manifest.contains_key("workspace"))
}

/// Name and entry of every dependency that a manifest declares.
fn declared(manifest: &Table) -> Vec<(String, Value)> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flatten();
    let places = targets.filter_map(|(_, target)| target.as_table()).chain([manifest]);
    let tables =
        places.flat_map(|place| DEPENDENCY_TABLES.iter().filter_map(|key| place.get(*key)));
    let entries = tables.filter_map(Value::as_table).flatten();
    entries.map(|(name, entry)| (name.clone(), entry.clone())).collect()
}

fn used_dependencies(tree: &Tree) -> BTreeSet<String> {
    members(tree).flat_map(|(_, manifest)| declared(&manifest)).map(|(name, _)| name).collect()
}

/// Dependencies that a crate of ours declares past the workspace's table.
fn unshared_dependencies(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, manifest) in members(tree) {
        for (name, entry) in declared(&manifest) {
            if entry.get("workspace").is_none() {
                let what = format!("`{name}` is not taken from the workspace's table");
                findings.push(Finding::new(&file.path, 1, what));
            }
        }
    }
    findings
}

/// The number that the name of a decision begins with.
fn decision_number(name: &str) -> Option<&str> {
    let (number, subject) = name.strip_suffix(".md")?.split_once('-')?;
    let is_number = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !subject.is_empty()).then_some(number)
}

/// Line and target of every link that names no scheme and is no anchor of its own page.
fn relative_links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        // Every second part between backticks is code.
        let prose = line.split('`').step_by(2).filter(|_| !fenced);
        for start in prose.flat_map(|part| part.split("](").skip(1)) {
            let target = start.split([')', ' ', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') {
                links.push((index + 1, target));
            }
        }
    }
    links
}

/// The path of `target` as seen from the document at `from`, unless it leaves the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<_> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    const MEMBER: &str = "[dependencies]\nserde.workspace = true\n";

    fn manifest(entries: &str) -> String {
        format!("[workspace.dependencies]\nours = {{ path = \"ours\" }}\n{entries}\n")
    }

    fn check_dependencies(entries: &str, member: &str, rows: &str, expected: &[&str]) {
        let document =
            format!("# Dependencies\n\n## Crates\n{rows}\n## Programs\n| `git` | any |\n");
        let files = [
            (MANIFEST, manifest(entries)),
            ("crates/a/Cargo.toml", member.to_owned()),
            (DEPENDENCIES, document),
        ];
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        check(dependencies, &files, expected);
    }

    #[test]
    fn explained_and_used_dependencies_pass() {
        check_dependencies("serde = \"=1.0.1\"", MEMBER, "| `serde` | 1.0.1 | Encoding. |", &[]);
    }

    #[test]
    fn a_dependency_nobody_explains_is_found() {
        check_dependencies(
            "serde = { version = \"=1.0.1\" }",
            MEMBER,
            "| `serde` | 1.0.0 | Encoding. |",
            &["docs/dependencies.md:1: no line explains `serde` 1.0.1"],
        );
    }

    #[test]
    fn an_explained_crate_that_is_no_dependency_is_found() {
        check_dependencies(
            "",
            "",
            "| `serde` | 1.0.0 | Encoding. |",
            &["docs/dependencies.md:4: `serde` is not a dependency of the workspace"],
        );
    }

    #[test]
    fn a_workspace_of_its_own_shares_nothing() {
        let alone = "[dependencies]\nrand = \"=0.9.0\"\n\n[workspace]\n";
        check_dependencies("", alone, "", &[]);
    }

    #[test]
    fn loose_unused_and_unshared_dependencies_are_found() {
        check_dependencies(
            "serde = \"1\"",
            "[target.'cfg(unix)'.dev-dependencies]\nrand = \"=0.9.0\"\n",
            "| `serde` | 1 | Encoding. |",
            &[
                "crates/a/Cargo.toml:1: `rand` is not taken from the workspace's table",
                "Cargo.toml:1: `serde` is not pinned with `=`",
                "Cargo.toml:1: no crate of ours uses `serde`",
            ],
        );
    }

    #[test]
    fn a_decision_without_number_or_headings_is_found() {
        let full = DECISION_HEADINGS.join("\n");
        let partial = "# A\n## Context\n## Choice\n## Cost\n";
        check(
            decisions,
            &[
                ("docs/adr/0001-a.md", &full),
                ("docs/adr/0001-b.md", &full),
                ("docs/adr/0002-c.md", partial),
                ("docs/adr/d.md", &full),
            ],
            &[
                "docs/adr/0001-b.md:1: 0001 is taken",
                "docs/adr/0002-c.md:1: `## Refused` is missing",
                "docs/adr/d.md:1: its name is not `NNNN-subject.md`",
            ],
        );
    }

    #[test]
    fn a_link_to_nowhere_is_found() {
        let page = "[a](a.md) [b](../README.md#top) [c](https://example.com) [d](#here) [e](adr)\n\
                    `[f](f.md)`\n```text\n[g](g.md)\n```\n[h](h.md) [i](../../i.md)\n";
        check(
            links,
            &[
                ("docs/page.md", page),
                ("docs/a.md", ""),
                ("README.md", ""),
                ("docs/adr/0001-a.md", ""),
            ],
            &[
                "docs/page.md:6: the link to `h.md` leads nowhere",
                "docs/page.md:6: the link to `../../i.md` leads nowhere",
            ],
        );
    }
}

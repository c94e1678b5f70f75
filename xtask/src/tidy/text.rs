//! Rules about every text file.

use super::{Finding, TextFile, Tree};

/// Beginnings of paths that exist on one machine only. They are put together here, so that this
/// file does not break its own rule.
const MACHINE_PATHS: [&str; 5] = [
    concat!("/", "root/"),
    concat!("/", "home/"),
    concat!("/", "Users/"),
    concat!("/", "work/"),
    concat!("/", "tmp/target"),
];

/// The longest line of a comment, in characters: the width of the code, and a little for a last word.
const COMMENT_WIDTH_MAX: usize = 108;

/// Where packages come from is the user's configuration, so no file names a registry's host.
const REGISTRY_HOSTS: [&str; 6] = [
    concat!("//crates", ".io"),
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("registry.npmjs", ".org"),
];

/// Lines end where their text ends, files end with a line, and Rust is indented with spaces.
pub(super) fn white_space(tree: &Tree) -> Vec<Finding> {
    let mut findings = each_line(tree, |file, line| {
        if line.ends_with([' ', '\t', '\r']) {
            return Some("white space at the end of the line".to_owned());
        }
        let tab = file.path.ends_with(".rs") && line.contains('\t');
        tab.then(|| "a tab".to_owned())
    });
    let unended = |file: &&TextFile| !file.text.is_empty() && !file.text.ends_with('\n');
    findings.extend(tree.files.iter().filter(unended).map(|file| {
        let last = file.text.lines().count();
        Finding::new(&file.path, last, "no line feed at the end of the file")
    }));
    findings
}

/// A comment in Rust does not run out of the window, unless it is a table or an address, which cannot
/// be wrapped.
pub(super) fn comment_width(tree: &Tree) -> Vec<Finding> {
    each_line(tree, |file, line| {
        let comment = line.trim_start();
        let text = comment.trim_start_matches(['/', '!']).trim_start();
        let may_be_long = text.starts_with('|') || text.contains("://");
        if !file.path.ends_with(".rs") || !comment.starts_with("//") || may_be_long {
            return None;
        }
        let width = line.chars().count();
        (width > COMMENT_WIDTH_MAX).then(|| {
            format!("a comment of {width} characters, which is more than {COMMENT_WIDTH_MAX}")
        })
    })
}

/// No file knows whose machine it was written on.
pub(super) fn machine_path(tree: &Tree) -> Vec<Finding> {
    each_line(tree, |_, line| {
        let path = MACHINE_PATHS.iter().find(|path| starts_a_path(line, path))?;
        Some(format!("`{path}` is a path of one machine"))
    })
}

/// No file says where packages are fetched from.
pub(super) fn registry_host(tree: &Tree) -> Vec<Finding> {
    each_line(tree, |_, line| {
        let host = REGISTRY_HOSTS.iter().find(|host| line.contains(*host))?;
        Some(format!("`{host}` is the host of a registry"))
    })
}

/// Whether `line` holds `path` at the start of a path, not in the middle of one.
fn starts_a_path(line: &str, path: &str) -> bool {
    let continues = |before: &str| {
        before.ends_with(|c: char| c.is_alphanumeric() || "_-.~}/".contains(c))
            && !before.ends_with("//")
    };
    line.match_indices(path).any(|(at, _)| !continues(&line[..at]))
}

/// Asks `check` about every line of every file.
fn each_line(tree: &Tree, check: impl Fn(&TextFile, &str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        // Not `lines()`, which hides a carriage return.
        for (index, line) in file.text.split('\n').enumerate() {
            let what = check(file, line);
            findings.extend(what.map(|what| Finding::new(&file.path, index + 1, what)));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn stray_white_space_is_found() {
        check(
            white_space,
            &[
                ("a.rs", "fn a() {}\n\tfn b() {}\n"),
                ("b.toml", "a = 1 \n\nb = 2\r\n"),
                ("c.md", "No end"),
                ("Makefile", "all:\n\ttrue\n"),
                ("empty", ""),
            ],
            &[
                "a.rs:2: a tab",
                "b.toml:1: white space at the end of the line",
                "b.toml:3: white space at the end of the line",
                "c.md:1: no line feed at the end of the file",
            ],
        );
    }

    #[test]
    fn a_comment_that_runs_out_of_the_window_is_found() {
        let long = "x".repeat(COMMENT_WIDTH_MAX - 3);
        check(
            comment_width,
            &[
                ("a.rs", &format!("// {long}\n//  {long}\nfn a() {{}} // {long}{long}\n")),
                ("b.rs", &format!("    /// {long}\n/// | {long}\n// See https://{long}\n")),
                ("c.md", &format!("//  {long}\n")),
            ],
            &[
                "a.rs:2: a comment of 109 characters, which is more than 108",
                "b.rs:1: a comment of 113 characters, which is more than 108",
            ],
        );
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        let [root, home, _, work, target] = MACHINE_PATHS;
        check(
            machine_path,
            &[
                ("a.md", &format!("See `{root}notes`.\n")),
                ("b.toml", &format!("path = \"{home}me\"\n")),
                ("c.md", &format!("file://{work}a\nexport T={target}-a\n")),
                ("d.md", &format!("docs{work}a, ~{work}a, ../..{home}a, $A{root}\n")),
            ],
            &[
                &format!("a.md:1: `{root}` is a path of one machine"),
                &format!("b.toml:1: `{home}` is a path of one machine"),
                &format!("c.md:1: `{work}` is a path of one machine"),
                &format!("c.md:2: `{target}` is a path of one machine"),
            ],
        );
    }

    #[test]
    fn a_registry_is_found() {
        let [_, index, ..] = REGISTRY_HOSTS;
        check(
            registry_host,
            &[
                ("a.toml", &format!("registry = \"sparse+https://{index}/\"\n")),
                // The identity cargo writes for its default registry, wherever it fetches from.
                (
                    "Cargo.lock",
                    "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n",
                ),
                ("b.md", "Published on crates.io.\n"),
            ],
            &[&format!("a.toml:1: `{index}` is the host of a registry")],
        );
    }
}

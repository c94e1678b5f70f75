//! The house rules that neither rustfmt nor clippy knows.
//!
//! [`RULES`] lists them. Each is a function from the text files of the repository to what it finds
//! wrong, so each is tested on a few lines of text, without a repository.
//!
//! # Invariants
//! 1. Rules only read, and look at nothing but the [`Tree`].
//! 2. Every finding of every rule is printed, in one run.

mod code;
mod documents;
mod text;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::process;
use crate::source::Source;

/// One rule: how it is called in the output, and what it finds.
struct Rule {
    name: &'static str,
    check: fn(&Tree) -> Vec<Finding>,
}

/// All rules, in the order of their output.
const RULES: &[Rule] = &[
    Rule { name: "header", check: code::header },
    Rule { name: "unsafe-ban", check: code::unsafe_ban },
    Rule { name: "safety-comment", check: code::safety_comment },
    Rule { name: "safety-section", check: code::safety_section },
    Rule { name: "file-name", check: code::file_name },
    Rule { name: "unfinished", check: code::unfinished },
    Rule { name: "function-length", check: code::function_length },
    Rule { name: "file-length", check: code::file_length },
    Rule { name: "white-space", check: text::white_space },
    Rule { name: "comment-width", check: text::comment_width },
    Rule { name: "machine-path", check: text::machine_path },
    Rule { name: "registry-host", check: text::registry_host },
    Rule { name: "dependencies", check: documents::dependencies },
    Rule { name: "decisions", check: documents::decisions },
    Rule { name: "links", check: documents::links },
];

/// The text files of the repository.
#[derive(Default)]
struct Tree {
    /// All of them, in the order of their paths.
    files: Vec<TextFile>,
    /// The Rust files among them, scanned.
    sources: Vec<Source>,
}

/// A file that is UTF-8 throughout.
struct TextFile {
    /// Relative to the root, with `/` between the parts.
    path: String,
    text: String,
}

/// Something that breaks a rule.
#[derive(Debug)]
struct Finding {
    path: String,
    /// Counts from 1.
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

impl Tree {
    /// Reads what git holds or would add.
    fn read(root: &Path) -> anyhow::Result<Self> {
        let mut list = Command::new("git");
        list.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]);
        let list = process::capture(list.current_dir(root)).context("git cannot list the files")?;
        let mut paths: Vec<_> = list.split_terminator('\0').collect();
        paths.sort_unstable();
        paths.dedup();
        let mut tree = Self::default();
        for path in paths {
            // A file that git holds may be gone, and a file may be binary: neither has text.
            if let Ok(text) = fs::read_to_string(root.join(path)) {
                tree.add(path, text);
            }
        }
        Ok(tree)
    }

    fn add(&mut self, path: &str, text: String) {
        if path.ends_with(".rs") {
            self.sources.push(Source::new(path, text.clone()));
        }
        self.files.push(TextFile { path: path.to_owned(), text });
    }

    /// The file at `path`, if there is one.
    fn file(&self, path: &str) -> Option<&TextFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether `path` is a file, or a folder with a file in it.
    fn holds(&self, path: &str) -> bool {
        let inside = |file: &TextFile| {
            file.path
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        path.is_empty() || self.files.iter().any(inside)
    }
}

/// Holds the repository at `root` against every rule.
///
/// # Errors
/// Git cannot list the files, or a rule is broken; every finding is printed.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let tree = Tree::read(root)?;
    let mut count = 0;
    for rule in RULES {
        for finding in (rule.check)(&tree) {
            process::say(format!("{finding} [{}]", rule.name));
            count += 1;
        }
    }
    if count > 0 {
        bail!("the house rules are broken in {count} places");
    }
    println!("tidy: {} rules hold for {} text files", RULES.len(), tree.files.len());
    Ok(())
}

/// Holds a tree of a few files against one rule, for the tests of the rules.
#[cfg(test)]
fn check(rule: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)], expected: &[&str]) {
    let mut tree = Tree::default();
    for (path, text) in files {
        tree.add(path, (*text).to_owned());
    }
    let found: Vec<_> = rule(&tree).iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

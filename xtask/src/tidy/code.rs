//! Rules about Rust sources.

use super::{Finding, Tree};
use crate::source::Source;

/// The longest function that fits a screen, in lines from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// What a comment above a longer function must say, followed by the reason.
const LONG_FUNCTION_MARKER: &str = "// tidy: long because ";

/// The longest file, in lines outside its test modules.
const FILE_LINES_MAX: usize = 600;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 4] = ["utils", "common", "helpers", "prelude"];

/// The crates that may hold unsafe code, in the files that allow it.
const MAY_BE_UNSAFE: [&str; 3] =
    ["crates/aegis-cuda/", "crates/aegis-backend-", "crates/aegis-bench/"];

/// Every file opens with one line that says what it is.
pub(super) fn header(tree: &Tree) -> Vec<Finding> {
    let opens_well = |source: &&Source| {
        let first = source.text.lines().next().unwrap_or_default();
        first.starts_with("//! ") && first.ends_with('.')
    };
    let bad = tree.sources.iter().filter(|source| !opens_well(source));
    bad.map(|source| {
        Finding::new(&source.path, 1, "the first line is not `//! A noun phrase.` on one line")
    })
    .collect()
}

/// Every crate root forbids unsafe code, or denies it where some of its files may allow it.
pub(super) fn unsafe_ban(tree: &Tree) -> Vec<Finding> {
    let is_root = |source: &&Source| {
        source.path.ends_with("/src/lib.rs") || source.path.ends_with("/src/main.rs")
    };
    let lacks_ban = |source: &Source| {
        let trusted = MAY_BE_UNSAFE.iter().any(|folder| source.path.starts_with(folder));
        let level = if trusted { "deny" } else { "forbid" };
        let ban = ["#", "!", "[", level, "(", "unsafe_code", ")", "]"];
        let found = source.find("#").any(|index| source.reads(index, &ban));
        (!found).then(|| {
            Finding::new(&source.path, 1, format!("`#![{level}(unsafe_code)]` is missing"))
        })
    };
    tree.sources.iter().filter(is_root).filter_map(lacks_ban).collect()
}

/// Every unsafe block and implementation says above it why it is sound.
pub(super) fn safety_comment(tree: &Tree) -> Vec<Finding> {
    let check = |source: &Source, index: usize| {
        let what = match source.word(index + 1) {
            "{" => "an unsafe block",
            "impl" => "an unsafe implementation",
            _ => return None,
        };
        let line = source.line(index);
        let argued = above_statement(source, line).any(|text| text.starts_with("// SAFETY:"));
        (!argued).then(|| {
            Finding::new(&source.path, line, format!("{what} has no `// SAFETY:` above it"))
        })
    };
    each_index(tree, "unsafe", check)
}

/// Every unsafe function and trait documents what its user must uphold.
pub(super) fn safety_section(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let functions = source.functions().into_iter();
        let ours = functions.filter(|function| function.is_unsafe && !function.in_trait_impl);
        let traits = source.find("unsafe").filter(|index| source.word(index + 1) == "trait");
        let lines = ours.map(|function| *function.lines.start());
        for line in lines.chain(traits.map(|index| source.line(index))) {
            if !above(source, line).any(|text| text == "/// # Safety") {
                let what = "its documentation has no `# Safety` section";
                findings.push(Finding::new(&source.path, line, what));
            }
        }
    }
    findings
}

/// No file or folder has a name that could hold anything.
pub(super) fn file_name(tree: &Tree) -> Vec<Finding> {
    let empty_name = |source: &Source| {
        let parts = source.path.split('/').map(|part| part.trim_end_matches(".rs"));
        let name = parts.into_iter().find(|part| EMPTY_NAMES.contains(part))?;
        Some(Finding::new(&source.path, 1, format!("the name `{name}` says nothing")))
    };
    tree.sources.iter().filter_map(empty_name).collect()
}

/// No placeholder or debugging aid is left outside tests.
pub(super) fn unfinished(tree: &Tree) -> Vec<Finding> {
    let check = |source: &Source, index: usize| {
        let line = source.line(index);
        let in_test = source.test_lines().iter().any(|lines| lines.contains(&line));
        if source.word(index + 1) != "!" || source.is_test_file() || in_test {
            return None;
        }
        Some(Finding::new(&source.path, line, format!("`{}!` is left", source.word(index))))
    };
    ["todo", "unimplemented", "dbg"]
        .into_iter()
        .flat_map(|word| each_index(tree, word, check))
        .collect()
}

/// Functions fit a screen, or say why not.
pub(super) fn function_length(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        for function in source.functions() {
            let start = *function.lines.start();
            let length = function.lines.count();
            let excused =
                || above(source, start).any(|text| text.starts_with(LONG_FUNCTION_MARKER));
            if length > FUNCTION_LINES_MAX && !excused() {
                let what = format!(
                    "`{}` has {length} lines, more than {FUNCTION_LINES_MAX}",
                    function.name
                );
                findings.push(Finding::new(&source.path, start, what));
            }
        }
    }
    findings
}

/// Files hold one concept.
pub(super) fn file_length(tree: &Tree) -> Vec<Finding> {
    let too_long = |source: &Source| {
        let tests: usize = source.test_lines().into_iter().map(Iterator::count).sum();
        let length = source.text.lines().count().saturating_sub(tests);
        (length > FILE_LINES_MAX).then(|| {
            let what = format!("{length} lines outside tests, more than {FILE_LINES_MAX}");
            Finding::new(&source.path, 1, what)
        })
    };
    tree.sources.iter().filter(|source| !source.is_test_file()).filter_map(too_long).collect()
}

/// Asks `check` about every token that reads `word`.
fn each_index(
    tree: &Tree,
    word: &str,
    check: impl Fn(&Source, usize) -> Option<Finding>,
) -> Vec<Finding> {
    let of = |source| Source::find(source, word).filter_map(|index| check(source, index));
    tree.sources.iter().flat_map(of).collect()
}

/// The comments and attributes directly above `line`, nearest first, without their indentation.
fn above(source: &Source, line: usize) -> impl Iterator<Item = &str> {
    let mut in_attribute = false;
    lines_above(source, line).take_while(move |text| {
        // Backwards, an attribute over several lines begins with its last one.
        in_attribute = (in_attribute || *text == ")]") && !text.starts_with("#[");
        in_attribute || text.starts_with("//") || text.starts_with("#[")
    })
}

/// As [`above`], but for the statement that `line` belongs to.
fn above_statement(source: &Source, line: usize) -> impl Iterator<Item = &str> {
    let ends_something = |text: &str| text.is_empty() || text.ends_with([';', '{', '}', ',']);
    let before = lines_above(source, line)
        .take_while(|text| !text.starts_with("//") && !text.starts_with("#["))
        .take_while(|text| !ends_something(text))
        .count();
    above(source, line - before)
}

/// The lines above `line`, nearest first, without their indentation.
fn lines_above(source: &Source, line: usize) -> impl Iterator<Item = &str> {
    let before: Vec<_> = source.text.lines().take(line.saturating_sub(1)).collect();
    before.into_iter().rev().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn a_file_without_a_header_is_found() {
        check(
            header,
            &[
                ("good.rs", "//! The loop.\nfn a() {}\n"),
                ("none.rs", "fn a() {}\n"),
                ("no_stop.rs", "//! The loop\n"),
            ],
            &[
                "none.rs:1: the first line is not `//! A noun phrase.` on one line",
                "no_stop.rs:1: the first line is not `//! A noun phrase.` on one line",
            ],
        );
    }

    #[test]
    fn a_crate_root_without_a_ban_on_unsafe_code_is_found() {
        check(
            unsafe_ban,
            &[
                ("crates/a/src/lib.rs", "#![forbid(unsafe_code)]\n"),
                ("crates/a/src/b.rs", ""),
                ("crates/c/src/main.rs", "// #![forbid(unsafe_code)]\n"),
                ("crates/aegis-cuda/src/lib.rs", "#![deny(unsafe_code)]\n"),
                ("crates/aegis-backend-onnx/src/lib.rs", ""),
            ],
            &[
                "crates/c/src/main.rs:1: `#![forbid(unsafe_code)]` is missing",
                "crates/aegis-backend-onnx/src/lib.rs:1: `#![deny(unsafe_code)]` is missing",
            ],
        );
    }

    #[test]
    fn unsafe_without_an_argument_is_found() {
        let good = "// SAFETY: 1. it is ours,\n// 2. and alone.\nlet a =\n    unsafe { b() };\n\
                    // SAFETY: no state.\n#[rustfmt::skip]\nunsafe impl Send for A {}\n";
        let bad = "// SAFETY: of something else.\nc();\nlet a = unsafe { b() };\n\
                   // Unsafe, but why?\nunsafe impl Send for A {}\n";
        check(
            safety_comment,
            &[("good.rs", good), ("bad.rs", bad)],
            &[
                "bad.rs:3: an unsafe block has no `// SAFETY:` above it",
                "bad.rs:5: an unsafe implementation has no `// SAFETY:` above it",
            ],
        );
    }

    #[test]
    fn an_unsafe_function_without_a_contract_is_found() {
        let good = "/// A.\n///\n/// # Safety\n/// `b` is ours.\n#[expect(\n    dead_code,\n)]\n\
                    pub(crate) unsafe fn a(b: *const u8) {}\n\
                    unsafe impl A for B {\n    unsafe fn a() {}\n}\n";
        let bad = "/// A.\npub unsafe fn a() {}\nunsafe trait B {}\n";
        check(
            safety_section,
            &[("good.rs", good), ("bad.rs", bad)],
            &[
                "bad.rs:2: its documentation has no `# Safety` section",
                "bad.rs:3: its documentation has no `# Safety` section",
            ],
        );
    }

    #[test]
    fn a_name_for_anything_is_found() {
        check(
            file_name,
            &[("src/ring.rs", ""), ("src/utils.rs", ""), ("tests/common/mod.rs", "")],
            &[
                "src/utils.rs:1: the name `utils` says nothing",
                "tests/common/mod.rs:1: the name `common` says nothing",
            ],
        );
    }

    #[test]
    fn unfinished_code_is_found_outside_tests() {
        let text = "fn a() { todo!() }\n// todo!()\n#[cfg(test)]\nmod tests {\n    fn b() { todo!() }\n}\n\
                    fn c() { dbg!(1); let todo = 1; }\n";
        check(
            unfinished,
            &[("src/a.rs", text), ("crates/a/tests/b.rs", "fn a() { unimplemented!() }")],
            &["src/a.rs:1: `todo!` is left", "src/a.rs:7: `dbg!` is left"],
        );
    }

    #[test]
    fn a_function_longer_than_a_screen_is_found_unless_it_says_why() {
        let body = |lines: usize| format!("fn a() {{\n{}}}\n", "b();\n".repeat(lines - 2));
        let excused = format!("// tidy: long because it mirrors a proof.\n#[inline]\n{}", body(71));
        check(
            function_length,
            &[("fits.rs", &body(70)), ("excused.rs", &excused), ("long.rs", &body(71))],
            &["long.rs:1: `a` has 71 lines, more than 70"],
        );
    }

    #[test]
    fn a_long_file_is_found_its_tests_apart() {
        let lines = |count: usize| "fn a() {}\n".repeat(count);
        let with_tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(600), lines(9));
        check(
            file_length,
            &[
                ("src/tested.rs", &with_tests),
                ("crates/a/tests/long.rs", &lines(601)),
                ("src/long.rs", &lines(601)),
            ],
            &["src/long.rs:1: 601 lines outside tests, more than 600"],
        );
    }
}

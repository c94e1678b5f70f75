//! A Rust source file, split into what the compiler reads and what it skips.
//!
//! The checks of this tool ask where a name, an `unsafe` block or a function stands. A parser
//! would answer that and a hundred questions more; a scanner that knows comments and literals is
//! enough, has no dependencies and reads a file that does not compile yet.
//!
//! # Invariants
//! 1. A token comes from code: no comment, string or character literal yields one.
//! 2. Lines count from 1, and a range of lines includes both its ends.
//! 3. Reading never fails: broken code gives fewer tokens or items, not an error, since the
//!    compiler is the one to complain about it.

use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context;

/// One Rust file and its tokens.
pub(crate) struct Source {
    /// Relative to the workspace root, with `/` between the parts.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
    tokens: Vec<Token>,
}

/// A word, or one character of punctuation.
struct Token {
    bytes: Range<usize>,
    line: usize,
}

/// A function with or without a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// From the line that says `fn` to the line that ends the body.
    pub(crate) lines: RangeInclusive<usize>,
    pub(crate) is_unsafe: bool,
    /// It fulfils a trait, whose documentation is its own.
    pub(crate) in_trait_impl: bool,
}

impl Source {
    /// Scans `text`.
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let tokens = tokens(&text);
        Self { path: path.into(), text, tokens }
    }

    /// The token at `index`, or nothing past the end.
    pub(crate) fn word(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |token| &self.text[token.bytes.clone()])
    }

    /// The line of the token at `index`.
    pub(crate) fn line(&self, index: usize) -> usize {
        self.tokens.get(index).map_or(0, |token| token.line)
    }

    /// Where each token that reads `word` stands.
    pub(crate) fn find<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        (0..self.tokens.len()).filter(move |index| self.word(*index) == word)
    }

    /// Whether the tokens from `index` on read `words`.
    pub(crate) fn reads(&self, index: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(offset, word)| self.word(index + offset) == *word)
    }

    /// Whether the whole file serves tests or benches, by where it stands.
    pub(crate) fn is_test_file(&self) -> bool {
        let path = self.path.as_str();
        path.contains("/tests/") || path.ends_with("/tests.rs") || path.starts_with("benches/")
    }

    /// The lines of items that exist in tests alone, attribute included.
    pub(crate) fn test_lines(&self) -> Vec<RangeInclusive<usize>> {
        let attributes = self.find("#").filter(|index| self.is_cfg_test(*index));
        attributes
            .map(|index| {
                self.line(index)..=self.line(self.end_of_item(self.end_of_attributes(index)))
            })
            .collect()
    }

    /// Every function of the file, nested ones too.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let trait_impls = self.trait_impls();
        let named = self.find("fn").filter(|index| is_name(self.word(index + 1)));
        named
            .map(|index| Function {
                name: self.word(index + 1).to_owned(),
                lines: self.line(index)..=self.line(self.end_of_item(index)),
                is_unsafe: self.modifiers(index).any(|word| word == "unsafe"),
                in_trait_impl: trait_impls.iter().any(|body| body.contains(&index)),
            })
            .collect()
    }

    /// The words between the start of a function's declaration and its `fn`, last first.
    fn modifiers(&self, function: usize) -> impl Iterator<Item = &str> {
        let before = (0..function).rev().map(|index| self.word(index));
        before.take_while(|word| ["const", "async", "unsafe", "safe", "extern"].contains(word))
    }

    /// The tokens inside the braces of every `impl Trait for Type`.
    fn trait_impls(&self) -> Vec<Range<usize>> {
        let mut bodies = Vec::new();
        for start in self.find("impl") {
            let open = self.end_of_header(start);
            // `for<'a>` introduces lifetimes, not a type.
            let is_for = |index: usize| self.word(index) == "for" && self.word(index + 1) != "<";
            if self.word(open) == "{" && (start..open).any(is_for) {
                bodies.push(open..self.closing(open));
            }
        }
        bodies
    }

    /// Whether `#[cfg(..)]` with `test` in it, not negated, starts at `index`.
    fn is_cfg_test(&self, index: usize) -> bool {
        if !self.reads(index, &["#", "[", "cfg", "("]) {
            return false;
        }
        let inside = index..self.closing(index + 1);
        let says = |word: &str| inside.clone().any(|index| self.word(index) == word);
        says("test") && !says("not")
    }

    /// The first token after the attributes that start at `index`.
    fn end_of_attributes(&self, mut index: usize) -> usize {
        while self.reads(index, &["#", "["]) {
            index = self.closing(index + 1) + 1;
        }
        index
    }

    /// The last token of the item that starts at `index`: its `;` or the brace that closes it.
    fn end_of_item(&self, index: usize) -> usize {
        let end = self.end_of_header(index);
        if self.word(end) == "{" { self.closing(end) } else { end }
    }

    /// The `{`, `;` or unmatched closing bracket that ends what starts at `index`.
    fn end_of_header(&self, index: usize) -> usize {
        let mut at = index;
        while at < self.tokens.len() {
            match self.word(at) {
                "(" | "[" => at = self.closing(at),
                "{" | ";" | ")" | "]" | "}" => return at,
                _ => {}
            }
            at += 1;
        }
        self.tokens.len().saturating_sub(1)
    }

    /// The bracket that closes the one at `open`, or the last token when none does.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for index in open..self.tokens.len() {
            match self.word(index) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return index;
            }
        }
        self.tokens.len().saturating_sub(1)
    }
}

/// Reads every Rust file below `folder`; their paths are relative to `root`.
///
/// # Errors
/// A folder cannot be listed or a file cannot be read as UTF-8.
pub(crate) fn read_folder(root: &Path, folder: &Path) -> anyhow::Result<Vec<Source>> {
    let files = files_below(folder).with_context(|| folder.display().to_string())?;
    let rust = files.iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.map(|path| {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let path = path.strip_prefix(root).unwrap_or(path);
        Ok(Source::new(path.to_string_lossy(), text))
    })
    .collect()
}

/// Every file below `folder`, in the order of their names.
///
/// # Errors
/// A folder cannot be listed.
pub(crate) fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Whether `word` can name an item.
fn is_name(word: &str) -> bool {
    word.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_')
}

/// Splits `text`, leaving out white space, comments and literals.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let skipped = skipped_len(rest);
        let length = if skipped > 0 {
            skipped
        } else {
            let length = word_len(rest).max(first.len_utf8());
            tokens.push(Token { bytes: at..at + length, line });
            length
        };
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

/// How many bytes at the start of `rest` are white space, a comment or a literal.
fn skipped_len(rest: &str) -> usize {
    if rest.starts_with(char::is_whitespace) {
        rest.len() - rest.trim_start().len()
    } else if rest.starts_with("//") {
        rest.find('\n').unwrap_or(rest.len())
    } else if rest.starts_with("/*") {
        block_comment_len(rest)
    } else if rest.starts_with('"') {
        quoted_len(rest, '"')
    } else if rest.starts_with('\'') {
        character_len(rest)
    } else {
        prefixed_len(rest)
    }
}

/// Block comments nest.
fn block_comment_len(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// A literal that ends at the next `quote` with no backslash before it.
fn quoted_len(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// A character literal, or nothing where the apostrophe begins a lifetime.
fn character_len(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => quoted_len(rest, '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// A string or character literal that begins with letters: `b".."`, `c".."`, `r#".."#`.
fn prefixed_len(rest: &str) -> usize {
    let word = word_len(rest);
    let (prefix, literal) = rest.split_at(word);
    let length = match prefix {
        "b" if literal.starts_with('\'') => character_len(literal),
        "b" | "c" if literal.starts_with('"') => quoted_len(literal, '"'),
        "r" | "br" | "cr" => raw_len(literal),
        _ => 0,
    };
    if length == 0 { 0 } else { word + length }
}

/// A raw string from its first `#` or quote on; nothing for a raw identifier.
fn raw_len(literal: &str) -> usize {
    let hashes = literal.len() - literal.trim_start_matches('#').len();
    if !literal[hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = hashes + 1;
    literal[body..].find(&end).map_or(literal.len(), |at| body + at + end.len())
}

/// How many bytes at the start of `rest` make one word.
fn word_len(rest: &str) -> usize {
    rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        let source = Source::new("a.rs", text);
        let words: Vec<_> = (0..source.tokens.len()).map(|index| source.word(index)).collect();
        words.join(" ")
    }

    #[test]
    fn comments_and_literals_yield_no_token() {
        assert_eq!(words("a /* b /* c */ d */ e // f\ng"), "a e g");
        assert_eq!(words(r##"a "b\"c" d r#"e"f"# g b"h" i"##), "a d g i");
        assert_eq!(words(r"a 'b' '\'' '\\' c"), "a c");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(words("&'a T"), "& ' a T");
        assert_eq!(words("r#type"), "r # type");
    }

    #[test]
    fn lines_are_counted_through_literals() {
        let source = Source::new("a.rs", "\"one\ntwo\"\n/* three\nfour */ five");
        assert_eq!(source.line(0), 4);
    }

    #[test]
    fn functions_know_their_extent_and_their_modifiers() {
        let text = "pub(crate) const unsafe fn first<T>(t: [u8; 3]) -> T {\n  {}\n}\nfn second();";
        let functions = Source::new("a.rs", text).functions();
        let summary: Vec<_> =
            functions.iter().map(|f| (f.name.as_str(), f.lines.clone(), f.is_unsafe)).collect();
        assert_eq!(summary, [("first", 1..=3, true), ("second", 4..=4, false)]);
    }

    #[test]
    fn a_pointer_to_a_function_is_not_a_function() {
        assert_eq!(Source::new("a.rs", "type F = unsafe extern \"C\" fn(u32);").functions(), []);
    }

    #[test]
    fn methods_of_traits_are_told_from_inherent_ones() {
        let text = "impl A for B where F: for<'a> C<'a> { fn a() {} }\n\
                    impl<F: for<'a> C<'a>> B { fn b() {} }\n\
                    fn c(x: impl A) { for i in x { } }";
        let functions = Source::new("a.rs", text).functions();
        let in_trait_impl: Vec<_> = functions.iter().map(|f| f.in_trait_impl).collect();
        assert_eq!(in_trait_impl, [true, false, false]);
    }

    #[test]
    fn test_items_are_found_with_their_attributes() {
        let text = "fn a() {}\n#[cfg(test)]\n#[path = \"x\"]\nmod tests {\n}\n#[cfg(not(test))]\nfn b() {}";
        assert_eq!(Source::new("a.rs", text).test_lines(), [2..=5]);
    }
}

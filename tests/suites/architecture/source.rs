//! Reads source files: which there are, and what of their text is production code.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::root;

/// What no guard looks into.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// One Rust file of a crate's `src`.
pub(super) struct RustFile {
    /// From the repository's root, with `/`.
    pub(super) path: String,
    /// The code without comments and without the insides of literals, up to the inline test module. Lines and columns
    /// are those of the file.
    pub(super) code: String,
    /// Lines up to the inline test module, comments included.
    pub(super) lines: usize,
}

/// All files under `folder`, sorted.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // In a linked work tree, `.git` is a file.
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// A path as faults name it: from the repository's root.
pub(super) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The production files of `crates`' `src` folders: no file that is only compiled for tests.
pub(super) fn production(crates: &[&str]) -> Vec<RustFile> {
    let mut production = Vec::new();
    for name in crates {
        let all: Vec<_> = files(&root().join(name).join("src"))
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .map(|path| (fs::read_to_string(&path).unwrap(), path))
            .collect();
        let tests: Vec<PathBuf> = all.iter().flat_map(|(text, path)| test_modules(text, path)).collect();
        production.extend(
            all.iter()
                .filter(|(_, path)| {
                    !tests.iter().any(|test| path.starts_with(test) || *path == test.with_extension("rs"))
                })
                .map(|(text, path)| rust_file(text, path)),
        );
    }
    production
}

fn rust_file(text: &str, path: &Path) -> RustFile {
    let code = code_only(text);
    let end = inline_tests(&code).unwrap_or(code.len());
    let code = code.get(..end).unwrap().to_owned();
    RustFile { path: shown(path), lines: code.lines().count(), code }
}

/// Where the inline test module begins: its `#[cfg(test)]`.
fn inline_tests(code: &str) -> Option<usize> {
    code.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|at| {
        let item = code.get(*at..).unwrap().split_inclusive(['{', ';']).next().unwrap_or_default();
        item.contains("mod ") && item.ends_with('{')
    })
}

/// Files and folders of `#[cfg(test)] mod name;`, without extension.
fn test_modules(text: &str, path: &Path) -> Vec<PathBuf> {
    let code = code_only(text);
    let folder = path.parent().unwrap();
    code.match_indices("#[cfg(test)]")
        .filter_map(|(at, _)| code.get(at..)?.split_inclusive(['{', ';']).next())
        .filter_map(|item| {
            item.strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| folder.join(name.trim()))
        })
        .collect()
}

/// The text with comments and the insides of string and character literals made blank. Newlines stay.
pub(super) fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped(rest, &code);
        if skipped > 0 {
            let (blank, after) = rest.split_at(skipped);
            code.extend(blank.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = after;
        } else {
            code.push(first);
            rest = rest.get(first.len_utf8()..).unwrap();
        }
    }
    code
}

/// Bytes of the comment or literal that `rest` begins with; 0 if it begins with code.
fn skipped(rest: &str, before: &str) -> usize {
    let in_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        rest.find('\n').unwrap_or(rest.len())
    } else if rest.starts_with("/*") {
        rest.find("*/").map_or(rest.len(), |end| end + 2)
    } else if rest.starts_with('"') {
        quoted(rest, '"')
    } else if let Some(raw) = rest.strip_prefix('r').or_else(|| rest.strip_prefix("br")).filter(|_| !in_word)
    {
        let hashes = raw.bytes().take_while(|byte| *byte == b'#').count();
        let end = format!("\"{}", "#".repeat(hashes));
        match raw.get(hashes..).and_then(|body| body.strip_prefix('"')) {
            Some(body) => rest.len() - body.len() + body.find(&end).unwrap() + end.len(),
            None => 0,
        }
    } else if rest.starts_with('\'') && is_character(rest) {
        quoted(rest, '\'')
    } else {
        0
    }
}

/// `'a'` or `'\n'`, and not the lifetime `'a`.
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The line, counted from 1, of a place in `code`.
pub(super) fn line_of(code: &str, at: usize) -> usize {
    code.get(..at).unwrap().matches('\n').count() + 1
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a /* { */ \"{ \\\" }\" r#\"{\"\"#; // crate::x\nfn f<'a>() { '{'; b'}'; '\\''; }";
    let code = code_only(text);
    assert_eq!(code.matches('{').count(), 1, "{code}");
    assert_eq!(code.matches('}').count(), 1, "{code}");
    assert!(!code.contains("crate::") && code.contains("fn f<'a>()") && code.contains('\n'), "{code}");
}

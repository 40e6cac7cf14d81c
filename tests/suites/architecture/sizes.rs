//! Sizes, as a report and with ceilings. `cargo test sizes -- --nocapture` prints it.
//!
//! A file's lines are all those before its inline tests, comments included; a function's lines are those that hold
//! code, from `fn` to the closing brace.

use super::{
    assert_none,
    source::{RustFile, line_of, production},
};

/// Crates that are measured.
const CRATES: [&str; 4] = ["sidecar", "certs", "injector", "examples"];
/// Not written by hand.
const GENERATED: [&str; 2] = ["certs/src/api/", "sidecar/src/discovery/controller/api/"];
/// Lines of a file.
const FILE_CEILING: usize = 400;
/// Files that may have more, up to 600 lines, and why.
const LARGER_FILES: &[(&str, usize, &str)] = &[];
/// Lines of a function that hold code.
const FUNCTION_CEILING: usize = 70;
/// How many of the largest are reported.
const SHOWN: usize = 8;

/// One function.
struct Function {
    place: String,
    lines: usize,
}

fn measured(name: &str) -> Vec<RustFile> {
    production(&[name])
        .into_iter()
        .filter(|file| !GENERATED.iter().any(|generated| file.path.starts_with(generated)))
        .collect()
}

fn functions(file: &RustFile) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in file.code.match_indices("fn ") {
        let is_item = file.code.get(..at).unwrap().ends_with([' ', '\n', '(']) || at == 0;
        let rest = file.code.get(at + 3..).unwrap();
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if let Some(body) = body(rest).filter(|_| is_item && !name.is_empty()) {
            let lines = body.lines().filter(|line| !line.trim().is_empty()).count();
            found
                .push(Function { place: format!("{}:{} {name}", file.path, line_of(&file.code, at)), lines });
        }
    }
    found
}

/// Signature and body of the function that `rest` is in; `None` for a signature without a body.
fn body(rest: &str) -> Option<&str> {
    let open = rest.find(['{', ';']).filter(|at| rest.get(*at..).unwrap().starts_with('{'))?;
    let mut depth = 0;
    for (at, c) in rest.char_indices().skip_while(|(at, _)| *at < open) {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return rest.get(..=at);
        }
    }
    None
}

#[test]
fn sizes_are_within_their_ceilings() {
    let (mut faults, mut files, mut all_functions) = (Vec::new(), Vec::new(), Vec::new());
    for name in CRATES {
        let measured = measured(name);
        println!(
            "{name}: {} files, {} lines",
            measured.len(),
            measured.iter().map(|f| f.lines).sum::<usize>()
        );
        all_functions.extend(measured.iter().flat_map(functions));
        files.extend(measured);
    }
    files.sort_by_key(|file| std::cmp::Reverse(file.lines));
    all_functions.sort_by_key(|function| std::cmp::Reverse(function.lines));
    for file in files.iter().take(SHOWN) {
        println!("{:4} lines  {}", file.lines, file.path);
    }
    for function in all_functions.iter().take(SHOWN) {
        println!("{:4} lines  {}", function.lines, function.place);
    }

    for file in &files {
        let larger = LARGER_FILES.iter().find(|(path, ..)| *path == file.path);
        let ceiling = larger.map_or(FILE_CEILING, |(_, ceiling, _)| *ceiling);
        if file.lines > ceiling {
            faults.push(format!("{} has {} lines, at most {ceiling}", file.path, file.lines));
        }
    }
    for function in all_functions.iter().filter(|function| function.lines > FUNCTION_CEILING) {
        faults.push(format!("{} has {} lines, at most {FUNCTION_CEILING}", function.place, function.lines));
    }
    assert_none("Too long:", &faults);
}

#[test]
fn every_larger_file_is_there_and_has_a_reason() {
    let files: Vec<_> = CRATES.into_iter().flat_map(measured).collect();
    for (path, ceiling, reason) in LARGER_FILES {
        assert!((FILE_CEILING..=600).contains(ceiling) && !reason.is_empty(), "{path}");
        assert!(
            files.iter().any(|file| file.path == *path && file.lines > FILE_CEILING),
            "{path} is not larger"
        );
    }
}

#[test]
fn a_function_is_measured_from_its_name_to_its_brace() {
    let code =
        "trait T { fn none(&self); }\nfn two(x: u8) -> u8 {\n\n    if x > 0 { 1 } else { 2 } }\n".to_owned();
    let found = functions(&RustFile { path: "x.rs".to_owned(), lines: 4, code });
    let lines: Vec<_> = found.iter().map(|f| (f.place.as_str(), f.lines)).collect();
    assert_eq!(lines, [("x.rs:2 two", 2)]);
}

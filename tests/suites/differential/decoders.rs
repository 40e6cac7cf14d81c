//! What readers do with a path that they get, one thing after the other. Also used by the fuzz targets.

use std::fmt::Write as _;

/// Something that one reader or another does with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Escapes become bytes, those that are none stay.
    Decode,
    /// Segments end at `;`.
    Parameters,
    /// The path ends at `?` and `#`.
    Query,
    /// `\` is `/`.
    Backslashes,
    /// `//` is `/`.
    Merge,
    /// `.` and `..` are resolved; above the root is the root.
    Dots,
    /// Spaces around a segment are nothing.
    Trim,
}

impl Step {
    const ALL: [Self; 7] =
        [Self::Decode, Self::Parameters, Self::Query, Self::Backslashes, Self::Merge, Self::Dots, Self::Trim];

    /// The path, as it is after this.
    pub(crate) fn take(self, path: &str) -> String {
        let segments = |change: fn(&str) -> &str| path.split('/').map(change).collect::<Vec<_>>().join("/");
        match self {
            Self::Decode => decoded(path),
            Self::Parameters => segments(|segment| segment.split(';').next().unwrap()),
            Self::Query => path.split(['?', '#']).next().unwrap().to_owned(),
            Self::Backslashes => path.replace('\\', "/"),
            Self::Merge => path.split('/').filter(|segment| !segment.is_empty()).fold(String::new(), joined),
            Self::Dots => path.split('/').skip(1).fold(String::new(), |out, segment| match segment {
                "." => out,
                ".." => out.rsplit_once('/').map(|(parent, _)| parent.to_owned()).unwrap_or_default(),
                _ => joined(out, segment),
            }),
            Self::Trim => segments(str::trim),
        }
    }
}

fn joined(mut out: String, segment: &str) -> String {
    let _ = write!(out, "/{segment}");
    out
}

/// Bytes are characters here: what they mean together is not looked at.
fn decoded(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out += before;
        rest = after;
        match after.get(..2).filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            Some(digits) => {
                out.push(char::from(u8::from_str_radix(digits, 16).unwrap()));
                rest = &after[2..];
            }
            None => out.push('%'),
        }
    }
    out + rest
}

/// Every sequence of up to three steps, with at most so many decodings.
pub(crate) fn readers(decodings: usize) -> Vec<Vec<Step>> {
    let mut all = Vec::new();
    let mut longest = vec![Vec::new()];
    for _ in 0..3 {
        let longer =
            longest.iter().flat_map(|steps: &Vec<Step>| Step::ALL.map(|step| [&steps[..], &[step]].concat()));
        longest = longer.collect();
        all.extend(longest.iter().cloned());
    }
    all.retain(|steps| steps.iter().filter(|step| **step == Step::Decode).count() <= decodings);
    all
}

/// The path that such a reader has in the end: where the file is, dots and empty segments are nothing.
pub(crate) fn read(path: &str, steps: &[Step]) -> String {
    let read = steps.iter().fold(path.to_owned(), |path, step| step.take(&path));
    Step::Dots.take(&Step::Merge.take(&read))
}

/// Whether a path is that prefix or below it.
pub(crate) fn is_in(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The prefixes that a rule could name: on borders of segments, in characters that nobody takes for anything else.
fn prefixes(path: &str) -> Vec<&str> {
    let is_plain = |prefix: &&str| {
        prefix.split('/').skip(1).all(|segment| {
            !segment.is_empty()
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        })
    };
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.skip(1).map(|end| &path[..end]).filter(is_plain).collect()
}

/// Whether no reader leaves a prefix of what is sent on; if one does, how.
pub(crate) fn stays(path: &str, readers: &[Vec<Step>]) -> Result<(), String> {
    let prefixes = prefixes(path);
    for steps in readers {
        let read = read(path, steps);
        if let Some(left) = prefixes.iter().find(|prefix| !is_in(&read, prefix)) {
            return Err(format!("{path}: read as {read} by {steps:?}, which is not in {left}"));
        }
    }
    Ok(())
}

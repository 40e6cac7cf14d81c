//! What a path is judged by and what the next hop gets is one text, and no reader of that text leaves what was allowed:
//! over the committed spellings and over made ones.

use outrider::canonical::{self, Care};

use super::{
    corpus,
    decoders::{Step, readers, stays},
};

/// The committed spellings.
const FILE: &str = "http1/paths.txt";
/// Spellings that are made.
const MADE: usize = 4_000;
/// What they are made of.
const PIECES: [&str; 44] = [
    "/",
    "/",
    "/",
    "/",
    "a",
    "b",
    "admin",
    "items",
    ".",
    "..",
    ".",
    "..",
    "%2e",
    "%2E",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    ";",
    ";x=1",
    "%3b",
    "%3f",
    "%23",
    "%25",
    "%",
    "%252e",
    "%252f",
    "%255c",
    "%61",
    "%41",
    "%20",
    "%00",
    "%0a",
    "%c3%a4",
    "%c0%af",
    "%c0%ae",
    "%e0%80%af",
    "//",
    "+",
    ",",
    ":",
    "~",
    "%7e",
    "\u{e4}",
];

fn made() -> Vec<String> {
    let mut rng = fastrand::Rng::with_seed(0x0D1F);
    let mut path = || {
        let length = rng.usize(1..9);
        (0..length).fold("/".to_owned(), |path, _| path + PIECES[rng.usize(..PIECES.len())])
    };
    (0..MADE).map(|_| path()).collect()
}

/// All spellings that are texts, without queries and fragments.
pub(super) fn spellings() -> Vec<String> {
    let committed =
        corpus::spellings(FILE).into_iter().filter_map(|spelling| String::from_utf8(spelling.sent).ok());
    let paths = committed.map(|sent| sent.split(['?', '#']).next().unwrap().to_owned());
    paths.chain(made()).collect()
}

#[test]
fn each_committed_spelling_has_the_canonical_form_that_the_file_says() {
    let mut wrong = Vec::new();
    for spelling in corpus::spellings(FILE) {
        // What is no target is refused before anything is decided, and a fragment is not part of one.
        let target = http::uri::PathAndQuery::from_maybe_shared(spelling.sent.clone()).ok();
        let path = target.as_ref().map_or("", |target| target.path());
        let query = target.as_ref().and_then(|target| target.query());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        for (care, expected) in [(Care::Plain, &spelling.plain), (Care::Judged, &spelling.judged)] {
            let found = canonical::path(path, care).ok().map(|path| format!("{path}{query}"));
            if found != *expected {
                wrong.push(format!(
                    "{}: {} {care:?}: {found:?}, not {expected:?}",
                    spelling.place, spelling.source
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_allowed_in_one_spelling_is_what_is_sent_on() {
    for spelling in spellings() {
        for care in [Care::Plain, Care::Judged] {
            let Ok(once) = canonical::path(&spelling, care) else { continue };
            assert_eq!(
                canonical::path(&once, care).as_deref(),
                Ok(&*once),
                "{spelling}: canonical is a fixed point"
            );
            let is_ascii =
                once.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}?#[]".contains(&byte));
            assert!(is_ascii, "{spelling}: {once}");
        }
        // What is judged with more care is a spelling of what is judged with less.
        if let (Ok(plain), Ok(judged)) =
            (canonical::path(&spelling, Care::Plain), canonical::path(&spelling, Care::Judged))
        {
            assert_eq!(canonical::path(&plain, Care::Judged).as_deref(), Ok(&*judged), "{spelling}");
        }
    }
}

#[test]
fn who_reads_by_the_standard_reads_in_what_was_sent_what_was_judged() {
    let read = |path: &str| {
        [Step::Decode, Step::Merge, Step::Dots].iter().fold(path.to_owned(), |path, step| step.take(&path))
    };
    for spelling in spellings() {
        if spelling.is_ascii()
            && let Ok(judged) = canonical::path(&spelling, Care::Judged)
        {
            assert_eq!(read(&spelling), read(&judged), "{spelling}: {judged}");
        }
    }
}

#[test]
fn no_reader_of_a_judged_path_leaves_what_was_allowed() {
    let readers = readers(2);
    let mut wrong = Vec::new();
    for spelling in spellings() {
        if let Ok(judged) = canonical::path(&spelling, Care::Judged) {
            wrong.extend(stays(&judged, &readers).err().map(|fault| format!("{spelling} → {fault}")));
        }
    }
    assert!(wrong.is_empty(), "{} leave: {:#?}", wrong.len(), &wrong[..wrong.len().min(40)]);
}

#[test]
fn no_reader_that_decodes_once_leaves_the_folder_of_any_path() {
    let readers = readers(1);
    let mut wrong = Vec::new();
    for spelling in spellings() {
        if let Ok(plain) = canonical::path(&spelling, Care::Plain) {
            wrong.extend(stays(&plain, &readers).err().map(|fault| format!("{spelling} → {fault}")));
        }
    }
    assert!(wrong.is_empty(), "{} leave: {:#?}", wrong.len(), &wrong[..wrong.len().min(40)]);
}

#[test]
fn the_model_of_readers_can_fail() {
    let readers = readers(2);
    for path in [
        "/items/..%2fadmin",
        "/items/..;/admin",
        "/items/%252e%252e/admin",
        "/items/..%5cadmin",
        "/items/..%3f",
    ] {
        assert!(stays(path, &readers).is_err(), "{path}");
    }
    assert_eq!(stays("/items/1/a-b", &readers), Ok(()));
}

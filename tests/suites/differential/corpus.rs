//! The committed cases, and how their files are written.
//!
//! ```text
//! == a name, as a sentence
//! POST / HTTP/1.1\r\n            what is sent: the file's own line ends are none, escapes are bytes (\r \n \t \0 \\ \xNN),
//! Host: orders\r\n               \(TEXT*N) is a text so many times
//! \r\n
//! -- 400 closed                  what comes of it, a line each: see `outcome`
//! -- node: 405                   at that server; nginx@mesh: at that server by that way; @mesh: by that way at any
//! ```
//! `<end>` in what is sent: the caller says no more, and no request follows. `# …` between cases is a comment. Of a file
//! of paths each line is a case: what is sent, what the servers see, and what they would if a rule looked at paths.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use super::outcome::Outcome;

/// What a caller writes to say that it says no more.
const END: &str = "<end>";

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    /// As the file has it, comments before it included.
    source: String,
    /// What is sent, line by line as the file has it.
    pub(super) lines: Vec<String>,
    /// What is sent, if the lines are text and escapes.
    pub(super) bytes: Vec<u8>,
    /// Whether the caller says no more after it.
    pub(super) is_ended: bool,
    /// By `server@way`, either of which may be empty.
    expected: BTreeMap<String, Outcome>,
}

impl Case {
    /// What must come of it there.
    pub(super) fn expected(&self, server: &str, way: &str) -> Outcome {
        [format!("{server}@{way}"), format!("{server}@"), format!("@{way}"), "@".to_owned()]
            .iter()
            .find_map(|place| self.expected.get(place).cloned())
            .unwrap_or_default()
    }

    /// Makes what came of it by each way what must come of it there.
    fn learn(&mut self, server: &str, found: &BTreeMap<&str, Outcome>) {
        self.expected.retain(|place, _| {
            let (of, way) = place.split_once('@').unwrap();
            of != server || !(way.is_empty() || found.contains_key(way))
        });
        let first = found.values().next().unwrap();
        if found.values().all(|other| other == first) {
            let is_new = self.expected(server, "") != *first;
            if is_new || server.is_empty() {
                self.expected.insert(format!("{server}@"), first.clone());
            }
            return;
        }
        for (way, outcome) in found {
            if self.expected(server, way) != *outcome {
                self.expected.insert(format!("{server}@{way}"), outcome.clone());
            }
        }
    }

    fn write(&self) -> String {
        let mut text = self.source.clone();
        for (place, outcome) in &self.expected {
            let prefix =
                if place == "@" { String::new() } else { format!("{}: ", place.trim_end_matches('@')) };
            for line in outcome.lines() {
                writeln!(text, "-- {prefix}{line}").unwrap();
            }
        }
        text
    }
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))
}

/// The cases of a file of requests.
pub(super) fn requests(file: &str) -> Vec<Case> {
    let text = fs::read_to_string(folder().join(file)).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    let (mut comment, mut lines) = (String::new(), BTreeMap::<String, Vec<String>>::new());
    for (number, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", number + 1);
        if let Some(name) = line.strip_prefix("== ") {
            close(&mut cases, &mut lines);
            cases.push(Case {
                name: format!("{place}: {name}"),
                source: format!("{}{line}\n", std::mem::take(&mut comment)),
                lines: Vec::new(),
                bytes: Vec::new(),
                is_ended: false,
                expected: BTreeMap::new(),
            });
        } else if let Some(said) = line.strip_prefix("-- ") {
            let (at, what) = split_place(said);
            lines.entry(at).or_default().push(what.to_owned());
        } else if cases.is_empty() || !lines.is_empty() {
            assert!(line.is_empty() || line.starts_with('#'), "{place}: neither a comment nor a case");
            let _ = writeln!(comment, "{line}");
        } else {
            let case = cases.last_mut().unwrap();
            let _ = writeln!(case.source, "{line}");
            case.lines.push(line.to_owned());
            let said = line.strip_suffix(END);
            case.is_ended |= said.is_some();
            case.bytes.extend(unescaped(said.unwrap_or(line)));
        }
    }
    close(&mut cases, &mut lines);
    cases
}

fn close(cases: &mut [Case], lines: &mut BTreeMap<String, Vec<String>>) {
    let Some(case) = cases.last_mut() else { return };
    case.expected = std::mem::take(lines)
        .into_iter()
        .map(|(place, lines)| (place, Outcome::parse(lines.iter().map(String::as_str))))
        .collect();
}

/// `server@way: what`, or only the last.
fn split_place(said: &str) -> (String, &str) {
    match said.split_once(": ") {
        Some((place, what)) if !place.contains(' ') => {
            let place = if place.contains('@') { place.to_owned() } else { format!("{place}@") };
            (place, what)
        }
        _ => ("@".to_owned(), said),
    }
}

/// Writes what came of the cases of a file at a server, by each way, into the file.
pub(super) fn learn(file: &str, server: &str, found: &[BTreeMap<&str, Outcome>]) {
    let mut cases = requests(file);
    let mut text = String::new();
    for (case, found) in cases.iter_mut().zip(found) {
        case.learn(server, found);
        text += &case.write();
    }
    fs::write(folder().join(file), text).unwrap();
}

/// A spelling of a path.
#[derive(Clone, Debug)]
pub(super) struct Spelling {
    /// Where it stands.
    pub(super) place: String,
    /// As the file has it.
    pub(super) source: String,
    /// What is sent, with its query and fragment if it has them.
    pub(super) sent: Vec<u8>,
    /// What the servers see; `None`: it is refused.
    pub(super) plain: Option<String>,
    /// The same where a rule looks at paths.
    pub(super) judged: Option<String>,
}

/// The spellings of a file.
pub(super) fn spellings(file: &str) -> Vec<Spelling> {
    let text = fs::read_to_string(folder().join(file)).unwrap();
    let seen = |word: &str| (word != "refused").then(|| word.to_owned());
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let place = format!("{file}:{}", number + 1);
            let words: Vec<_> = line.split_whitespace().collect();
            let (source, plain, judged) = match words[..] {
                [source] => (source, "=", "="),
                [source, plain] => (source, plain, plain),
                [source, plain, judged] => (source, plain, judged),
                _ => panic!("{place}: one to three words"),
            };
            let as_sent = |word| if word == "=" { source } else { word };
            Spelling {
                place,
                source: source.to_owned(),
                sent: unescaped(source),
                plain: seen(as_sent(plain)),
                judged: seen(as_sent(judged)),
            }
        })
        .collect()
}

impl Spelling {
    /// The case of a request for it.
    pub(super) fn case(&self) -> Case {
        let outcome = match &self.plain {
            Some(seen) => Outcome::parse([format!("GET {seen} orders 0").as_str()]),
            None => Outcome::parse(["400 closed"]),
        };
        let mut expected = BTreeMap::from([("@".to_owned(), outcome)]);
        // To ASGI an empty query is none.
        if let Some(seen) = self.plain.as_ref().and_then(|seen| seen.strip_suffix('?')) {
            for server in ["hypercorn@", "hypercorn-h2@"] {
                let outcome = Outcome::parse([format!("GET {seen} orders 0").as_str()]);
                expected.insert(server.to_owned(), outcome);
            }
        }
        Case {
            name: format!("{}: {}", self.place, self.source),
            source: String::new(),
            lines: Vec::new(),
            bytes: [b"GET ", &self.sent[..], b" HTTP/1.1\r\nHost: orders\r\n\r\n"].concat(),
            is_ended: false,
            expected,
        }
    }

    /// The same over HTTP/2, where who refuses a request need not end the connection; `None` for what it has no text for.
    pub(super) fn case_of_frames(&self) -> Option<Case> {
        let mut case = self.case();
        case.lines = vec![format!("HEADERS end GET {}", self.source)];
        if self.plain.is_none() {
            case.expected = BTreeMap::from([("@".to_owned(), Outcome::parse(["refused"]))]);
        }
        (!self.source.contains(' ')).then_some(case)
    }
}

/// The bytes that escapes stand for.
pub(super) fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.extend_from_slice(before.as_bytes());
        let (kind, behind) = after.split_at(1);
        rest = behind;
        match kind {
            "r" => out.push(b'\r'),
            "n" => out.push(b'\n'),
            "t" => out.push(b'\t'),
            "0" => out.push(0),
            "s" => out.push(b' '),
            "\\" => out.push(b'\\'),
            "x" => {
                let (digits, behind) = rest.split_at(2);
                out.push(u8::from_str_radix(digits, 16).unwrap());
                rest = behind;
            }
            "(" => {
                let (inside, behind) = rest.split_once(')').unwrap();
                let (text, times) = inside.rsplit_once('*').unwrap();
                out.extend(unescaped(text).repeat(times.parse().unwrap()));
                rest = behind;
            }
            _ => panic!("no escape: \\{kind} in {text}"),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

#[test]
fn escapes_are_bytes() {
    assert_eq!(unescaped(r"a\r\n\t\0\\\xff\(ab*2)\s"), b"a\r\n\t\0\\\xffabab ");
}

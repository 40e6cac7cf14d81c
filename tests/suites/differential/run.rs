//! A run: every case of some files to one server, by some ways.

use std::{collections::BTreeMap, fs};

use outrider::canonical::{self, Care};
use serde_json::Value;

use super::{
    corpus::{self, Case, Spelling},
    frames::End,
    outcome::{Outcome, Seen},
    readers::{Log, Reader},
    strict::Whole,
    ways::{self, Way, Ways},
};
use crate::harness::{SOON, within};

/// What the callers speak, and where its cases are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

impl Spoken {
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Http1 => &[
                "http1/lines.http",
                "http1/fields.http",
                "http1/lengths.http",
                "http1/chunks.http",
                "http1/targets.http",
            ],
            Self::Http2 => &["http2/pseudo.h2", "http2/fields.h2", "http2/lengths.h2", "http2/targets.h2"],
        }
    }

    /// The spellings of paths, which are written once for both.
    fn spellings(self) -> Vec<Case> {
        let spellings = corpus::spellings(PATHS);
        match self {
            Self::Http1 => spellings.iter().map(Spelling::case).collect(),
            Self::Http2 => spellings.iter().filter_map(Spelling::case_of_frames).collect(),
        }
    }
}

/// The file of paths.
const PATHS: &str = "http1/paths.txt";

/// Of a path this much is compared, in characters: records cut what is longer.
const RECORDED: usize = 1000;

/// What a run has seen and found wrong.
struct Run {
    spoken: Spoken,
    /// Whether the server hands requests on by Python's ASGI.
    is_asgi: bool,
    ways: Ways,
    log: Log,
    /// Every request that the server saw.
    seen: Vec<Seen>,
    wrong: Vec<String>,
}

/// What a caller got.
enum Came {
    /// All bytes, and whether the connection was closed.
    Answers((Vec<u8>, bool)),
    /// How its streams ended; `None`: not at all.
    Ends(Option<[End; 2]>),
}

impl Run {
    /// Sends a case by a way; what came of it.
    async fn case(&mut self, way: Way, case: &Case) -> Outcome {
        let at = format!("{} by {}", case.name, way.name());
        let came = match self.spoken {
            Spoken::Http1 => Came::Answers(self.ways.exchange(way, case).await),
            Spoken::Http2 => Came::Ends(self.ways.streams(way, case).await),
        };
        if matches!(came, Came::Answers((_, false)) | Came::Ends(None)) {
            self.wrong.push(format!("{at}: it does not end"));
        }
        let (whole, faults) = self.log.take();
        self.wrong.extend(faults.into_iter().map(|fault| format!("{at}: the server got {fault}")));
        self.wrong.extend(whole.iter().filter_map(misled).map(|fault| format!("{at}: {fault}")));
        let seen: Vec<_> = whole.into_iter().map(|whole| whole.seen).collect();
        self.seen.extend(seen.iter().cloned());
        match came {
            Came::Answers((answers, _)) => Outcome::of(seen, &ways::statuses(&answers)),
            Came::Ends(ends) => Outcome::of_streams(seen, &ends.unwrap_or([End::Closed, End::Closed])),
        }
    }

    /// Compares what the server saw with what the callee's sidecar decided on.
    async fn compare(&mut self) {
        let path = self.ways.records();
        let carried = || carried(&fs::read_to_string(&path).unwrap_or_default());
        let is_all = within(SOON, || carried().len() >= self.seen.len()).await;
        // Queries are in no record, long texts are cut there, and ASGI has methods in capitals.
        let alike = |seen: &Seen| Seen {
            target: seen.target.split('?').next().unwrap_or_default().chars().take(RECORDED).collect(),
            method: if self.is_asgi { seen.method.to_ascii_uppercase() } else { seen.method.clone() },
            ..seen.clone()
        };
        let seen: Vec<_> = self.seen.iter().map(alike).collect();
        let judged: Vec<_> = carried().iter().map(alike).collect();
        let differing = judged.iter().zip(&seen).find(|(judged, seen)| *judged != *seen);
        if let Some((judged, seen)) = differing {
            self.wrong.push(format!("decided on {judged}, but the server saw {seen}"));
        }
        if !is_all || judged.len() != seen.len() {
            self.wrong.push(format!("decided on {}, but the server saw {}", judged.len(), seen.len()));
        }
    }
}

/// The requests of an access log that the server answered well: as they were decided on.
fn carried(log: &str) -> Vec<Seen> {
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let records = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records
        // A tunnel has no path, and the server sees what is in it.
        .filter(|record| record["status"] == 200 && record["path"] != "")
        .map(|record| {
            let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
            let path = canonical::path(&text("path"), Care::Plain).unwrap().into_owned();
            let bytes = record["request_bytes"].as_u64().unwrap_or_default();
            // An HTTP/1.0 caller that names no host means the service.
            // Between sidecars, a wish for a WebSocket is an extended CONNECT (RFC 8441), which has a path.
            let is_extended = record["method"] == "CONNECT";
            let method = if is_extended { "GET".to_owned() } else { text("method") };
            let host = if text("authority").is_empty() { "orders".to_owned() } else { text("authority") };
            Seen { method, target: path, host, bytes }
        })
        .collect()
}

/// Fields by which a server could be misled.
fn misled(whole: &Whole) -> Option<String> {
    let of = |name: &str| whole.fields.iter().filter(|(other, _)| other == name).collect::<Vec<_>>();
    let cert = of("x-forwarded-client-cert");
    let is_ours =
        matches!(&cert[..], [(_, value)] if value.starts_with("By=spiffe://test.outrider/orders;URI="));
    let odd = [
        "keep-alive",
        "proxy-connection",
        "http2-settings",
        "expect",
        "x-outrider-app-version",
        "x-outrider-attempt",
    ];
    let odd = odd.iter().find(|name| !of(name).is_empty());
    // Another protocol may be asked for, but none that carries requests.
    let is_http = |value: &str| ["h2", "http"].iter().any(|http| value.to_ascii_lowercase().contains(http));
    let odd = odd.or(Some(&"upgrade").filter(|name| of(name).iter().any(|(_, value)| is_http(value))));
    match (is_ours, odd) {
        (false, _) => Some(format!("who called is not told as it is: {cert:?}")),
        (true, Some(name)) => Some(format!("the server got {name}: {:?}", of(name))),
        (true, None) => None,
    }
}

/// Sends the whole corpus to a server by these ways.
pub(super) async fn run(spoken: Spoken, reader: Reader, ways: &[Way]) {
    let folder = tempfile::tempdir().unwrap();
    let Some((address, log)) = reader.start(folder.path()).await else { return };
    let to = Ways::to(address, reader.protocol()).await;
    let mut run =
        Run { spoken, is_asgi: reader.is_asgi(), ways: to, log, seen: Vec::new(), wrong: Vec::new() };
    let is_learning = std::env::var("UPDATE_CORPUS").is_ok_and(|value| value == "1");
    let table = reader.name();
    for file in spoken.files() {
        let mut found = Vec::new();
        for case in corpus::requests(file) {
            found.push(check(&mut run, ways, &case, table, is_learning).await);
        }
        if is_learning {
            corpus::learn(file, table, &found);
        }
    }
    for case in spoken.spellings() {
        check(&mut run, ways, &case, table, false).await;
    }
    run.compare().await;
    let count = run.wrong.len();
    assert!(count == 0, "{reader:?}: {count} wrong\n{}", run.wrong.join("\n"));
}

async fn check<'a>(
    run: &mut Run,
    ways: &[Way],
    case: &Case,
    table: &str,
    is_learning: bool,
) -> BTreeMap<&'a str, Outcome> {
    let mut found = BTreeMap::new();
    for way in ways {
        let outcome = run.case(*way, case).await;
        let expected = case.expected(table, way.name());
        if !outcome.fits(&expected) && !is_learning {
            let (outcome, expected) = (outcome.lines(), expected.lines());
            run.wrong.push(format!("{} by {}: {outcome:?} instead of {expected:?}", case.name, way.name()));
        }
        let outcome = if outcome.fits(&expected) { expected } else { outcome };
        found.insert(way.name(), outcome);
    }
    found
}

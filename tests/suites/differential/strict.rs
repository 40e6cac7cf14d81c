//! A server that takes nothing but what every reader takes alike, byte by byte, and remembers it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::outcome::Seen;
use crate::harness::TcpApp;

/// Most bytes of a line.
const MAX_LINE: u64 = 256 * 1024;

/// A request with its fields, in order.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) seen: Seen,
    pub(super) fields: Vec<(String, String)>,
}

/// The server; gone when dropped.
pub(super) struct Strict {
    app: TcpApp,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    whole: Vec<Whole>,
    faults: Vec<String>,
}

/// Why a connection ended.
enum End {
    /// Its client closed it, maybe in the midst of a request.
    Gone,
    /// It sent what some reader could take for something else.
    Fault(String),
}

impl From<std::io::Error> for End {
    fn from(_error: std::io::Error) -> Self {
        Self::Gone
    }
}

impl Strict {
    pub(super) async fn start() -> Self {
        let log: Arc<Mutex<Log>> = Arc::default();
        let shared = Arc::clone(&log);
        let app = TcpApp::start(move |stream| serve(stream, Arc::clone(&shared))).await;
        Self { app, log }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.app.address()
    }

    /// What came since the last call: whole requests, and what was wrong with others.
    pub(super) fn take(&self) -> (Vec<Whole>, Vec<String>) {
        let mut log = self.log.lock().unwrap();
        (std::mem::take(&mut log.whole), std::mem::take(&mut log.faults))
    }
}

async fn serve(stream: TcpStream, log: Arc<Mutex<Log>>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let whole = match request(&mut read).await {
            Ok(whole) => whole,
            Err(End::Gone) => return,
            Err(End::Fault(fault)) => return log.lock().unwrap().faults.push(fault),
        };
        let body = if whole.seen.method == "HEAD" { "" } else { "seen\n" };
        log.lock().unwrap().whole.push(whole);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{body}");
        if write.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn fault<T>(what: &str, line: &str) -> Result<T, End> {
    Err(End::Fault(format!("{what}: {line:?}")))
}

/// A line of visible characters, spaces and tabs, without its CRLF.
async fn line(read: &mut (impl AsyncBufReadExt + Unpin)) -> Result<String, End> {
    let mut line = Vec::new();
    read.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    let Some(line) = line.strip_suffix(b"\n") else { return Err(End::Gone) };
    // Bytes beyond ASCII are characters to some, but they end nothing.
    let text: String = line.iter().map(|byte| char::from(*byte)).collect();
    let Some(text) = text.strip_suffix('\r') else { return fault("a line without CR", &text) };
    if text.chars().any(|c| c.is_ascii_control() && c != '\t') {
        return fault("a control character", text);
    }
    Ok(text.to_owned())
}

fn is_token(text: &str) -> bool {
    let is_tchar = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(is_tchar)
}

async fn fields(read: &mut (impl AsyncBufReadExt + Unpin)) -> Result<Vec<(String, String)>, End> {
    let mut fields = Vec::new();
    loop {
        let line = line(read).await?;
        if line.is_empty() {
            return Ok(fields);
        }
        match line.split_once(": ") {
            Some((name, value)) if is_token(name) && value.trim() == value => {
                fields.push((name.to_ascii_lowercase(), value.to_owned()));
            }
            _ if line.ends_with(':') && is_token(line.trim_end_matches(':')) => {
                fields.push((line.trim_end_matches(':').to_ascii_lowercase(), String::new()));
            }
            _ => return fault("no field", &line),
        }
    }
}

/// The value of a field that is there at most once.
fn single<'a>(fields: &'a [(String, String)], name: &str) -> Result<Option<&'a str>, End> {
    let mut values = fields.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str());
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        (_, Some(second)) => fault(&format!("{name} twice"), second),
    }
}

async fn request(read: &mut (impl AsyncBufReadExt + Unpin)) -> Result<Whole, End> {
    let first = line(read).await?;
    let words: Vec<_> = first.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return fault("no request line", &first) };
    if !is_token(method) || target.is_empty() || target.contains(['#', '\t']) {
        return fault("no request line", &first);
    }
    if !target.starts_with('/') && target != "*" {
        return fault("another form of target", &first);
    }
    let fields = fields(read).await?;
    let Some(host) = single(&fields, "host")?.map(str::to_owned) else { return fault("no host", &first) };
    let length = single(&fields, "content-length")?;
    let bytes = match (length, single(&fields, "transfer-encoding")?) {
        (None, None) => 0,
        (Some(length), None) if length.bytes().all(|byte| byte.is_ascii_digit()) => match length.parse() {
            Ok(length) => exactly(read, length).await?,
            Err(_too_long) => return fault("a length", length),
        },
        (None, Some("chunked")) => chunks(read).await?,
        (length, encoding) => return fault("framing", &format!("{length:?} {encoding:?}")),
    };
    Ok(Whole { seen: Seen { method: method.to_owned(), target: target.to_owned(), host, bytes }, fields })
}

async fn exactly(read: &mut (impl AsyncBufReadExt + Unpin), length: u64) -> Result<u64, End> {
    let copied = tokio::io::copy(&mut read.take(length), &mut tokio::io::sink()).await?;
    if copied == length { Ok(length) } else { Err(End::Gone) }
}

async fn chunks(read: &mut (impl AsyncBufReadExt + Unpin)) -> Result<u64, End> {
    let mut sum = 0;
    loop {
        let size = line(read).await?;
        let is_hex =
            !size.is_empty() && size.len() <= 16 && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some(length) = u64::from_str_radix(&size, 16).ok().filter(|_| is_hex) else {
            return fault("a chunk's size", &size);
        };
        if length == 0 {
            for (name, value) in fields(read).await? {
                if ["content-length", "transfer-encoding", "host"].contains(&name.as_str()) {
                    return fault("a trailer that frames", &value);
                }
            }
            return Ok(sum);
        }
        sum += exactly(read, length).await?;
        let end = line(read).await?;
        if !end.is_empty() {
            return fault("a chunk longer than it says", &end);
        }
    }
}

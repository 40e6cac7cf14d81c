//! Asking a running sidecar: its answers, and what to do where there is none.

use std::{
    future::Future,
    io::{self, ErrorKind, IsTerminal as _},
    path::{Path, PathBuf},
};

use anyhow::{anyhow, bail};
use clap::Args;
use hyper::Method;
use outrider::{
    admin::{self, ClientError, Lines},
    config,
    telemetry::escape::is_printed,
};
use serde_json::Value;

/// Columns where nobody says how many there are.
const WIDTH: usize = 80;
/// The fewest that anything is laid out for.
const MIN_WIDTH: usize = 60;

#[derive(Debug, Args)]
pub(super) struct Socket {
    /// The admin socket of the sidecar
    #[arg(long, value_name = "PATH", default_value = config::defaults::ADMIN_SOCKET)]
    pub(super) admin_socket: PathBuf,
}

/// Runs something that asks.
pub(super) fn run<T>(asking: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(asking)
}

/// The answer to a GET, and its status: 200, or another one of `also`.
pub(super) async fn get(socket: &Socket, target: &str, also: &[u16]) -> anyhow::Result<(u16, Value)> {
    let answer = admin::call(&socket.admin_socket, Method::GET, target);
    let answer = answer.await.map_err(|error| unanswered(error, &socket.admin_socket))?;
    if answer.status != 200 && !also.contains(&answer.status) {
        return Err(refused(answer.status, &answer.body));
    }
    Ok((answer.status, answer.body))
}

/// The answer to a GET, line by line.
pub(super) async fn lines(socket: &Socket, target: &str) -> anyhow::Result<Lines> {
    let opened = Lines::open(&socket.admin_socket, target).await;
    let mut lines = opened.map_err(|error| unanswered(error, &socket.admin_socket))?;
    if lines.status() != 200 {
        let text = lines.next().await?.unwrap_or_default();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        return Err(refused(lines.status(), &body));
    }
    Ok(lines)
}

fn refused(status: u16, body: &Value) -> anyhow::Error {
    let problem = body.get("error").and_then(Value::as_str).or(body.as_str()).unwrap_or_default();
    match status {
        404 if problem.is_empty() => {
            anyhow!("the sidecar does not know this question: it is older than this command")
        }
        _ => anyhow!("the sidecar refused ({status}): {}", safe(problem)),
    }
}

/// No answer: why, and what to do.
fn unanswered(error: ClientError, path: &Path) -> anyhow::Error {
    let shown = path.display();
    let remedy = match &error {
        ClientError::Connect(source) => unreached(source.kind(), path),
        ClientError::Http(_) => format!(
            "the sidecar at {shown} closed the connection: it answers its own user and root alone, and 16 at a time"
        ),
        ClientError::Timeout => format!("the sidecar at {shown} is there, and too busy to answer; try again"),
        ClientError::Request(_) | ClientError::Body(_) => format!("no answer from the sidecar at {shown}"),
    };
    anyhow::Error::new(error).context(remedy)
}

/// No connection: why, and what to do.
fn unreached(kind: ErrorKind, path: &Path) -> String {
    let shown = path.display();
    if kind == ErrorKind::NotFound {
        format!(
            "there is no socket at {shown}: is the sidecar running here? `admin.socket` of its configuration says where \
             it is; name it with --admin-socket"
        )
    } else if kind == ErrorKind::PermissionDenied {
        format!(
            "no permission for {shown}: only the sidecar's own user and root may ask; run this command as one of them"
        )
    } else if kind == ErrorKind::ConnectionRefused {
        format!(
            "nobody listens at {shown}: the sidecar that made it has ended; start it, or name another one with \
             --admin-socket"
        )
    } else {
        format!("cannot connect to {shown}")
    }
}

/// A text of a sidecar without anything that acts on a terminal. It escapes what peers wrote; nobody has to trust that.
pub(super) fn safe(text: &str) -> String {
    text.chars().map(|c| if is_printed(c) { c } else { '?' }).collect()
}

/// A value of a query.
pub(super) fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Columns and lines of the terminal; `None` where standard output is none.
pub(super) fn terminal() -> Option<(usize, usize)> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    let size = size.map(|size| (usize::from(size.ws_col).max(MIN_WIDTH), usize::from(size.ws_row)));
    Some(size.unwrap_or((WIDTH, 24)))
}

/// Columns to write to.
pub(super) fn width() -> usize {
    terminal().map_or(WIDTH, |(columns, _)| columns)
}

/// A text in lines of at most `width`, all but the first behind `indent`.
pub(super) fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            out.push('\n');
            out.push_str(indent);
            column = indent.len();
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}

/// Seconds of a window that can be asked for.
pub(super) fn window(text: &str) -> anyhow::Result<u64> {
    let seconds = humantime::parse_duration(text)?.as_secs();
    if !(1..=900).contains(&seconds) {
        bail!("a sidecar keeps 15 minutes: from 1s to 15m");
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_is_safe() {
        assert_eq!(safe("a\u{1b}[2J\u{9b}b\n\u{202e}"), "a?[2J?b??");
    }

    #[test]
    fn values_are_encoded() {
        assert_eq!(encoded("/a b&c=\u{e4}"), "%2Fa%20b%26c%3D%C3%A4");
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("aa bb cc dd", 8, "  "), "aa bb cc\n  dd");
        assert_eq!(wrapped("aa bbbbbbbbbbbb", 8, " "), "aa\n bbbbbbbbbbbb");
    }
}

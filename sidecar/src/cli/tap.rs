//! `outrider tap`: live requests as they end.

use std::{
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{
    ask::{self, Socket, encoded, safe},
    table::{number, text},
};

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

#[derive(Debug, Args)]
pub(super) struct Tap {
    #[command(flatten)]
    socket: Socket,
    /// Only requests of this direction
    #[arg(long, value_name = "WAY")]
    direction: Option<Way>,
    /// Only requests to this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only requests of this caller: app, unverified, a SPIFFE ID, or its end after a slash
    #[arg(long, value_name = "CALLER")]
    source: Option<String>,
    /// Only requests of this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only requests by this method
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Only requests whose path begins so
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Only requests answered so: 503, 5xx, or none
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only requests with this response flag, as UH
    #[arg(long, value_name = "FLAG")]
    flag: Option<String>,
    /// Only requests that took so long at least
    #[arg(long, value_name = "DURATION")]
    min_duration: Option<String>,
    /// Only requests that failed, were refused or left
    #[arg(long)]
    failed: bool,
    /// End after so many
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<u64>,
    /// No more than so many in a second, 1 to 1000; the rest is left out, and counted
    #[arg(long, value_name = "COUNT")]
    per_second: Option<u32>,
    /// End after this time, at most 1h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    time: Option<std::time::Duration>,
    /// One JSON object a line, as the sidecar tells it
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    /// To the own app
    Inbound,
    /// From the own app
    Outbound,
}

pub(super) fn tap(tap: &Tap) -> anyhow::Result<ExitCode> {
    ask::run(follow(tap))?;
    Ok(ExitCode::SUCCESS)
}

async fn follow(tap: &Tap) -> anyhow::Result<()> {
    let mut lines = ask::lines(&tap.socket, &target(tap)).await?;
    let is_coloured = io::stdout().is_terminal();
    if !tap.json {
        // Else nobody knows whether it works where nothing is asked for.
        writeln!(io::stderr(), "outrider: watching requests as they end; stop with ctrl-c")?;
    }
    while let Some(line) = lines.next().await? {
        let value: Value = serde_json::from_str(&line).unwrap_or_default();
        let end = value.get("end");
        let text = match end {
            _ if tap.json => safe(&line),
            Some(end) => {
                writeln!(io::stderr(), "outrider: {}", ended(end))?;
                return Ok(());
            }
            None => shown(&value, is_coloured),
        };
        // Whoever reads us through a pipe has had enough when it is gone.
        let mut stdout = io::stdout().lock();
        match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    if !tap.json {
        writeln!(io::stderr(), "outrider: the sidecar has ended")?;
    }
    Ok(())
}

fn target(tap: &Tap) -> String {
    let direction = tap.direction.map(|way| match way {
        Way::Inbound => "inbound".to_owned(),
        Way::Outbound => "outbound".to_owned(),
    });
    let asked = [
        ("direction", direction),
        ("cluster", tap.cluster.clone()),
        ("source", tap.source.clone()),
        ("route", tap.route.clone()),
        ("method", tap.method.clone()),
        ("path", tap.path.clone()),
        ("status", tap.status.clone()),
        ("flag", tap.flag.clone()),
        ("min_duration", tap.min_duration.clone()),
        ("failed", tap.failed.then(|| "true".to_owned())),
        ("limit", tap.limit.map(|limit| limit.to_string())),
        ("per_second", tap.per_second.map(|limit| limit.to_string())),
        ("seconds", tap.time.map(|time| time.as_secs().to_string())),
    ];
    let asked = asked.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let query: Vec<_> = asked.map(|(name, value)| format!("{name}={}", encoded(&value))).collect();
    if query.is_empty() { "/tap".to_owned() } else { format!("/tap?{}", query.join("&")) }
}

/// A request in one line.
fn shown(request: &Value, is_coloured: bool) -> String {
    let field = |name: &str| safe(text(request, name));
    let time = field("at");
    let time = time.get(11..23).unwrap_or(&time).to_owned();
    let way = if text(request, "direction") == "inbound" { "in " } else { "out" };
    let source = field("source");
    let source = source.trim_start_matches("spiffe://");
    let to = field("cluster");
    let to = if to.is_empty() { "-" } else { &to };
    let asked = match text(request, "method") {
        "" => field("kind"),
        _ => format!("{} {}{}", field("method"), field("authority"), field("path")),
    };
    let status = request.get("status").and_then(Value::as_u64);
    let status_text = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let marked = match status {
        _ if !is_coloured => status_text,
        Some(400..=499) => format!("{YELLOW}{status_text}{PLAIN}"),
        _ if request.get("failed").and_then(Value::as_bool) == Some(true) => {
            format!("{RED}{status_text}{PLAIN}")
        }
        _ => status_text,
    };
    let mut line =
        format!("{time} {way} {source} -> {to}  {asked}  {marked} {:.1}ms", number(request, "duration_ms"));
    let attempts = request.get("attempts").and_then(Value::as_u64).unwrap_or_default();
    let more = [
        ("", field("flag")),
        ("", field("reason")),
        (
            "grpc=",
            request.get("grpc_status").and_then(Value::as_u64).map(|it| it.to_string()).unwrap_or_default(),
        ),
        ("attempts=", if attempts > 1 { attempts.to_string() } else { String::new() }),
        ("at=", field("endpoint")),
        ("id=", field("request_id")),
    ];
    for (name, value) in more.into_iter().filter(|(_, value)| !value.is_empty()) {
        line.push_str(&format!(" {name}{value}"));
    }
    line
}

fn ended(end: &Value) -> String {
    let because = match text(end, "because") {
        "limit" => "that were as many as asked for",
        "time" => "the time is over",
        _ => "ended",
    };
    let left_out = end.get("left_out").unwrap_or(&Value::Null);
    let (over, slow) = (number(left_out, "over_per_second"), number(left_out, "read_too_slowly"));
    if over + slow == 0.0 {
        return because.to_owned();
    }
    format!(
        "{because}; left out: {over} beyond --per-second, {slow} because they were not read fast enough (a narrower \
         filter shows all)"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request() -> Value {
        json!({
            "at": "2026-11-23T14:03:07.123Z", "direction": "outbound", "source": "app", "cluster": "orders",
            "method": "GET", "authority": "orders", "path": "/items\u{1b}[2J", "status": 503, "flag": "UH",
            "reason": "no_endpoint", "failed": true, "duration_ms": 20.04, "attempts": 2, "request_id": "r-7",
        })
    }

    #[test]
    fn a_request_is_one_line_coloured_on_a_terminal_only() {
        assert_eq!(
            shown(&request(), false),
            "14:03:07.123 out app -> orders  GET orders/items?[2J  503 20.0ms UH no_endpoint attempts=2 id=r-7"
        );
        assert!(shown(&request(), true).contains("\u{1b}[31m503\u{1b}[0m"));
    }

    #[test]
    fn what_was_left_out_is_told() {
        let end = json!({ "because": "limit", "left_out": { "over_per_second": 7, "read_too_slowly": 0 } });
        assert!(ended(&end).contains("7 beyond --per-second"), "{}", ended(&end));
        assert_eq!(ended(&json!({ "because": "time" })), "the time is over");
    }
}

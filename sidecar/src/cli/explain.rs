//! `outrider explain`: why requests failed.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;
use outrider::{
    model::flag::ResponseFlag,
    telemetry::explain::{REASONS, of_reason},
};
use serde_json::Value;

use super::{
    ask::{self, Socket, encoded, safe, wrapped},
    table::{number, text},
};

/// Requests of one ID, or examples of one flag, that are told as a whole.
const TOLD: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    socket: Socket,
    /// A request's x-request-id, a trace ID, a response flag (UH) or a reason (no_endpoint); @7: the number of one that has no ID; nothing: the latest failures
    #[arg(value_name = "ID|FLAG|REASON")]
    what: Option<String>,
    /// How many of the latest failures are listed, 1 to 100
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20)]
    limit: usize,
    /// The sidecar's answer as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn explain(explain: &Explain) -> anyhow::Result<ExitCode> {
    let what = explain.what.as_deref();
    let asked = what.map(|what| format!("{}={}&", kind(what), encoded(what))).unwrap_or_default();
    let target = format!("/explain?{asked}limit={}", explain.limit);
    let (status, answer) = ask::run(ask::get(&explain.socket, &target, &[404]))?;
    let is_found = status == 200;
    let width = ask::width().min(120);
    let page = match what {
        _ if explain.json => format!("{}\n", safe(&answer.to_string())),
        Some(what) if !is_found => {
            writeln!(io::stderr(), "outrider: {}", wrapped(&missing(what, &answer), width - 10, "  "))?;
            return Ok(ExitCode::FAILURE);
        }
        Some(what) => Page::new(explain, width).of(what, &answer),
        None => latest(&answer, width),
    };
    io::stdout().write_all(page.as_bytes())?;
    Ok(if is_found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the argument is: flags and reasons are closed lists, everything else is an ID.
fn kind(what: &str) -> &'static str {
    let is_flag = ResponseFlag::ALL.into_iter().any(|flag| flag.letters() == what);
    match (is_flag, of_reason(what)) {
        (true, _) => "flag",
        (false, Some(_)) => "reason",
        (false, None) => "id",
    }
}

fn requests(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.get("requests").and_then(Value::as_array).into_iter().flatten()
}

/// Why nothing was found: what is not kept may have been all the same.
fn missing(what: &str, answer: &Value) -> String {
    let letters = what.to_ascii_uppercase();
    let close = ResponseFlag::ALL.into_iter().find(|flag| flag.letters() == letters);
    let reason = REASONS.into_iter().find(|(name, _)| *name == what.to_ascii_lowercase().replace('-', "_"));
    let hint = match (close, reason) {
        (Some(flag), _) => format!(" Did you mean the flag {}?", flag.letters()),
        (None, Some((name, _))) => format!(" Did you mean the reason {name}?"),
        (None, None) => String::new(),
    };
    format!(
        "nothing is kept of `{}`. {} A request that did well at the first attempt is not kept; neither is one of another \
         sidecar: ask that of the caller, and that of the callee.{hint}",
        safe(what),
        kept(answer),
    )
}

fn kept(answer: &Value) -> String {
    let kept = answer.get("kept").unwrap_or(&Value::Null);
    let oldest = match kept.get("oldest_seconds").and_then(Value::as_f64) {
        Some(seconds) => format!("{} so far, the oldest {} ago", number(kept, "requests"), ago(seconds)),
        None => "none so far".to_owned(),
    };
    format!("Kept are the newest {} requests that failed or were repeated: {oldest}.", number(kept, "most"))
}

fn ago(seconds: f64) -> String {
    if seconds < 120.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

/// The latest failures, one a line.
fn latest(answer: &Value, width: usize) -> String {
    let mut out = String::new();
    for request in requests(answer) {
        out.push_str(&format!("{}\n", summary(request)));
    }
    if out.is_empty() {
        out.push_str("no request failed or was repeated\n");
    } else {
        out.push_str("\nwhy: outrider explain <ID>, or outrider explain <FLAG>\n");
    }
    out.push_str(&format!("{}\n", wrapped(&kept(answer), width, "")));
    out
}

fn summary(request: &Value) -> String {
    let field = |name: &str| safe(text(request, name));
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let number_of = |name: &str| request.get(name).and_then(Value::as_u64).map(|it| it.to_string());
    let why = match (field("flag"), field("reason")) {
        (flag, reason) if flag.is_empty() && reason.is_empty() => {
            if request.get("failed").and_then(Value::as_bool) == Some(true) {
                "the app's own".to_owned()
            } else {
                "repeated".to_owned()
            }
        }
        (flag, reason) => format!("{flag} {reason}").trim().to_owned(),
    };
    format!(
        "{:>7} ago  {} {} {}{}  {}  {why}  ID {}",
        ago(number(request, "ago_seconds")),
        or_dash(number_of("status").unwrap_or_default()),
        or_dash(field("cluster")),
        or_dash(field("method")),
        match field("path") {
            path if path.is_empty() => String::new(),
            path => format!(" {path}"),
        },
        match number_of("attempts").as_deref() {
            Some("1") | None => "1 attempt".to_owned(),
            Some(count) => format!("{count} attempts"),
        },
        id(request),
    )
}

/// What it can be asked for by: its request ID, its trace, or its number.
fn id(request: &Value) -> String {
    match (text(request, "request_id"), text(request, "trace")) {
        ("", "") => format!("@{}", number(request, "number")),
        ("", trace) => safe(trace),
        (id, _) => safe(id),
    }
}

/// A page of whole stories.
struct Page<'a> {
    socket: String,
    width: usize,
    limit: usize,
    explain: &'a Explain,
}

impl<'a> Page<'a> {
    fn new(explain: &'a Explain, width: usize) -> Self {
        Self { socket: explain.socket.admin_socket.display().to_string(), width, limit: TOLD, explain }
    }

    fn of(&self, what: &str, answer: &Value) -> String {
        let mut out = String::new();
        if let Some(about) = answer.get("about").filter(|about| !about.is_null()) {
            out.push_str(&format!("{what}\n"));
            self.remedy(&mut out, about);
            out.push('\n');
        }
        let all: Vec<_> = requests(answer).collect();
        let is_id = kind(what) == "id";
        // Of a flag, one is told as a whole: the others are alike.
        let whole = if is_id { self.limit } else { 1 };
        for request in all.iter().take(whole) {
            self.story(&mut out, request, is_id);
            out.push('\n');
        }
        if all.len() > whole {
            out.push_str("others:\n");
            let others = all.iter().skip(whole).take(self.explain.limit);
            others.for_each(|request| out.push_str(&format!("{}\n", summary(request))));
        }
        if all.is_empty() {
            out.push_str(&format!(
                "{}\n",
                wrapped(&format!("It did not happen here lately. {}", kept(answer)), self.width, "")
            ));
        }
        out
    }

    fn story(&self, out: &mut String, request: &Value, has_remedy: bool) {
        out.push_str(&format!(
            "{} ({} ago), ID {}\n",
            safe(text(request, "at")),
            ago(number(request, "ago_seconds")),
            id(request),
        ));
        for told in list(request, "story") {
            let after = format!("{:.1} ms", number(told, "after_ms"));
            let line = format!("  {after:>12}  {}", safe(text(told, "text")));
            out.push_str(&wrapped_line(&line, self.width, 16));
        }
        if has_remedy {
            self.remedy(out, request.get("remedy").unwrap_or(&Value::Null));
        }
        self.points(out, "Now", list(request, "now"));
    }

    fn remedy(&self, out: &mut String, remedy: &Value) {
        out.push_str(&wrapped_line(&format!("  {}", safe(text(remedy, "means"))), self.width, 2));
        self.points(out, "Usual causes", list(remedy, "causes"));
        self.points(out, "Look at", list(remedy, "next"));
    }

    fn points<'b>(&self, out: &mut String, title: &str, points: impl Iterator<Item = &'b Value>) {
        let mut points = points.filter_map(Value::as_str).peekable();
        if points.peek().is_some() {
            out.push_str(&format!("  {title}:\n"));
        }
        for point in points {
            let point = safe(point).replace("<admin.sock>", &self.socket);
            out.push_str(&wrapped_line(&format!("    - {point}"), self.width, 6));
        }
    }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// A line with its own indent, broken where it is too long.
fn wrapped_line(line: &str, width: usize, indent: usize) -> String {
    let start = line.len() - line.trim_start_matches(' ').len();
    let (blank, rest) = line.split_at(start);
    let text = wrapped(rest, width.saturating_sub(start), &" ".repeat(indent));
    format!("{blank}{text}\n")
}

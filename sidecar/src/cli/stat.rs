//! `outrider stat` and `outrider top`: who calls whom, once or again and again.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    ask::{self, Socket, safe},
    table::{self, Sort, number, text},
};

/// Time between two looks.
const REFRESH: Duration = Duration::from_secs(1);
/// A screen of its own, without cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// From the upper left corner; what was there is overwritten line by line, so that nothing flickers.
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K";
const END_OF_SCREEN: &str = "\x1b[J";

#[derive(Debug, Args)]
pub(super) struct Stat {
    #[command(flatten)]
    socket: Socket,
    /// The time to sum up, 1s to 15m; rounded up to buckets of 10 s
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = ask::window)]
    window: u64,
    /// What to sort by
    #[arg(long, value_name = "WHAT", default_value = "rate")]
    sort: Sort,
    /// The sidecar's answer as it is
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Top {
    #[command(flatten)]
    socket: Socket,
    /// The time to sum up, 1s to 15m; rounded up to buckets of 10 s
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = ask::window)]
    window: u64,
    /// What to sort by
    #[arg(long, value_name = "WHAT", default_value = "rate")]
    sort: Sort,
    /// One table, and no more
    #[arg(long)]
    once: bool,
}

pub(super) fn stat(stat: &Stat) -> anyhow::Result<ExitCode> {
    let answer = ask::run(edges(&stat.socket, stat.window))?;
    let text = if stat.json {
        format!("{}\n", safe(&answer.to_string()))
    } else {
        screen(&answer, ask::width(), stat.sort)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn top(top: &Top) -> anyhow::Result<ExitCode> {
    if top.once || ask::terminal().is_none() {
        let answer = ask::run(edges(&top.socket, top.window))?;
        io::stdout().write_all(screen(&answer, ask::width(), top.sort).as_bytes())?;
    } else {
        ask::run(live(top))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn edges(socket: &Socket, seconds: u64) -> anyhow::Result<Value> {
    Ok(ask::get(socket, &format!("/edges?seconds={seconds}"), &[]).await?.1)
}

/// Shows the table until somebody has seen enough, or the sidecar is gone.
async fn live(top: &Top) -> anyhow::Result<()> {
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let mut ended = async || {
        let all = ends.iter_mut().map(|end| Box::pin(end.recv()));
        futures_util::future::select_all(all).await;
    };
    // Asked once before the screen is taken, so that a wrong socket is told on the one that stays.
    let mut answer = edges(&top.socket, top.window).await?;
    let _screen = Screen::enter()?;
    loop {
        let Some((width, height)) = ask::terminal() else { return Ok(()) };
        draw(&screen(&answer, width, top.sort), height)?;
        tokio::select! {
            biased;
            () = ended() => return Ok(()),
            () = tokio::time::sleep(REFRESH) => {}
        }
        tokio::select! {
            biased;
            () = ended() => return Ok(()),
            fresh = edges(&top.socket, top.window) => answer = fresh?,
        }
    }
}

/// Title and table.
fn screen(answer: &Value, width: usize, sort: Sort) -> String {
    let seconds = number(answer, "seconds");
    let title = format!(
        "{}: the last {seconds:.0} s, configuration {}, {}",
        safe(text(answer, "service")),
        number(answer, "generation"),
        safe(text(answer, "at")),
    );
    let title: String = title.chars().take(width).collect();
    format!("{title}\n\n{}", table::render(answer, width, sort))
}

fn draw(text: &str, height: usize) -> io::Result<()> {
    let mut shown = String::from(HOME);
    let lines: Vec<_> = text.lines().take(height.max(1)).collect();
    // No line break after the last: it would move the screen up.
    shown.push_str(&lines.join(&format!("{END_OF_LINE}\r\n")));
    shown.push_str(END_OF_LINE);
    shown.push_str(END_OF_SCREEN);
    let mut stdout = io::stdout().lock();
    stdout.write_all(shown.as_bytes())?;
    stdout.flush()
}

/// The terminal's other screen, until dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(ENTER.as_bytes())?;
        stdout.flush()?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no cleaning.
        let mut stdout = io::stdout().lock();
        drop(stdout.write_all(LEAVE.as_bytes()).and_then(|()| stdout.flush()));
    }
}

//! The receiver as a program: takes traces until it is told to stop, then draws one.

use std::{io::Write, net::SocketAddr};

use anyhow::Context;
use clap::Parser;

use super::{
    receiver::Receiver,
    span::Span,
    traces::Traces,
    waterfall::{self, WIDTH},
};
use crate::signals::Signals;

/// Command line of the collector.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "collector",
    about = "Takes traces over OTLP/gRPC until SIGTERM or Ctrl-C, then counts them and draws the one with the most spans",
    version
)]
pub struct Options {
    /// Address to listen on; port 0 lets the system choose, and the first line of output says which
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:4317")]
    pub listen: SocketAddr,
}

/// Takes traces until a signal.
///
/// # Errors
/// An address that can't be listened on, or output that cannot be written.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let receiver = Receiver::start(options.listen)?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on {}", receiver.address()).context("writing")?;
    signals.received().await;
    for line in receiver.read(summary) {
        writeln!(out, "{line}").context("writing")?;
    }
    Ok(())
}

fn summary(traces: &Traces) -> Vec<String> {
    let kept = traces.all().count();
    let mut lines = vec![format!("{} spans received, {kept} traces kept", traces.received())];
    // The earliest of the largest: the same one whenever it is asked.
    let largest = traces.all().max_by_key(|spans| {
        let start = spans.iter().map(|span| span.start).min().unwrap_or(0);
        (spans.len(), u64::MAX - start)
    });
    let spans: &[Span] = largest.unwrap_or_default();
    lines.extend(waterfall::draw(spans, WIDTH));
    lines
}

//! `outrider route`: where requests go, decided by the code that carries them.

use std::{net::SocketAddr, path::Path, process::ExitCode, sync::Arc};

use anyhow::Error;
use clap::{Args, Subcommand};
use outrider::{
    clock::Clock,
    config,
    explain::{By, Explained, route},
    publish,
};

use super::source::Source;

#[derive(Debug, Subcommand)]
pub(super) enum Route {
    /// Say where a request of the own app would go: which rule, which clusters, what holds for it, and why nothing else fits
    ///
    /// Ends with 0 if it goes somewhere, with 1 if it does not.
    Explain(Explain),
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    source: Source,
    /// The method, as GET
    #[arg(value_name = "METHOD")]
    method: String,
    /// The target, as http://orders:8080/items?page=2, or a path alone
    #[arg(value_name = "URL")]
    url: String,
    /// A field of the request, as 'x-team: red'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// The address that the app dialled, where the kernel brings its connections
    #[arg(long, value_name = "IP:PORT")]
    to: Option<SocketAddr>,
    /// The outbound listener that it comes in at; the first one for requests if nothing is said
    #[arg(long, value_name = "NAME", conflicts_with = "to")]
    listener: Option<String>,
}

pub(super) fn run(command: &Route) -> anyhow::Result<ExitCode> {
    let Route::Explain(explain) = command;
    let Explain { source, method, url, headers, to, listener } = explain;
    let mut pairs = vec![("method", method.clone()), ("url", url.clone())];
    pairs.extend(headers.iter().map(|field| ("header", field.clone())));
    pairs.extend(to.map(|address| ("to", address.to_string())));
    pairs.extend(listener.clone().map(|name| ("listener", name)));
    source.answer(("/explain/route", pairs), |file| by_file(file, explain))
}

fn by_file(file: &Path, explain: &Explain) -> anyhow::Result<Explained> {
    let settings = Arc::new(config::load(file)?);
    let snapshot = publish::preview(settings, Clock::system().now());
    let question = route::Question {
        method: explain.method.clone(),
        url: explain.url.clone(),
        headers: explain.headers.clone(),
        to: explain.to,
        listener: explain.listener.clone(),
    };
    route::explain(&snapshot, By::File, &question).map_err(Error::msg)
}

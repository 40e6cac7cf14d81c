//! `outrider policy`: what authorization rules say of a call, by the code that judges calls.

use std::{path::Path, process::ExitCode};

use anyhow::{Error, bail};
use clap::{Args, Subcommand};
use http::Method;
use outrider::{
    config,
    explain::{
        By, Explained,
        policy::{self, Field},
    },
};
use outrider_certs::SpiffeId;

use super::source::Source;

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Whether a call may go to the own app: the rule that allows it, or what each rule misses
    ///
    /// The verdict is that of the sidecar that goes by this configuration, or of the one that runs: the listener's allow list,
    /// the spelling of the path, the rules under authorization and those of the controller. Exit code 0: the call passes; 1: it
    /// does not.
    Explain(Explain),
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    source: Source,
    /// Who calls: a SPIFFE ID
    #[arg(long, value_name = "ID")]
    from: SpiffeId,
    /// The app's port; may be left out where there is only one
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The request's method; GET if left out
    #[arg(long, value_name = "METHOD")]
    method: Option<Method>,
    /// The request's path, as it is sent, with or without a query, which no rule looks at; / if left out
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Whom the request is for: host or host:port; or say it by a field host
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// A field of the request; may be given more than once
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<Header>,
    /// A call of gRPC, in the place of method and path
    #[arg(long, value_name = "SERVICE/METHOD", conflicts_with_all = ["method", "path"])]
    grpc: Option<String>,
    /// An opaque stream instead of a request
    #[arg(long, conflicts_with_all = ["method", "path", "host", "headers", "grpc"])]
    stream: bool,
}

/// A field, as it was written, and what it is.
#[derive(Clone, Debug)]
struct Header(String, Field);

impl std::str::FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned(), text.parse()?))
    }
}

pub(super) fn run(command: &Policy) -> anyhow::Result<ExitCode> {
    let Policy::Explain(explain) = command;
    let Explain { source, from, port, method, path, host, headers, grpc, stream } = explain;
    let mut pairs = vec![("from", from.to_string())];
    pairs.extend(port.map(|port| ("port", port.to_string())));
    pairs.extend(method.as_ref().map(|method| ("method", method.to_string())));
    pairs.extend(headers.iter().map(|Header(text, _)| ("header", text.clone())));
    let texts = [("path", path), ("host", host), ("grpc", grpc)];
    pairs.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
    pairs.extend(stream.then(|| ("stream", "true".to_owned())));
    source.answer(("/explain/policy", pairs), |file| by_file(file, explain))
}

fn by_file(file: &Path, explain: &Explain) -> anyhow::Result<Explained> {
    let settings = match config::load(file) {
        Ok(settings) => settings,
        Err(config::Error::Faults(faults)) => {
            bail!("{} has {} fault(s): outrider check names them", file.display(), faults.len())
        }
        Err(error @ config::Error::Read(_)) => return Err(error.into()),
    };
    let question = policy::Question {
        from: explain.from.clone(),
        port: explain.port,
        method: explain.method.clone(),
        path: explain.path.clone(),
        host: explain.host.clone(),
        headers: explain.headers.iter().map(|Header(_, field)| field.clone()).collect(),
        grpc: explain.grpc.clone(),
        stream: explain.stream,
    };
    policy::explain(&settings, By::File, &question).map_err(Error::msg)
}

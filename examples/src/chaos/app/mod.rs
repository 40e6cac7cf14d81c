//! The app that is broken: a replica of the service that is called.
//!
//! It answers with its name, and streams messages as a gRPC server does. What is wrong with it, it reads from a file in
//! its folder when it starts and on SIGHUP; how many requests it has seen, it keeps in another. SIGTERM lets it finish
//! what it has.

mod fault;
mod seen;
mod stream;

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
};

use crate::serving;
use seen::Seen;

pub use fault::Fault;
pub use seen::read as seen_in;
pub use stream::{FRAME, MESSAGES, PATH as STREAM_PATH};

/// Time for requests under way to finish after SIGTERM; streams last less.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(15);
/// Rest after a failed accept (out of file descriptors), so that it doesn't spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Command line of the app.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// What it answers with
    #[arg(long)]
    pub name: String,
    /// Address to listen on
    #[arg(long, value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Its folder: `fault.json`, read at the start and on SIGHUP; `seen`, the count of requests
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
}

/// The body of any answer.
type Body = BoxBody<Bytes, Infallible>;

#[derive(Debug)]
struct App {
    name: String,
    seen: Seen,
    fault: Mutex<Fault>,
}

/// Serves until SIGTERM, and then until what is under way is done.
///
/// # Errors
/// A folder that can't be used, or an address that can't be listened on.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let in_folder = || format!("in {}", options.dir.display());
    let app = Arc::new(App {
        seen: Seen::open(&options.dir).with_context(in_folder)?,
        fault: Mutex::new(Fault::read(&options.dir).with_context(in_folder)?),
        name: options.name,
    });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut told = signal(SignalKind::hangup())?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("listening on {}", options.listen))?;
    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = told.recv() => app.set(Fault::read(&options.dir).with_context(in_folder)?),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => serve(stream, Arc::clone(&app), &connections),
                Err(_) => tokio::time::sleep(ACCEPT_REST).await,
            },
        }
    }
    drop(listener);
    // What takes longer is cut, as an orchestrator would do.
    tokio::time::timeout(SHUTDOWN_DEADLINE, connections.shutdown()).await.unwrap_or_default();
    Ok(())
}

fn serve(stream: TcpStream, app: Arc<App>, connections: &GracefulShutdown) {
    serving::serve(stream, connections, move |request| {
        let app = Arc::clone(&app);
        async move { app.answer(&request).await }
    });
}

impl App {
    async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        self.seen.raise();
        let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if fault.delay_ms > 0 {
            tokio::time::sleep(fault.delay()).await;
        }
        let failed = fault.of_one(&mut fastrand::Rng::new()).and_then(|code| StatusCode::from_u16(code).ok());
        if let Some(status) = failed {
            let mut answer = Response::new(Full::from("out of order").boxed());
            *answer.status_mut() = status;
            return answer;
        }
        if request.uri().path() == STREAM_PATH {
            return stream::answer();
        }
        Response::new(Full::from(self.name.clone()).boxed())
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

//! What a server outside the mesh likes to speak: asked once by ALPN, then known.
//!
//! The first connection to an endpoint offers both versions, and requests that come meanwhile wait for it. It is kept
//! like any other. From then on connections offer what the server chose; if it does not take that any more, it is asked
//! again.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Instant,
};

use futures_util::{FutureExt, future::Shared};
use indexmap::IndexMap;
use tokio::sync::oneshot;

use super::{
    Error, connector::Connector, dial::Speak, http_client::Http1, http2::Http2, place::Target, pool::Pool,
};
use crate::{model::runtime::EndpointRuntime, net::Net};

/// Values of `EndpointRuntime::http_version`.
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

/// What one that asks found out, for all who wait for it.
type Answer = Shared<oneshot::Receiver<Result<Speak, Error>>>;

/// The questions of one worker.
#[derive(Debug)]
pub struct Negotiator<N: Net> {
    connector: Arc<Connector<N>>,
    /// By endpoint (the address of its runtime, which whoever asks keeps alive).
    under_way: UnderWay,
}

#[derive(Debug, Default)]
struct UnderWay(Mutex<IndexMap<usize, Answer>>);

/// The right to ask, and the duty to tell. Dropped without an answer, another may ask.
struct Turn<'a> {
    all: &'a UnderWay,
    endpoint: usize,
    tell: Option<oneshot::Sender<Result<Speak, Error>>>,
}

impl<N: Net> Negotiator<N> {
    /// Asks over connections of `connector`.
    #[must_use]
    pub fn new(connector: Arc<Connector<N>>) -> Self {
        Self { connector, under_way: UnderWay::default() }
    }

    /// What is spoken with this endpoint: [`Speak::Http1`] or [`Speak::Http2`]. A connection that was made to find out
    /// is left in `pool`.
    ///
    /// # Errors
    /// [`Error`]; nothing was sent.
    pub async fn learn(
        &self,
        target: Target<'_>,
        pool: &Pool<N>,
        now: impl Fn() -> Instant,
    ) -> Result<Speak, Error> {
        loop {
            if let Some(speak) = known(&target.endpoint.runtime) {
                return Ok(speak);
            }
            match self.under_way.join(&target.endpoint.runtime) {
                Ok(turn) => {
                    let asked = self.ask(target, pool, &now).await;
                    turn.end(asked.clone());
                    return asked;
                }
                Err(answer) => match answer.await {
                    Ok(found) => return found,
                    // Whoever asked went away.
                    Err(_gone) => {}
                },
            }
        }
    }

    async fn ask(
        &self,
        target: Target<'_>,
        pool: &Pool<N>,
        now: impl Fn() -> Instant,
    ) -> Result<Speak, Error> {
        let Target { cluster, endpoint, .. } = target;
        let mut connection = self.connector.open_for_one(target, Speak::Either, now()).await?;
        let speak = connection.chosen();
        let version = if speak == Speak::Http2 {
            let started = Http2::start(connection, &cluster.limits);
            pool.keep_http2(target, within(cluster.settings.timeouts.connect, started).await?);
            HTTP2
        } else {
            let mut connection = Http1::start(connection, &cluster.limits).await?;
            // So that the first who comes can have it.
            connection.ready().await?;
            pool.give_back(connection, now());
            HTTP1
        };
        endpoint.runtime.http_version.store(version, Ordering::Relaxed);
        Ok(speak)
    }
}

async fn within<T>(
    limit: std::time::Duration,
    started: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, started).await.unwrap_or(Err(Error::Timeout))
}

impl UnderWay {
    /// The right to ask this endpoint, or the answer to wait for.
    fn join(&self, endpoint: &Arc<EndpointRuntime>) -> Result<Turn<'_>, Answer> {
        let endpoint = Arc::as_ptr(endpoint) as usize;
        let mut all = self.lock();
        if let Some(answer) = all.get(&endpoint) {
            return Err(answer.clone());
        }
        let (tell, answer) = oneshot::channel();
        all.insert(endpoint, answer.shared());
        Ok(Turn { all: self, endpoint, tell: Some(tell) })
    }

    fn lock(&self) -> MutexGuard<'_, IndexMap<usize, Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    fn end(mut self, answer: Result<Speak, Error>) {
        if let Some(tell) = self.tell.take() {
            // Perhaps nobody waits.
            drop(tell.send(answer));
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.all.lock().swap_remove(&self.endpoint);
    }
}

fn known(runtime: &EndpointRuntime) -> Option<Speak> {
    match runtime.http_version.load(Ordering::Relaxed) {
        HTTP1 => Some(Speak::Http1),
        HTTP2 => Some(Speak::Http2),
        _ => None,
    }
}

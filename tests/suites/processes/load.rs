//! A steady stream of requests, every one accounted for.
//!
//! Each client has one connection, as an HTTP client's pool would, and obeys the rules of RFC 9112 §9: it does not
//! reuse what was announced as closing, and repeats once what was sent on a kept connection that closed before any
//! byte of an answer (§9.3.1 lets clients do that for idempotent requests).

use std::{
    collections::BTreeMap,
    error::Error,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle, time::MissedTickBehavior};

use super::{mesh::CALLED, until};

/// Time for one answer; none here takes long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// A request that takes longer waited for something that is broken.
const SLOW: Duration = Duration::from_secs(1);
/// Failures whose text is kept.
const KEPT_FAILURES: usize = 20;

/// What to send.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// Clients, each with one connection.
    pub(super) clients: u32,
    /// Requests per second, all clients together.
    pub(super) rate: u32,
    /// Whether connections are kept.
    pub(super) keeps: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { method: Method::GET, path: "/", clients: 6, rate: 150, keeps: true }
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) ok: u64,
    pub(super) failed: u64,
    /// The first failures in words.
    pub(super) failures: Vec<String>,
    /// Answers by what they said: the replica's name.
    pub(super) by_replica: BTreeMap<String, u64>,
    /// Requests sent again because a kept connection had closed.
    pub(super) repeated: u64,
    /// Answers that announced the end of their connection.
    pub(super) closing: u64,
    /// Requests that took longer than [`SLOW`], failed ones included.
    pub(super) slow: u64,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    plan: Plan,
    totals: Mutex<Totals>,
    is_over: AtomicBool,
}

impl Shared {
    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Load that goes on until it is finished.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub(super) fn start(target: SocketAddr, plan: Plan) -> Self {
        let clients = plan.clients;
        let shared =
            Arc::new(Shared { target, plan, totals: Mutex::default(), is_over: AtomicBool::new(false) });
        let clients = (0..clients).map(|number| tokio::spawn(Client::new(&shared, number).live())).collect();
        Self { shared, clients }
    }

    /// Answers of one replica so far.
    pub(super) fn of_replica(&self, name: &str) -> u64 {
        self.shared.totals().by_replica.get(name).copied().unwrap_or(0)
    }

    /// Requests so far that took longer than [`SLOW`].
    pub(super) fn slow(&self) -> u64 {
        self.shared.totals().slow
    }

    /// What became of the requests that have ended.
    pub(super) fn read(&self) -> Totals {
        self.shared.totals().clone()
    }

    /// Lets it go on until so many more requests have ended.
    pub(super) async fn go_on(&self, requests: u64) {
        let ended = || {
            let totals = self.shared.totals();
            totals.ok + totals.failed
        };
        let goal = ended() + requests;
        until("the load goes on", async || ended() >= goal).await;
    }

    /// Ends it, with every request answered or failed.
    pub(super) async fn finish(self) -> Totals {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.expect("a client does not panic");
        }
        self.shared.totals().clone()
    }
}

impl Totals {
    /// Panics unless there was load and no request failed.
    pub(super) fn assert_none_failed(&self) {
        assert!(self.ok > 0, "no request was made");
        assert_eq!(self.failed, 0, "of {} requests: {:#?}", self.ok + self.failed, self.failures);
    }
}

type Connection = http1::SendRequest<Full<Bytes>>;
type Failure = Box<dyn Error + Send + Sync>;

struct Client {
    shared: Arc<Shared>,
    number: u32,
    kept: Option<Connection>,
}

impl Client {
    fn new(shared: &Arc<Shared>, number: u32) -> Self {
        Self { shared: Arc::clone(shared), number, kept: None }
    }

    async fn live(mut self) {
        let Plan { clients, rate, .. } = self.shared.plan;
        let period = Duration::from_secs(1) * clients / rate;
        let start = tokio::time::Instant::now() + period * self.number / clients;
        let mut ticks = tokio::time::interval_at(start, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.shared.is_over.load(Ordering::SeqCst) {
            ticks.tick().await;
            let since = tokio::time::Instant::now();
            let outcome = match tokio::time::timeout(REQUEST_TIMEOUT, self.request()).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => Err(format!("no answer within {REQUEST_TIMEOUT:?}").into()),
            };
            let mut totals = self.shared.totals();
            totals.slow += u64::from(since.elapsed() > SLOW);
            match outcome {
                Ok(replica) => {
                    totals.ok += 1;
                    *totals.by_replica.entry(replica).or_default() += 1;
                }
                Err(error) => {
                    totals.failed += 1;
                    if totals.failures.len() < KEPT_FAILURES {
                        totals.failures.push(chain(&*error));
                    }
                }
            }
        }
    }

    async fn request(&mut self) -> Result<String, Failure> {
        let (response, connection) = self.send().await?;
        let status = response.status();
        let reason = response.headers().get("x-outrider-reason").cloned();
        let closes = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
        if closes {
            self.shared.totals().closing += 1;
        }
        let body = response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        if self.shared.plan.keeps && !closes {
            self.kept = Some(connection);
        }
        if status.is_success() {
            Ok(replica(text))
        } else {
            Err(format!("{status} {reason:?}: {text}").into())
        }
    }

    async fn send(&mut self) -> Result<(Response<Incoming>, Connection), Failure> {
        if let Some(mut kept) = self.kept.take()
            && kept.ready().await.is_ok()
        {
            match kept.try_send_request(message(&self.shared.plan)).await {
                Ok(response) => return Ok((response, kept)),
                Err(failed) => {
                    let is_unsent = failed.message().is_some();
                    let error = failed.into_error();
                    let may_repeat = self.shared.plan.method == Method::GET && is_closed_unanswered(&error);
                    if !is_unsent && !may_repeat {
                        return Err(error.into());
                    }
                    self.shared.totals().repeated += 1;
                }
            }
        }
        let mut connection = connect(self.shared.target).await?;
        let response = connection.send_request(message(&self.shared.plan)).await?;
        Ok((response, connection))
    }
}

async fn connect(target: SocketAddr) -> Result<Connection, Failure> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error is also the error of the request under way.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn message(plan: &Plan) -> Request<Full<Bytes>> {
    let Plan { method, path, keeps, .. } = plan;
    let body = if method == Method::POST { Bytes::from_static(b"a small body") } else { Bytes::new() };
    let mut request = Request::builder().method(method).uri(*path).header(header::HOST, CALLED);
    if !keeps {
        request = request.header(header::CONNECTION, "close");
    }
    request.body(Full::new(body)).expect("a good request")
}

/// The replica that answered: apps of this process say their name, others put it into JSON.
fn replica(text: String) -> String {
    let json = serde_json::from_str::<serde_json::Value>(&text);
    json.ok().and_then(|json| json["replica"].as_str().map(str::to_owned)).unwrap_or(text)
}

/// Whether the connection ended without a byte of an answer.
fn is_closed_unanswered(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_closed() || error.is_canceled()
}

/// An error with its causes.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// One connection of an app, used by hand.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
}

/// A response's head and its body, as far as it came.
pub(super) type Answer = (http::response::Parts, Result<Bytes, hyper::Error>);

impl Session {
    pub(super) async fn open(target: SocketAddr) -> Self {
        Self { connection: connect(target).await.expect("it listens") }
    }

    /// Sends a request; the body is the caller's to read.
    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &'static str,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.connection.ready().await?;
        self.connection.send_request(message(&Plan { method, path, ..Plan::default() })).await
    }

    pub(super) async fn get(&mut self, path: &'static str) -> Result<Answer, hyper::Error> {
        let (head, body) = self.send(Method::GET, path).await?.into_parts();
        Ok((head, body.collect().await.map(|whole| whole.to_bytes())))
    }
}

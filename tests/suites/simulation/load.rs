//! The calling app: requests at random times, each with what became of it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;
use turmoil::net::TcpStream;

use super::{log::Log, service::REPLICA};

/// Request header: the request's number.
pub(super) const NUMBER: &str = "x-number";
/// Where the calling app's sidecar listens for it.
pub(super) const OUTBOUND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4340);
/// No answer within this is a lost request: longer than it takes the sidecar to notice a dead path by its pings
/// (30 s and 10 s) and to ask another replica.
const PATIENCE: Duration = Duration::from_secs(45);
/// One request in so many is a POST.
const POST_EVERY: u32 = 4;
/// Largest body, in bytes: over some frames, within what is kept for a repetition.
const MAX_BODY_BYTES: usize = 40_000;

/// How requests go on, for whoever watches.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When each was made, in order of time.
    pub(super) begun: Vec<Duration>,
    /// Those whose answer's head has not come, by their number, and since when.
    pub(super) waiting: BTreeMap<u32, Duration>,
}

/// Clones share it.
pub(super) type Watched = Arc<Mutex<Progress>>;

/// How requests come in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Requests per second, on average.
    pub(super) rate: f64,
    /// From the first to the last.
    pub(super) duration: Duration,
}

/// A request, and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) method: Method,
    /// When it was made, from the start of the simulation.
    pub(super) began: Duration,
    /// When it ended.
    pub(super) ended: Duration,
    pub(super) end: End,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A whole answer.
    Answered {
        /// The status.
        status: StatusCode,
        /// Who gave it; empty if it was the sidecar itself.
        replica: String,
        /// Whether the body is the one that was sent.
        is_echo: bool,
    },
    /// A head, but not its whole body.
    BrokenOff {
        /// Whose.
        replica: String,
    },
    /// The sidecar gave no answer at all.
    Failed(String),
    /// No answer in time.
    Lost,
}

impl Load {
    /// Makes all requests and waits for what becomes of them.
    pub(super) async fn run(self, seed: u64, log: Log, progress: Watched) -> turmoil::Result<Vec<Call>> {
        let stream = TcpStream::connect(OUTBOUND).await?;
        let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        let driver = tasks.spawn(async { drop(driver.await) });
        let calls = Arc::new(Mutex::new(Vec::new()));

        let mut rng = fastrand::Rng::with_seed(seed);
        let end = tokio::time::sleep(self.duration);
        tokio::pin!(end);
        for number in 0.. {
            // Exponential gaps: arrivals that know nothing of each other.
            let gap = Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / self.rate);
            tokio::select! {
                biased;
                () = &mut end => break,
                () = tokio::time::sleep(gap) => {}
            }
            let (sender, log, calls) = (sender.clone(), log.clone(), Arc::clone(&calls));
            let progress = Arc::clone(&progress);
            let method = if rng.u32(0..POST_EVERY) == 0 { Method::POST } else { Method::GET };
            let body = Bytes::from(vec![rng.u8(..); rng.usize(0..MAX_BODY_BYTES)]);
            tasks.spawn(async move {
                let call = call(sender, number, (method, body), progress).await;
                log.write(&call);
                calls.lock().unwrap().push(call);
            });
        }
        while tasks.len() > 1 {
            tasks.join_next().await;
        }
        driver.abort();
        let calls = calls.lock().unwrap().clone();
        Ok(calls)
    }
}

async fn call(
    sender: SendRequest<Full<Bytes>>,
    number: u32,
    (method, body): (Method, Bytes),
    progress: Watched,
) -> Call {
    let began = elapsed();
    {
        let mut progress = progress.lock().unwrap();
        progress.begun.push(began);
        progress.waiting.insert(number, began);
    }
    let exchange = exchange(sender, number, (&method, body), &progress);
    let end = tokio::time::timeout(PATIENCE, exchange).await.unwrap_or(End::Lost);
    progress.lock().unwrap().waiting.remove(&number);
    Call { number, method, began, ended: elapsed(), end }
}

/// Since the start of the simulation.
fn elapsed() -> Duration {
    turmoil::sim_elapsed().expect("requests are made within the simulation")
}

async fn exchange(
    mut sender: SendRequest<Full<Bytes>>,
    number: u32,
    (method, body): (&Method, Bytes),
    progress: &Watched,
) -> End {
    let request = Request::builder()
        .method(method)
        .uri("http://orders/")
        .header(NUMBER, number)
        .body(Full::new(body.clone()))
        .unwrap();
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => return End::Failed(error.to_string()),
    };
    progress.lock().unwrap().waiting.remove(&number);
    let status = response.status();
    let replica = response.headers().get(REPLICA).map(|name| name.to_str().unwrap().to_owned());
    let replica = replica.unwrap_or_default();
    match response.into_body().collect().await {
        Ok(echo) => End::Answered { status, replica, is_echo: echo.to_bytes() == body },
        Err(_) => End::BrokenOff { replica },
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {:?}", self.method, self.number, self.end)
    }
}

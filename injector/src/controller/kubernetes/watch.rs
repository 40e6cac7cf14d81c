//! Keeps watching one kind of objects: lists, watches, lists again after 410, and goes on asking, ever more slowly, while the
//! API server is away. What was known stays.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use kube::{
    Api, Client,
    client::ClientBuilder,
    runtime::{WatchStreamExt as _, watcher},
};
use outrider::clock::Clock;
use tokio::sync::mpsc;
use tower::util::MapResponseLayer;

use super::api::Watched;
use crate::controller::model::objects::Event;

/// How often a watch is begun anew by the server: a silent one is noticed this and five seconds later.
pub const WATCH_SECONDS: u32 = 60;
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// Pause before a list that was asked for with 410.
const RELIST_PAUSE: Duration = Duration::from_secs(1);

/// How long, beyond the time of a watch, an API server may be silent on a connection on which something is asked: a list that is
/// never answered is noticed then.
const SILENCE_MARGIN: Duration = Duration::from_secs(10);
/// Pause between looks at the start whether a kind of our own is really not there: nobody is answered before.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// How often in a row a kind that was there, or is our own, must be unknown to be believed gone: an API server that has just
/// started may not know all of its kinds.
const PATIENCE: u32 = 3;

/// How watching one kind goes.
#[derive(Debug)]
pub struct WatchStatus {
    since: Instant,
    /// When the API server last answered, in milliseconds after `since`; 0: never.
    answered_ms: AtomicU64,
    /// Lists that were completed.
    pub lists: AtomicU64,
    /// Changes that were told.
    pub events: AtomicU64,
    /// Lists and watches that failed.
    pub errors: AtomicU64,
    is_failing: AtomicBool,
    /// Nobody has defined the kind.
    is_absent: AtomicBool,
}

/// Why following a kind ends.
enum Left {
    /// Nobody wants events any more.
    Unwanted,
    /// A list from the beginning is needed.
    Gone,
    /// The API server does not know the kind.
    Absent,
}

impl WatchStatus {
    /// Of a watch that has not begun.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            answered_ms: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            events: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
            is_absent: AtomicBool::new(false),
        }
    }

    fn answered(&self, now: Instant) {
        let ms = u64::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        self.answered_ms.store(ms.max(1), Ordering::Relaxed);
    }

    /// How old what is known may be: the time since the API server last answered. While all is well, less than
    /// [`WATCH_SECONDS`] and a few.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        let answered = Duration::from_millis(self.answered_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.since).saturating_sub(answered)
    }
}

/// Watches objects of kind `K` for ever, and puts what it learns into `events`. `seconds`: how long a watch lasts.
pub async fn watch<K: Watched>(
    config: kube::Config,
    status: Arc<WatchStatus>,
    clock: Clock,
    events: mpsc::Sender<Event>,
    seconds: u32,
) {
    let client = loop {
        match client(config.clone(), &status, &clock) {
            Ok(client) => break client,
            // The root of the API server's certificate, or the token, cannot be read: that may pass.
            Err(error) => {
                tracing::error!(%error, "no client for the API server can be made");
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        }
    };
    let mut missing = 0;
    loop {
        let pause = match follow::<K>(client.clone(), &status, &clock, &events, seconds).await {
            Left::Unwanted => return,
            Left::Gone => RELIST_PAUSE,
            Left::Absent => {
                missing = if status.is_absent.swap(true, Ordering::Relaxed) { missing + 1 } else { 1 };
                if missing == 1 {
                    let kind = K::KIND.as_str();
                    tracing::info!(kind, "the API server does not know this kind; it is asked for again");
                }
                // That is an answer, too: there are none.
                status.answered(clock.now());
                let is_first = status.lists.load(Ordering::Relaxed) == 0;
                // Ours are there wherever we are, and no AuthorizationPolicy means that everybody may call.
                let is_believed = missing > PATIENCE || (is_first && !K::KIND.is_own());
                let nothing = [Event::ListBegins(K::KIND), Event::ListEnds(K::KIND)];
                for event in nothing.into_iter().filter(|_| is_believed) {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
                let pause = Duration::from_secs(seconds.into());
                if is_believed || !is_first { pause } else { pause.min(FIRST_LOOK) }
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The same, with a bound on the API server's silence. `seconds`: how long a watch lasts.
#[must_use]
pub fn bounded(mut config: kube::Config, seconds: u32) -> kube::Config {
    config.read_timeout = Some(Duration::from_secs(seconds.into()) + SILENCE_MARGIN);
    // Not since the connection was used last, but since something was asked on it.
    config.reset_reader_on_write = true;
    config
}

/// A client whose answers are noted: a watch that begins well is a sign of life, also if nothing happens.
fn client(config: kube::Config, status: &Arc<WatchStatus>, clock: &Clock) -> kube::Result<Client> {
    let (status, clock) = (Arc::clone(status), clock.clone());
    let note = move |response: http::Response<_>| {
        if response.status().is_success() {
            status.answered(clock.now());
        }
        response
    };
    Ok(ClientBuilder::try_from(config)?.with_layer(&MapResponseLayer::new(note)).build())
}

/// Until it has to end.
async fn follow<K: Watched>(
    client: Client,
    status: &WatchStatus,
    clock: &Clock,
    events: &mpsc::Sender<Event>,
    seconds: u32,
) -> Left {
    let config = watcher::Config::default().timeout(seconds).page_size(PAGE);
    let mut told = Box::pin(watcher(Api::<K>::all(client), config).default_backoff());
    while let Some(next) = told.next().await {
        let event = match next {
            Ok(event) => event,
            Err(error) => {
                if K::KIND.is_optional() && is_unknown(&error) {
                    return Left::Absent;
                }
                note_failure(status, K::KIND.as_str(), &error);
                if is_gone(&error) {
                    return Left::Gone;
                }
                continue;
            }
        };
        // A list that begins is a question, and no answer yet.
        if !matches!(event, watcher::Event::Init) {
            status.answered(clock.now());
            status.is_absent.store(false, Ordering::Relaxed);
            if status.is_failing.swap(false, Ordering::Relaxed) {
                tracing::info!(kind = K::KIND.as_str(), "the API server answers again");
            }
        }
        let event = match event {
            watcher::Event::Init => Event::ListBegins(K::KIND),
            watcher::Event::InitDone => {
                status.lists.fetch_add(1, Ordering::Relaxed);
                Event::ListEnds(K::KIND)
            }
            watcher::Event::InitApply(object) => Event::Set(object.object()),
            watcher::Event::Apply(object) => {
                status.events.fetch_add(1, Ordering::Relaxed);
                Event::Set(object.object())
            }
            watcher::Event::Delete(object) => {
                status.events.fetch_add(1, Ordering::Relaxed);
                Event::Gone(K::KIND, object.key())
            }
        };
        if events.send(event).await.is_err() {
            return Left::Unwanted;
        }
    }
    Left::Unwanted
}

fn note_failure(status: &WatchStatus, kind: &'static str, error: &watcher::Error) {
    status.errors.fetch_add(1, Ordering::Relaxed);
    if status.is_failing.swap(true, Ordering::Relaxed) {
        tracing::debug!(kind, %error, "watching failed");
    } else {
        tracing::warn!(kind, %error, "watching failed; what is known stays, and it is asked again");
    }
}

/// Whether the server keeps no changes since the version that was asked for. As an event, `watcher` knows what to do; as
/// the answer's status it would ask for ever.
fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// Whether there is no such kind: no object of that path, of any name.
fn is_unknown(error: &watcher::Error) -> bool {
    matches!(error,
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 404)
}

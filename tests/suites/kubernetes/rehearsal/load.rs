//! Calls from within a pod, one after the other, without rest.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use super::pod::Pod;
use crate::{
    harness::{BoxError, Client, body, client::request},
    processes::until,
};

/// Calls over one connection: neither a connection for each, nor one for all.
const CALLS: usize = 20;
/// Who call at the same time.
pub(super) const CALLERS: usize = 4;
/// Longest call, and longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// A caller beside a pod's containers, as root: the kernel takes it for the app.
pub(super) struct Load {
    shared: Arc<Shared>,
    ended: oneshot::Receiver<()>,
}

#[derive(Default)]
struct Shared {
    good: AtomicU64,
    failures: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Load {
    /// `GET` may be repeated by sidecars, `POST` may not once it was begun.
    pub(super) fn begin(pod: &Pod, to: SocketAddr, method: Method) -> Self {
        let shared = Arc::new(Shared::default());
        let caller = Arc::clone(&shared);
        let ended = pod.host.begin(move || async move {
            while !caller.is_over.load(Ordering::SeqCst) {
                if let Err(error) = caller.calls(to, &method).await {
                    caller.failures.lock().unwrap().push(error.to_string());
                }
            }
        });
        Self { shared, ended }
    }

    /// Several, at the same time.
    pub(super) fn several(pod: &Pod, to: SocketAddr, method: &Method) -> Vec<Self> {
        (0..CALLERS).map(|_| Self::begin(pod, to, method.clone())).collect()
    }

    /// Waits for so many more good calls.
    pub(super) async fn goes_on(&self, calls: u64) {
        let enough = self.shared.good.load(Ordering::SeqCst) + calls;
        until("calls go on", async || self.shared.good.load(Ordering::SeqCst) >= enough).await;
    }

    /// Ends it; what failed.
    pub(super) async fn end(self) -> Vec<String> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.ended.await.expect("the caller did not panic");
        std::mem::take(&mut self.shared.failures.lock().unwrap())
    }
}

impl Shared {
    /// Calls over one connection.
    async fn calls(&self, to: SocketAddr, method: &Method) -> Result<(), BoxError> {
        let stream = timeout(PATIENCE, TcpStream::connect(to)).await??;
        let mut client = Client::over(stream, http::Version::HTTP_11).await;
        for _ in 0..CALLS {
            let call = async {
                let answer = client.send(request(method.clone(), "/", body::empty())).await?;
                Ok::<_, BoxError>((answer.status(), body::text(answer.into_body()).await))
            };
            let (status, text) = timeout(PATIENCE, call).await??;
            if status != StatusCode::OK {
                return Err(format!("{status}: {text}").into());
            }
            self.good.fetch_add(1, Ordering::SeqCst);
            if self.is_over.load(Ordering::SeqCst) {
                break;
            }
        }
        Ok(())
    }
}

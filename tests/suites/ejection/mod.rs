//! Endpoints that fail, or are not as the others are, rest; who does what callers make them do does not.

mod calls;
mod innocent;
mod streams;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use http::{Method, Response, StatusCode};
use outrider::model::{
    Endpoint,
    health::Standing,
    outlier::{OutlierRuntime, Reason},
};

use crate::harness::{HttpApp, Sidecar, TestMesh, body, client::call, eventually};

/// Everybody has their turn, nothing is repeated, and who rests does so for longer than any test lasts.
const IN_TURNS: &str =
    "balance: round_robin, retry: {max_retries: 0}, outlier_detection: {ejection_time: 1h}";

/// An app whose answer's status can be changed.
pub(super) struct Moody {
    pub(super) app: HttpApp,
    status: Arc<AtomicU16>,
}

impl Moody {
    pub(super) async fn new(status: StatusCode) -> Self {
        let status = Arc::new(AtomicU16::new(status.as_u16()));
        let told = Arc::clone(&status);
        let app = HttpApp::start(move |request| {
            let status = told.load(Ordering::Relaxed);
            async move {
                body::drain(request.into_body()).await?;
                Ok(Response::builder().status(status).body(body::full("moody"))?)
            }
        });
        Self { app: app.await, status }
    }

    pub(super) fn turns(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }
}

/// Apps behind a sidecar each, called `orders`, and the sidecar of their caller.
pub(super) struct Service {
    _mesh: TestMesh,
    _callees: Vec<Sidecar>,
    pub(super) web: Sidecar,
    endpoints: Vec<SocketAddr>,
}

impl Service {
    pub(super) async fn new(apps: &[SocketAddr], listener: &str, cluster: &str) -> Self {
        let mesh = TestMesh::new();
        let mut callees = Vec::new();
        for app in apps {
            callees.push(mesh.callee("orders", *app, listener).await);
        }
        let endpoints: Vec<_> = callees.iter().map(Sidecar::address).collect();
        let web = mesh.caller(&endpoints, cluster).await;
        Self { _mesh: mesh, _callees: callees, web, endpoints }
    }

    pub(super) async fn call(&self, times: usize) -> Vec<StatusCode> {
        let mut statuses = Vec::new();
        for _ in 0..times {
            statuses.push(call(self.web.address(), Method::GET).await.0);
        }
        statuses
    }

    pub(super) fn endpoint(&self, index: usize) -> Arc<Endpoint> {
        endpoint(&self.web, self.endpoints[index])
    }

    pub(super) fn standing(&self, index: usize) -> Standing {
        standing(&self.endpoint(index))
    }

    pub(super) fn is_ejected(&self, index: usize) -> bool {
        is_ejected(&self.endpoint(index))
    }

    /// Which of them are ejected.
    pub(super) fn ejected(&self) -> Vec<usize> {
        (0..self.endpoints.len()).filter(|index| self.is_ejected(*index)).collect()
    }

    pub(super) fn ejected_for(&self, reason: Reason) -> u64 {
        self.web.cluster("orders").runtime.outlier.ejected_for(reason)
    }
}

pub(super) fn endpoint(web: &Sidecar, address: SocketAddr) -> Arc<Endpoint> {
    let cluster = web.cluster("orders");
    Arc::clone(cluster.endpoints.iter().find(|endpoint| endpoint.address() == address).unwrap())
}

pub(super) fn standing(endpoint: &Endpoint) -> Standing {
    endpoint.runtime.standing(endpoint.settings.is_ready, std::time::Instant::now())
}

pub(super) fn is_ejected(endpoint: &Endpoint) -> bool {
    endpoint.runtime.health.ejected_until_us.load(Ordering::Relaxed) > 0
}

/// Waits until the endpoints of `orders` were looked at so many times more, and returns how often they were.
pub(super) async fn looked_at(web: &Sidecar, times: u32) {
    for _ in 0..times {
        let looks = |state: &OutlierRuntime| state.looked_at_us.load(Ordering::Relaxed);
        let cluster = web.cluster("orders");
        let before = looks(&cluster.runtime.outlier);
        eventually("endpoints are looked at", || looks(&cluster.runtime.outlier) != before).await;
    }
}

/// Callers that call one after the other until this is dropped.
pub(super) struct Load(Arc<AtomicBool>);

impl Load {
    pub(super) fn start(web: SocketAddr, callers: usize, pause: Duration) -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        for _ in 0..callers {
            let goes_on = Arc::clone(&goes_on);
            tokio::spawn(async move {
                while goes_on.load(Ordering::Relaxed) {
                    call(web, Method::GET).await;
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self(goes_on)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

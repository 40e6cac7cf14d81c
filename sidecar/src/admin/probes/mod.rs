//! Probes of the own app, performed for the kubelet: `/probe/<name>` of the read-only listener.
//!
//! A strict sidecar refuses whoever has no certificate, and the kubelet has none. So it asks here, and the probe is made
//! beside the app: to the address that was asked (the pod's) and the port of the original probe, over the way that the
//! app's own requests take. Rules are the kubelet's (`k8s.io/kubernetes/pkg/probe`): any status from 200 to 399, redirects
//! on the same host followed up to ten times, certificates not looked at, ten kilobytes of an answer read.
//!
//! Nobody can ask for anything that is not configured, nor be told more than what the app's status was.

mod grpc;
mod http;
mod redirect;
mod tls;

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    model::probe::{Probe, ProbeAction},
    net::{Net, Purpose},
};

/// Probes under way; more are refused.
pub(super) const MAX_PROBES: usize = 32;
/// Who asks if the kubelet does not say.
const USER_AGENT: &str = "kube-probe/outrider";

/// A connection to the app.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
type Socket = Box<dyn Io>;
type Connecting = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>>;

/// How the own app is reached.
#[derive(Clone)]
pub struct Prober(Arc<dyn Fn(SocketAddr, Duration) -> Connecting + Send + Sync>);

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prober")
    }
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// For the kubelet: 200 to 399 is success.
    pub(super) status: StatusCode,
    /// For whoever reads events and logs; nothing of the app's answer but its status.
    pub(super) text: String,
}

impl Outcome {
    fn success(text: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, text: text.into() }
    }

    fn failure(text: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text: text.into() }
    }
}

/// One probe under way.
#[derive(Clone, Copy)]
struct Asking<'a> {
    prober: &'a Prober,
    /// The address that was asked.
    own: IpAddr,
    user_agent: &'a HeaderValue,
    timeout: Duration,
}

impl Prober {
    /// Over that network.
    #[must_use]
    pub fn by<N: Net>(net: &N) -> Self {
        let net = net.clone();
        Self(Arc::new(move |address, timeout| {
            let net = net.clone();
            Box::pin(
                async move { Ok(Box::new(net.connect(address, Purpose::App, timeout).await?) as Socket) },
            )
        }))
    }

    /// Performs a probe, asked for at the address `own` with these fields.
    pub(super) async fn perform(&self, probe: &Probe, own: Option<IpAddr>, asked: &HeaderMap) -> Outcome {
        let own = own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_canonical();
        let unsaid = HeaderValue::from_static(USER_AGENT);
        let user_agent = asked.get(header::USER_AGENT).unwrap_or(&unsaid);
        let asking = Asking { prober: self, own, user_agent, timeout: probe.timeout };
        let performed = async {
            match &probe.action {
                ProbeAction::Http(http) => http::perform(asking, http).await,
                ProbeAction::Tcp { port, host } => asking.tcp(*port, *host).await,
                ProbeAction::Grpc { port, service } => grpc::perform(asking, *port, service).await,
            }
        };
        match tokio::time::timeout(probe.timeout, Box::pin(performed)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Outcome {
                status: StatusCode::GATEWAY_TIMEOUT,
                text: format!("no answer within {:?}", probe.timeout),
            },
        }
    }
}

impl Asking<'_> {
    async fn connect(&self, port: u16, host: Option<IpAddr>) -> Result<Socket, Outcome> {
        let address = SocketAddr::new(host.unwrap_or(self.own), port);
        let connected = (self.prober.0)(address, self.timeout).await;
        connected.map_err(|error| Outcome::failure(format!("no connection to {address}: {error}")))
    }

    async fn tcp(&self, port: u16, host: Option<IpAddr>) -> Outcome {
        match self.connect(port, host).await {
            Ok(_accepted) => Outcome::success("accepted"),
            Err(failure) => failure,
        }
    }
}

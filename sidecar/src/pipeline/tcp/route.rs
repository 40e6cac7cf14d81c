//! Where an opaque stream goes: by a route of `tcp_routes`, or where it would go without.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::Destination;
use crate::{
    buffer,
    detect::{ClientHello, MAX_CLIENT_HELLO_BYTES},
    drain::Phase,
    model::{Cluster, ClusterName, ListenerKind, Snapshot},
    net::Net,
    pipeline::{destination, door::Door, error::ProxyError, worker::Worker},
    route::{
        self, AtAddress,
        tcp::{self, Asked, Found},
        weighted,
    },
};

/// Finds the way of one stream; asked twice, it leads to the same of several clusters.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Routing {
    /// What says which of them, once that was asked.
    draw: Option<u64>,
}

/// The beginning of a stream.
pub(in crate::pipeline) struct Hello {
    /// All that has been read.
    pub(in crate::pipeline) read: Bytes,
    /// Whom its ClientHello is for, if there is one.
    pub(in crate::pipeline) name: Option<Box<str>>,
}

/// Where a stream would go without routes, and what else is known of it.
pub(in crate::pipeline) struct Known<'a> {
    pub(in crate::pipeline) unrouted: Result<Arc<Cluster>, ProxyError>,
    /// The port that it was made to.
    pub(in crate::pipeline) port: Option<u16>,
    /// Whom its ClientHello is for.
    pub(in crate::pipeline) name: Option<&'a str>,
}

impl<'a> Known<'a> {
    /// What is known of a stream that came in by that door: its ClientHello is for `name`.
    pub(in crate::pipeline) fn of<N: Net>(
        (worker, door): (&Worker<N>, &Door),
        snapshot: &Snapshot,
        name: Option<&'a str>,
    ) -> Self {
        let unrouted = destination::find(worker, door, snapshot, None);
        Self { unrouted, port: door.port(), name }
    }

    fn asked(&self) -> Asked<'_> {
        let service = self.unrouted.as_ref().ok().map(|cluster| cluster.name());
        Asked {
            service: service.filter(|name| **name != ClusterName::passthrough()),
            port: self.port,
            sni: self.name,
        }
    }

    /// Whether the name in the stream's ClientHello, if it has one, says more of where it goes.
    pub(in crate::pipeline) fn needs_name(&self, door: &Door, snapshot: &Snapshot) -> bool {
        !has_chosen(door, snapshot) && tcp::needs_name(&snapshot.config.settings.tcp_routes, self.asked())
    }
}

impl Routing {
    /// Where a stream goes.
    ///
    /// # Errors
    /// [`ProxyError::NoRoute`].
    pub(in crate::pipeline) fn find<N: Net>(
        &mut self,
        (worker, door): (&Worker<N>, &Door),
        snapshot: &Snapshot,
        known: Known<'_>,
    ) -> Result<Destination, ProxyError> {
        let routes = &snapshot.config.settings.tcp_routes;
        let found =
            if has_chosen(door, snapshot) { Found::Unrouted } else { tcp::find(routes, known.asked()) };
        let route = match found {
            Found::Unrouted => {
                return known.unrouted.map(|cluster| Destination::new(&cluster, snapshot, door));
            }
            Found::Nowhere => return Err(destination::no_route(door, snapshot, known.name)),
            Found::Route(route) => route,
        };
        let draw = *self.draw.get_or_insert_with(|| worker.with_rng(|rng| rng.u64(..)));
        let place = weighted::by_text(&route.clusters, &draw.to_be_bytes());
        let cluster = route.clusters.list().get(place).and_then(|chosen| snapshot.cluster(&chosen.name));
        let cluster = cluster.ok_or_else(|| destination::no_route(door, snapshot, known.name))?;
        let destination = Destination::new(cluster, snapshot, door).by(&route.name);
        // Only TLS has a name.
        Ok(if route.snis.is_empty() { destination } else { destination.with_own_tls() })
    }
}

/// Whether the app has dialled one endpoint, and not a service: it has its reasons.
fn has_chosen(door: &Door, snapshot: &Snapshot) -> bool {
    let is_intercepted = matches!(door.listener(snapshot).kind, ListenerKind::InterceptedOutbound { .. });
    let at_address = |original| route::at_address(snapshot, original);
    is_intercepted && matches!(door.original().map(at_address), Some(AtAddress::Endpoint(..)))
}

/// Reads a stream's ClientHello, if it begins with one, as long as a head may take. `None` if the connection breaks before,
/// or the sidecar stops while nothing was said.
pub(in crate::pipeline) async fn hello<N: Net>(
    worker: &Worker<N>,
    door: &Door,
    stream: &mut N::Stream,
    first: Bytes,
) -> Option<Hello> {
    let limit = door.load(&worker.snapshots).config.settings.limits.header_read_timeout;
    let mut watcher = door.drain().watcher();
    let mut bytes = BytesMut::from(first);
    let reading = async {
        loop {
            match ClientHello::parse(&bytes) {
                Ok(None) => {}
                Ok(Some(hello)) => return Ok(hello.server_name),
                Err(_) => return Ok::<_, io::Error>(None),
            }
            // What ends, or takes too long, is carried on as it is.
            if buffer::append(stream, &mut bytes, MAX_CLIENT_HELLO_BYTES).await? == 0 {
                return Ok(None);
            }
        }
    };
    let name = tokio::select! {
        biased;
        read = tokio::time::timeout(limit, reading) => match read {
            Ok(read) => read.ok()?,
            Err(_elapsed) => None,
        },
        () = watcher.reached(Phase::Closing) => {
            if bytes.is_empty() {
                return None;
            }
            None
        }
    };
    Some(Hello { read: bytes.freeze(), name })
}

//! Clusters and their endpoints.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    balance,
    family::{Labels, Sink, bytes, metric, seconds},
    outlier,
};
use crate::model::{
    Cluster, Endpoint, Snapshot,
    cluster::EndpointSource,
    flag::ResponseFlag,
    handshake::TlsFailure,
    health::Checked,
    health_check::CheckOutcome,
    pool_counts::Closed,
    runtime::{ClusterRuntime, EndpointRuntime},
    status::LookupOutcome,
    transport::Transport,
};

/// Values of `status_class`, in the order of `RequestCounts::by_class`.
const STATUS_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

pub(super) fn encode(sink: &mut Sink<'_>, snapshot: &Snapshot, now: Instant) -> fmt::Result {
    encode_requests(sink, snapshot)?;
    encode_clusters(sink, snapshot)?;
    encode_discovery(sink, snapshot, now)?;
    balance::encode(sink, snapshot, now)?;
    outlier::encode(sink, snapshot)?;
    encode_waits(sink, snapshot)?;
    encode_checks(sink, snapshot)?;
    encode_endpoints(sink, snapshot)
}

fn direction(cluster: &Cluster) -> &'static str {
    if cluster.name().is_inbound() { "inbound" } else { "outbound" }
}

pub(super) fn labels(cluster: &Cluster) -> Labels<'_, 2> {
    [("direction", direction(cluster)), ("cluster", cluster.name().as_str())]
}

pub(super) fn clusters(snapshot: &Snapshot) -> impl Iterator<Item = &Cluster> {
    snapshot.clusters.values().map(AsRef::as_ref)
}

fn encode_requests(sink: &mut Sink<'_>, snapshot: &Snapshot) -> fmt::Result {
    metric("requests", "Requests and opaque streams that ended, by the class of their status").counters(
        sink,
        clusters(snapshot).flat_map(|cluster| {
            let [direction, name] = labels(cluster);
            STATUS_CLASSES.into_iter().zip(&cluster.runtime.counts.by_class).map(move |(class, count)| {
                ([direction, name, ("status_class", class)], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    metric("failures", "Answers of our own and broken streams, by response flag").counters(
        sink,
        clusters(snapshot).flat_map(|cluster| {
            let [direction, name] = labels(cluster);
            ResponseFlag::ALL.into_iter().zip(&cluster.runtime.counts.by_flag).map(move |(flag, count)| {
                ([direction, name, ("flag", flag.letters())], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    seconds("request_duration", "From a request's arrival to its response's head").histograms(
        sink,
        clusters(snapshot).map(|cluster| (labels(cluster), cluster.runtime.counts.latency.read().coarse())),
    )
}

fn encode_clusters(sink: &mut Sink<'_>, snapshot: &Snapshot) -> fmt::Result {
    let counters = |read: fn(&ClusterRuntime) -> &AtomicU64| {
        clusters(snapshot)
            .map(move |cluster| (labels(cluster), read(&cluster.runtime).load(Ordering::Relaxed)))
    };
    let gauges = |read: fn(&ClusterRuntime) -> &AtomicU32| {
        clusters(snapshot)
            .map(move |cluster| (labels(cluster), f64::from(read(&cluster.runtime).load(Ordering::Relaxed))))
    };
    super::retries::encode(sink, snapshot)?;
    super::mirrors::encode(sink, snapshot)?;
    metric("cluster_transport", "How the cluster is reached: mesh, public, none, or app; always 1").gauges(
        sink,
        clusters(snapshot).map(|cluster| {
            let [direction, name] = labels(cluster);
            ([direction, name, ("tls", cluster.settings.transport.label())], 1.0)
        }),
    )?;
    metric("tls_handshakes", "TLS handshakes with endpoints that went well").counters(
        sink,
        clusters(snapshot).filter(|cluster| cluster.settings.transport.is_tls()).map(|cluster| {
            let count = cluster.runtime.tls_handshakes.load(Ordering::Relaxed);
            ([("cluster", cluster.name().as_str())], count)
        }),
    )?;
    metric("tls_failures", "TLS handshakes with endpoints that failed").counters(
        sink,
        clusters(snapshot).filter(|cluster| cluster.settings.transport.is_tls()).flat_map(|cluster| {
            let name = ("cluster", cluster.name().as_str());
            TlsFailure::ALL.into_iter().zip(&cluster.runtime.tls_failures).map(move |(reason, count)| {
                ([name, ("reason", reason.label())], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    encode_unencrypted(sink, snapshot)?;
    encode_upgrades(sink, snapshot)?;
    metric("cluster_in_flight", "Requests and streams under way").gauges(sink, gauges(|c| &c.in_flight))?;
    metric("cluster_connections", "Upstream connections, those being opened included")
        .gauges(sink, gauges(|c| &c.connections))?;
    metric("cluster_pending", "Requests and streams that wait for a connection")
        .gauges(sink, gauges(|c| &c.pending))?;
    metric("connections_opened", "Upstream connections made").counters(sink, counters(|c| &c.pool.opened))?;
    metric("connections_reused", "Requests and streams that went over a connection that was there already")
        .counters(sink, counters(|c| &c.pool.reused))?;
    encode_closed(sink, snapshot)
}

fn encode_closed(sink: &mut Sink<'_>, snapshot: &Snapshot) -> fmt::Result {
    metric("connections_closed", "Upstream connections closed, by reason").counters(
        sink,
        clusters(snapshot).flat_map(|cluster| {
            let [direction, name] = labels(cluster);
            Closed::ALL.into_iter().map(move |why| {
                ([direction, name, ("reason", why.label())], cluster.runtime.pool.closed_for(why))
            })
        }),
    )
}

/// What leaves and comes unencrypted; clusters with `tls: none` alone have these.
fn encode_unencrypted(sink: &mut Sink<'_>, snapshot: &Snapshot) -> fmt::Result {
    let plain = || {
        clusters(snapshot)
            .filter(|cluster| matches!(cluster.settings.transport, Transport::Plain(_)))
            .map(|cluster| (("cluster", cluster.name().as_str()), &cluster.runtime.unencrypted))
    };
    metric("unencrypted_connections", "Connections made without TLS to services outside the mesh")
        .counters(sink, plain().map(|(name, counts)| ([name], counts.connections.load(Ordering::Relaxed))))?;
    bytes("unencrypted", "Bytes to and from services outside the mesh, without TLS").counters(
        sink,
        plain().flat_map(|(name, counts)| {
            let both = [("sent", &counts.sent_bytes), ("received", &counts.received_bytes)];
            both.map(|(way, bytes)| ([name, ("way", way)], bytes.load(Ordering::Relaxed)))
        }),
    )
}

fn encode_upgrades(sink: &mut Sink<'_>, snapshot: &Snapshot) -> fmt::Result {
    metric("upgrades", "Streams that left HTTP, as for WebSocket, and tunnels of CONNECT").counters(
        sink,
        clusters(snapshot)
            .map(|cluster| (labels(cluster), cluster.runtime.upgrades.total.load(Ordering::Relaxed))),
    )?;
    metric("upgrades_active", "Streams that left HTTP and are under way").gauges(
        sink,
        clusters(snapshot).map(|cluster| {
            (labels(cluster), f64::from(cluster.runtime.upgrades.active.load(Ordering::Relaxed)))
        }),
    )?;
    bytes("upgrade", "Bytes carried after the switch of protocols, by way").counters(
        sink,
        clusters(snapshot).flat_map(|cluster| {
            let [direction, name] = labels(cluster);
            let counts = &cluster.runtime.upgrades;
            [("sent", &counts.sent_bytes), ("received", &counts.received_bytes)]
                .map(|(way, count)| ([direction, name, ("way", way)], count.load(Ordering::Relaxed)))
        }),
    )?;
    seconds("upgrade_duration", "Time that ended streams have spent outside HTTP, as a sum").sums(
        sink,
        clusters(snapshot).map(|cluster| {
            let micros = cluster.runtime.upgrades.duration_us.load(Ordering::Relaxed);
            (labels(cluster), Duration::from_micros(micros).as_secs_f64())
        }),
    )
}

fn encode_discovery(sink: &mut Sink<'_>, snapshot: &Snapshot, now: Instant) -> fmt::Result {
    seconds(
        "discovery_age",
        "Time since the endpoints were last confirmed; none for those of the configuration",
    )
    .gauges(
        sink,
        clusters(snapshot).filter_map(|cluster| {
            let age = cluster.runtime.discovery.age(now)?;
            Some(([("cluster", cluster.name().as_str())], age.as_secs_f64()))
        }),
    )?;
    metric("discovery_endpoints", "Endpoints in use").gauges(
        sink,
        clusters(snapshot).map(|cluster| {
            // More than 10,000 are never taken.
            let count = u32::try_from(cluster.endpoints.len()).unwrap_or(u32::MAX);
            ([("cluster", cluster.name().as_str())], f64::from(count))
        }),
    )?;
    metric("dns_lookups", "Lookups of a cluster's name in the DNS, by what came of them").counters(
        sink,
        clusters(snapshot)
            .filter(|cluster| matches!(cluster.settings.source, EndpointSource::Dns(_)))
            .flat_map(|cluster| {
                let name = ("cluster", cluster.name().as_str());
                let outcomes =
                    LookupOutcome::ALL.into_iter().zip(&cluster.runtime.discovery.lookups.by_outcome);
                outcomes.map(move |(outcome, count)| {
                    ([name, ("outcome", outcome.label())], count.load(Ordering::Relaxed))
                })
            }),
    )?;
    metric("discovery_failures", "Looks for endpoints that gave no usable list; the last good one stayed")
        .counters(
            sink,
            clusters(snapshot).map(|cluster| {
                let failures = cluster.runtime.discovery.failures.load(Ordering::Relaxed);
                ([("cluster", cluster.name().as_str())], failures)
            }),
        )
}

/// Requests that nobody could be asked with at first.
fn encode_waits(sink: &mut Sink<'_>, snapshot: &Snapshot) -> fmt::Result {
    metric("endpoint_waits", "Requests and streams that waited for an endpoint that may be asked").counters(
        sink,
        clusters(snapshot).filter(|cluster| !cluster.name().is_inbound()).flat_map(|cluster| {
            let name = ("cluster", cluster.name().as_str());
            let starvation = &cluster.runtime.starvation;
            [("found", &starvation.found), ("none", &starvation.in_vain)]
                .map(|(outcome, count)| ([name, ("outcome", outcome)], count.load(Ordering::Relaxed)))
        }),
    )
}

/// Health checks; clusters with some alone have these.
fn encode_checks(sink: &mut Sink<'_>, snapshot: &Snapshot) -> fmt::Result {
    let checked = || {
        clusters(snapshot)
            .filter(|cluster| cluster.settings.health_check.is_some())
            .map(|cluster| (("cluster", cluster.name().as_str()), cluster))
    };
    metric("health_checks", "Health checks of endpoints that ended, by what they found").counters(
        sink,
        checked().flat_map(|(name, cluster)| {
            let counts = &cluster.runtime.checks;
            CheckOutcome::ALL.map(move |outcome| ([name, ("outcome", outcome.label())], counts.read(outcome)))
        }),
    )?;
    metric("unhealthy_endpoints", "Endpoints that health checks take for unhealthy").gauges(
        sink,
        checked().map(|(name, cluster)| {
            let is_unhealthy =
                |endpoint: &&Arc<Endpoint>| endpoint.runtime.health.checked() == Checked::Unhealthy;
            // More than 10,000 are never taken.
            let count = u32::try_from(cluster.endpoints.iter().filter(is_unhealthy).count());
            ([name], f64::from(count.unwrap_or(u32::MAX)))
        }),
    )
}

fn encode_endpoints(sink: &mut Sink<'_>, snapshot: &Snapshot) -> fmt::Result {
    let rows: Vec<(&Cluster, String, &Endpoint)> = clusters(snapshot)
        .flat_map(|cluster| {
            cluster
                .endpoints
                .iter()
                .map(move |endpoint| (cluster, endpoint.address().to_string(), &**endpoint))
        })
        .collect();
    let series = || {
        rows.iter().map(|(cluster, address, endpoint)| {
            let [direction, name] = labels(cluster);
            ([direction, name, ("endpoint", address.as_str())], &*endpoint.runtime)
        })
    };
    let counters = |read: fn(&EndpointRuntime) -> &AtomicU64| {
        series().map(move |(labels, runtime)| (labels, read(runtime).load(Ordering::Relaxed)))
    };
    let gauges = |read: fn(&EndpointRuntime) -> &AtomicU32| {
        series().map(move |(labels, runtime)| (labels, f64::from(read(runtime).load(Ordering::Relaxed))))
    };
    metric("endpoint_picks", "Times the endpoint was chosen").counters(sink, counters(|e| &e.picks))?;
    metric("endpoint_failures", "Attempts that ended without a usable answer")
        .counters(sink, counters(|e| &e.failures))?;
    metric("endpoint_in_flight", "Requests sent and not yet answered")
        .gauges(sink, gauges(|e| &e.in_flight))?;
    metric("endpoint_connections", "Upstream connections open").gauges(sink, gauges(|e| &e.connections))?;
    seconds("endpoint_latency", "Smoothed time to a response's head; 0 before the first").gauges(
        sink,
        series().map(|(labels, runtime)| {
            let latency = Duration::from_micros(runtime.latency_us.load(Ordering::Relaxed));
            (labels, latency.as_secs_f64())
        }),
    )
}

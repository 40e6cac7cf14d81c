//! Clusters and their endpoints.

use std::{
    fmt,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use prometheus_client::encoding::DescriptorEncoder;

use super::family::{Labels, metric, seconds};
use crate::model::{
    Cluster, Endpoint, Snapshot,
    cluster::EndpointSource,
    flag::ResponseFlag,
    handshake::TlsFailure,
    pool_counts::Closed,
    runtime::{ClusterRuntime, EndpointRuntime},
    status::LookupOutcome,
    transport::Transport,
};

/// Values of `status_class`, in the order of `RequestCounts::by_class`.
const STATUS_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot, now: Instant) -> fmt::Result {
    encode_requests(encoder, snapshot)?;
    encode_clusters(encoder, snapshot)?;
    encode_discovery(encoder, snapshot, now)?;
    encode_endpoints(encoder, snapshot)
}

fn direction(cluster: &Cluster) -> &'static str {
    if cluster.name().is_inbound() { "inbound" } else { "outbound" }
}

fn labels(cluster: &Cluster) -> Labels<'_, 2> {
    [("direction", direction(cluster)), ("cluster", cluster.name().as_str())]
}

fn clusters(snapshot: &Snapshot) -> impl Iterator<Item = &Cluster> {
    snapshot.clusters.values().map(AsRef::as_ref)
}

fn encode_requests(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    metric("requests", "Requests and opaque streams that ended, by the class of their status").counters(
        encoder,
        clusters(snapshot).flat_map(|cluster| {
            let [direction, name] = labels(cluster);
            STATUS_CLASSES.into_iter().zip(&cluster.runtime.counts.by_class).map(move |(class, count)| {
                ([direction, name, ("status_class", class)], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    metric("failures", "Answers of our own and broken streams, by response flag").counters(
        encoder,
        clusters(snapshot).flat_map(|cluster| {
            let [direction, name] = labels(cluster);
            ResponseFlag::ALL.into_iter().zip(&cluster.runtime.counts.by_flag).map(move |(flag, count)| {
                ([direction, name, ("flag", flag.letters())], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    seconds("request_duration", "From a request's arrival to its response's head").histograms(
        encoder,
        clusters(snapshot).map(|cluster| (labels(cluster), cluster.runtime.counts.latency.read())),
    )
}

fn encode_clusters(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let counters = |read: fn(&ClusterRuntime) -> &AtomicU64| {
        clusters(snapshot)
            .map(move |cluster| (labels(cluster), read(&cluster.runtime).load(Ordering::Relaxed)))
    };
    let gauges = |read: fn(&ClusterRuntime) -> &AtomicU32| {
        clusters(snapshot)
            .map(move |cluster| (labels(cluster), f64::from(read(&cluster.runtime).load(Ordering::Relaxed))))
    };
    metric("retries", "Retries made").counters(encoder, counters(|c| &c.retries))?;
    metric("retries_over_budget", "Retries that policy allowed and the budget did not")
        .counters(encoder, counters(|c| &c.retries_over_budget))?;
    metric("cluster_transport", "How the cluster is reached: mesh, public, none, or app; always 1").gauges(
        encoder,
        clusters(snapshot).map(|cluster| {
            let [direction, name] = labels(cluster);
            ([direction, name, ("tls", cluster.settings.transport.label())], 1.0)
        }),
    )?;
    metric("tls_failures", "TLS handshakes with endpoints that failed").counters(
        encoder,
        clusters(snapshot).filter(|cluster| cluster.settings.transport.is_tls()).flat_map(|cluster| {
            let name = ("cluster", cluster.name().as_str());
            TlsFailure::ALL.into_iter().zip(&cluster.runtime.tls_failures).map(move |(reason, count)| {
                ([name, ("reason", reason.label())], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    encode_unencrypted(encoder, snapshot)?;
    encode_upgrades(encoder, snapshot)?;
    metric("cluster_in_flight", "Requests and streams under way")
        .gauges(encoder, gauges(|c| &c.in_flight))?;
    metric("cluster_connections", "Upstream connections, those being opened included")
        .gauges(encoder, gauges(|c| &c.connections))?;
    metric("cluster_pending", "Requests and streams that wait for a connection")
        .gauges(encoder, gauges(|c| &c.pending))?;
    metric("connections_opened", "Upstream connections made")
        .counters(encoder, counters(|c| &c.pool.opened))?;
    metric("connections_reused", "Requests and streams that went over a connection that was there already")
        .counters(encoder, counters(|c| &c.pool.reused))?;
    encode_closed(encoder, snapshot)
}

fn encode_closed(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    metric("connections_closed", "Upstream connections closed, by reason").counters(
        encoder,
        clusters(snapshot).flat_map(|cluster| {
            let [direction, name] = labels(cluster);
            Closed::ALL.into_iter().map(move |why| {
                ([direction, name, ("reason", why.label())], cluster.runtime.pool.closed_for(why))
            })
        }),
    )
}

/// What leaves and comes unencrypted; clusters with `tls: none` alone have these.
fn encode_unencrypted(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let plain = || {
        clusters(snapshot)
            .filter(|cluster| matches!(cluster.settings.transport, Transport::Plain(_)))
            .map(|cluster| (("cluster", cluster.name().as_str()), &cluster.runtime.unencrypted))
    };
    metric("unencrypted_connections", "Connections made without TLS to services outside the mesh").counters(
        encoder,
        plain().map(|(name, counts)| ([name], counts.connections.load(Ordering::Relaxed))),
    )?;
    metric("unencrypted_bytes", "Bytes to and from services outside the mesh, without TLS").counters(
        encoder,
        plain().flat_map(|(name, counts)| {
            let both = [("sent", &counts.sent_bytes), ("received", &counts.received_bytes)];
            both.map(|(way, bytes)| ([name, ("way", way)], bytes.load(Ordering::Relaxed)))
        }),
    )
}

fn encode_upgrades(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    metric("upgrades", "Streams that left HTTP, as for WebSocket, and tunnels of CONNECT").counters(
        encoder,
        clusters(snapshot)
            .map(|cluster| (labels(cluster), cluster.runtime.upgrades.total.load(Ordering::Relaxed))),
    )?;
    metric("upgrades_active", "Streams that left HTTP and are under way").gauges(
        encoder,
        clusters(snapshot).map(|cluster| {
            (labels(cluster), f64::from(cluster.runtime.upgrades.active.load(Ordering::Relaxed)))
        }),
    )?;
    metric("upgrade_bytes", "Bytes carried after the switch of protocols, by way").counters(
        encoder,
        clusters(snapshot).flat_map(|cluster| {
            let [direction, name] = labels(cluster);
            let counts = &cluster.runtime.upgrades;
            [("sent", &counts.sent_bytes), ("received", &counts.received_bytes)]
                .map(|(way, count)| ([direction, name, ("way", way)], count.load(Ordering::Relaxed)))
        }),
    )?;
    seconds("upgrade_duration", "Time that ended streams have spent outside HTTP, as a sum").sums(
        encoder,
        clusters(snapshot).map(|cluster| {
            let micros = cluster.runtime.upgrades.duration_us.load(Ordering::Relaxed);
            (labels(cluster), Duration::from_micros(micros).as_secs_f64())
        }),
    )
}

fn encode_discovery(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot, now: Instant) -> fmt::Result {
    seconds(
        "discovery_age",
        "Time since the endpoints were last confirmed; none for those of the configuration",
    )
    .gauges(
        encoder,
        clusters(snapshot).filter_map(|cluster| {
            let age = cluster.runtime.discovery.age(now)?;
            Some(([("cluster", cluster.name().as_str())], age.as_secs_f64()))
        }),
    )?;
    metric("discovery_endpoints", "Endpoints in use").gauges(
        encoder,
        clusters(snapshot).map(|cluster| {
            // More than 10,000 are never taken.
            let count = u32::try_from(cluster.endpoints.len()).unwrap_or(u32::MAX);
            ([("cluster", cluster.name().as_str())], f64::from(count))
        }),
    )?;
    metric("dns_lookups", "Lookups of a cluster's name in the DNS, by what came of them").counters(
        encoder,
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
            encoder,
            clusters(snapshot).map(|cluster| {
                let failures = cluster.runtime.discovery.failures.load(Ordering::Relaxed);
                ([("cluster", cluster.name().as_str())], failures)
            }),
        )
}

fn encode_endpoints(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
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
    metric("endpoint_picks", "Times the endpoint was chosen").counters(encoder, counters(|e| &e.picks))?;
    metric("endpoint_failures", "Attempts that ended without a usable answer")
        .counters(encoder, counters(|e| &e.failures))?;
    metric("endpoint_in_flight", "Requests sent and not yet answered")
        .gauges(encoder, gauges(|e| &e.in_flight))?;
    metric("endpoint_connections", "Upstream connections open")
        .gauges(encoder, gauges(|e| &e.connections))?;
    seconds("endpoint_latency", "Smoothed time to a response's head; 0 before the first").gauges(
        encoder,
        series().map(|(labels, runtime)| {
            let latency = Duration::from_micros(runtime.latency_us.load(Ordering::Relaxed));
            (labels, latency.as_secs_f64())
        }),
    )
}

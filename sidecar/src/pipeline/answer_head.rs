//! The head of an upstream's answer, made what the downstream may see.

use http::HeaderMap;

use super::respond::Audience;
use crate::{
    headers::{hop_by_hop, reserved},
    model::{Cluster, wire},
    telemetry::{record::RequestRecord, trail},
};

/// Takes off an answer's head what was meant for us.
pub(super) fn clean(headers: &mut HeaderMap, cluster: &Cluster, audience: Audience, record: &RequestRecord) {
    hop_by_hop::strip_response(headers);
    let is_sidecar = cluster.settings.transport.is_sidecar();
    let reason = reserved::take(headers, wire::REASON);
    reserved::strip(headers);
    // The far sidecar's reason explains its answer. Apps have none: their sidecars take it off.
    let Some(reason) = reason.filter(|_| is_sidecar) else { return };
    record.write(|trail| trail.reason = Some(trail::text(&String::from_utf8_lossy(reason.as_bytes()))));
    if audience == Audience::App {
        headers.insert(wire::REASON, reason);
    }
}

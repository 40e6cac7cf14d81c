//! What sidecars of pods tell a collector that annotations name.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::{
    calls::{called, service},
    mesh::Mesh,
    network, rehearse,
};
use crate::{
    otlp::collector::{Collector, text},
    processes::until,
};

#[test]
fn a_call_between_pods_is_one_trace_at_the_collector_and_names_both_pods() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let collector = Collector::start_at(network::ADDRESS.into()).await;
        let annotations = format!(
            "annotations: {{outrider.io/traces-endpoint: 'http://{}', outrider.io/trace-sample-percent: '100'}}",
            collector.address
        );
        let traced = |name: &str| {
            let labels = format!("metadata: {{labels: {{app: {name}}}");
            let manifest = service(name, 1);
            assert!(manifest.contains(&labels), "{manifest}");
            manifest.replace(&labels, &format!("{labels}, {annotations}"))
        };
        let pods = mesh.apply(&(traced("orders") + "---\n" + &traced("web"))).await;
        let [orders, web] = &pods[..] else { panic!("two pods") };
        orders.ready().await;
        web.ready().await;
        called(web, "http://orders/").await;
        // The trace and the span that a pod's sidecar made of this kind, and the span's parent.
        let of = |pod: &str, kind: SpanKind| {
            let got = collector.got().into_iter();
            let mut spans =
                got.filter(|got| text(&got.resource, "k8s.pod.name") == pod).flat_map(|got| got.spans);
            spans
                .find(|span| span.kind == kind as i32)
                .map(|span| (span.trace_id, span.span_id, span.parent_span_id))
        };
        until("both pods have told of the call", async || {
            let (caller, callee) = (of(&web.name, SpanKind::Client), of(&orders.name, SpanKind::Server));
            caller.is_some_and(|(trace, span, _)| {
                callee.is_some_and(|(same, _, parent)| same == trace && parent == span)
            })
        })
        .await;
    });
}

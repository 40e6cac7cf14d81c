//! What messages say of where they come from.

use std::sync::LazyLock;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
};
use opentelemetry_semantic_conventions::attribute as semconv;

use crate::{clock::Clock, model::telemetry::Export};

/// What tells processes of one service apart: without it a collector would take the counters of two for one that jumps.
/// Spans and metrics say the same.
static INSTANCE: LazyLock<String> = LazyLock::new(|| instance(&mut Clock::system().fork_rng()));

/// The resource of all that goes there: `service.name`, the configured attributes, which process this is (unless the
/// attributes say it), and what made the message.
#[must_use]
pub fn resource(export: &Export) -> Resource {
    let attribute = |name: &str, value: &str| KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    };
    let mut attributes = vec![attribute(semconv::SERVICE_NAME, &export.service)];
    attributes.extend(export.attributes.iter().map(|(name, value)| attribute(name, value)));
    if export.attributes.iter().all(|(name, _)| name != semconv::SERVICE_INSTANCE_ID) {
        attributes.push(attribute(semconv::SERVICE_INSTANCE_ID, &INSTANCE));
    }
    attributes.push(attribute(semconv::TELEMETRY_SDK_NAME, "outrider"));
    attributes.push(attribute(semconv::TELEMETRY_SDK_LANGUAGE, "rust"));
    attributes.push(attribute(semconv::TELEMETRY_SDK_VERSION, env!("CARGO_PKG_VERSION")));
    Resource { attributes, ..Resource::default() }
}

/// A random UUID (RFC 9562, version 4).
fn instance(rng: &mut fastrand::Rng) -> String {
    let bits = rng.u128(..) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let part = |range| hex.get(range).unwrap_or_default();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_by_a_random_uuid() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (first, second) = (instance(&mut rng), instance(&mut rng));
        assert_ne!(first, second);
        let parts: Vec<usize> = first.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert!(first.as_bytes()[14] == b'4' && b"89ab".contains(&first.as_bytes()[19]), "{first}");
    }
}

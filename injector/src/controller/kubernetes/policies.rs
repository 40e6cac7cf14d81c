//! Our own policies as the API server sends them. `spec` and `status` are read by hand: one odd object must not hide the others.

use std::borrow::Cow;

use kube::{api::ObjectMeta, core::NamespaceResourceScope};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::api::{Watched, resource};
use crate::{
    controller::model::objects::{Kind, Object, ObjectKey},
    policy::{
        kept::{Policy, PolicyKey, PolicyKind, Record},
        read::{self, Age},
    },
};

/// A TrafficPolicy.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ApiTrafficPolicy {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Json,
    #[serde(default)]
    status: Json,
}

/// An AuthorizationPolicy.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ApiAuthorizationPolicy {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Json,
    #[serde(default)]
    status: Json,
}

resource!(
    ApiTrafficPolicy,
    NamespaceResourceScope,
    "outrider.io",
    "v1alpha1",
    "trafficpolicies",
    "TrafficPolicy"
);
resource!(
    ApiAuthorizationPolicy,
    NamespaceResourceScope,
    "outrider.io",
    "v1alpha1",
    "authorizationpolicies",
    "AuthorizationPolicy"
);

impl Watched for ApiTrafficPolicy {
    const KIND: Kind = Kind::TrafficPolicy;

    fn object(self) -> Object {
        let policy = Policy::Traffic(read::traffic(age(&self.metadata), &self.spec));
        object(PolicyKind::Traffic, self.key(), policy, (&self.metadata, self.status))
    }
}

impl Watched for ApiAuthorizationPolicy {
    const KIND: Kind = Kind::AuthorizationPolicy;

    fn object(self) -> Object {
        let key = self.key();
        let policy = Policy::Authorization(read::authorization(age(&self.metadata), &key.name, &self.spec));
        object(PolicyKind::Authorization, key, policy, (&self.metadata, self.status))
    }
}

fn age(metadata: &ObjectMeta) -> Age {
    Age {
        created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        generation: metadata.generation.unwrap_or(0),
    }
}

fn object(
    kind: PolicyKind,
    key: ObjectKey,
    policy: Policy,
    (metadata, status): (&ObjectMeta, Json),
) -> Object {
    let record = Record { version: metadata.resource_version.clone().unwrap_or_default(), status };
    Object::Policy(PolicyKey { kind, key }, Box::new((policy, record)))
}

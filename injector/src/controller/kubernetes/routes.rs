//! Kinds of the Gateway API as the API server sends them. `spec` and `status` are read by hand: one odd object must not hide
//! the others.

use std::{borrow::Cow, sync::Arc};

use kube::{api::ObjectMeta, core::NamespaceResourceScope};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::api::{Watched, resource};
use crate::controller::{
    gateway::{
        CONTROLLER,
        grant::Grant,
        read::read,
        route::{Record, RouteKey, RouteKind, Routed},
    },
    model::objects::{Kind, Object},
};

/// An HTTPRoute.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ApiHttpRoute {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Json,
    #[serde(default)]
    status: Json,
}

/// A GRPCRoute.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ApiGrpcRoute {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Json,
    #[serde(default)]
    status: Json,
}

/// A ReferenceGrant.
#[derive(Clone, Debug, Deserialize)]
pub struct ApiGrant {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Json,
}

resource!(ApiHttpRoute, NamespaceResourceScope, "gateway.networking.k8s.io", "httproutes", "HTTPRoute");
resource!(ApiGrpcRoute, NamespaceResourceScope, "gateway.networking.k8s.io", "grpcroutes", "GRPCRoute");
resource!(
    ApiGrant,
    NamespaceResourceScope,
    "gateway.networking.k8s.io",
    "v1beta1",
    "referencegrants",
    "ReferenceGrant"
);

impl Watched for ApiHttpRoute {
    const KIND: Kind = Kind::HttpRoute;

    fn object(self) -> Object {
        let key = RouteKey { kind: RouteKind::Http, key: self.key() };
        object(key, &self.metadata, &self.spec, &self.status)
    }
}

impl Watched for ApiGrpcRoute {
    const KIND: Kind = Kind::GrpcRoute;

    fn object(self) -> Object {
        let key = RouteKey { kind: RouteKind::Grpc, key: self.key() };
        object(key, &self.metadata, &self.spec, &self.status)
    }
}

impl Watched for ApiGrant {
    const KIND: Kind = Kind::Grant;

    fn object(self) -> Object {
        Object::Grant(self.key(), Grant::read(&self.spec))
    }
}

fn object(key: RouteKey, metadata: &ObjectMeta, spec: &Json, status: &Json) -> Object {
    let created = metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let route = read(key.kind, &key.key, created, spec);
    let parents: Vec<Json> = status.get("parents").and_then(Json::as_array).cloned().unwrap_or_default();
    let is_ours = |entry: &Json| entry.get("controllerName").is_some_and(|name| name == CONTROLLER);
    if route.parents.is_empty() && !parents.iter().any(is_ours) {
        // Of Gateways only: others read it.
        return Object::Nothing(key.kind.kind(), key.key);
    }
    let record = Record {
        generation: metadata.generation.unwrap_or(0),
        version: metadata.resource_version.clone().unwrap_or_default(),
        parents,
    };
    Object::Route(key, Box::new(Routed { route: Arc::new(route), record }))
}

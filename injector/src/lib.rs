//! Outrider in Kubernetes: the sidecar beside each pod's containers, and the webhook that puts it there.
//!
//! Read in this order:
//!
//! | module | what it holds |
//! |---|---|
//! | [`pod`] | pure: a pod gets its sidecar, or is rid of it again |
//! | [`settings`] | what annotations say, typed; [`denial`] is everything that is wrong |
//! | [`installation`], [`names`] | what is the same for all pods, and for all parts of the mesh |
//! | [`workload`], [`documents`] | where pods are in manifests; manifests as YAML and JSON |
//! | [`patch`] | the difference of two pods as the API server takes it |
//! | [`version`] | which versions of Kubernetes will do |
//! | [`install`] | the control plane's manifests: the Helm chart, rendered |
//! | [`check`] | whether a cluster can have the mesh, and whether its mesh is well |
//! | [`webhook`] | the mutating webhook: what the API server asks, over TLS |
//! | [`cli`] | the command line of `outrider-injector` |
//! | [`controller`] | `outrider-controller`: what sidecars are told of the cluster |
//! | [`policy`] | the mesh's own policies as objects of the cluster; pure |
//!
//! # Invariants
//! - Injection is a function of the pod, what it is a template of, and the installation, and of nothing else.
//! - What belongs to others is JSON, never a typed object: fields that this version does not know stay.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may read clocks"))]

pub mod check;
pub mod cli;
pub mod controller;
pub mod denial;
pub mod documents;
pub mod install;
pub mod installation;
mod json;
pub mod names;
pub mod patch;
pub mod pod;
pub mod policy;
mod roots;
pub mod settings;
pub mod version;
pub mod webhook;
pub mod workload;

//! Generated gRPC code: how a sidecar asks `outrider-controller`.
//!
//! From `sidecar/proto/discovery.proto`; a test of the workspace's `tests` package fails when the two no longer match.

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::missing_errors_doc,
    clippy::clone_on_ref_ptr,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated code keeps the generator's style"
)]
#[rustfmt::skip]
pub mod outrider_discovery_v1;

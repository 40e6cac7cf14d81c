//! Pods as a kubelet runs them: the containers of injected manifests, with their arguments, volumes, users, capabilities
//! and probes, in namespaces of real kernels. What is rehearsed is the order of things: starting, calling, ending.
//!
//! ```text
//!   node ┬ fake API server ◀── cluster: what controllers of Kubernetes do (pods of workloads, EndpointSlices, cluster IPs)
//!        └ kubelet ─┬▶ pod outrider-ca, outrider-controller, outrider-injector: as the chart has them
//!                   ├▶ pod web     outrider-init ▶ outrider ▶ app          a network namespace each,
//!                   └▶ pod orders  outrider-init ▶ outrider ▶ app          and each container a root of its own
//! ```
//! What a real node has and this one does not: images (programs are those of the build), limits of memory and CPU, seccomp,
//! IPv6 between pods, and backoff. A probe is looked at more often than it says until it is good, so that nobody waits for
//! a period to pass; it fails as late as it says.
//!
//! It takes root, as there are several users in a pod, and the programs of [`PROGRAMS`]; who has not is told that nothing
//! was tried, as in `intercept`.

mod cluster;
mod container;
mod fields;
mod image;
mod kubelet;
mod load;
mod mesh;
mod network;
mod pod;
mod probes;
mod volumes;

mod calls;
mod control_plane;
mod ending;
mod examples;
mod killed;
mod policies;
mod probed;
mod starting;
mod traced;

use crate::{
    foreign::programs::say,
    intercept::namespace::{self, has_users},
};

/// What it takes, beside what every claim in a namespace does.
const PROGRAMS: [&str; 5] = ["nsenter", "mount", "chroot", "setpriv", "curl"];

/// Runs a claim on a node of its own. The closure stands in the test function itself, as for [`namespace::claim`].
fn rehearse(claim: impl AsyncFnOnce()) {
    let is_root = rustix::process::geteuid().is_root() && has_users();
    if !is_root {
        let is_required = std::env::var("OUTRIDER_REQUIRE_FOREIGN").is_ok_and(|value| value == "1");
        assert!(!is_required, "pods have several users, which takes root, and OUTRIDER_REQUIRE_FOREIGN=1");
        say(&format!(
            "SKIPPED {}: pods have several users, which takes root",
            std::thread::current().name().unwrap_or("a rehearsal")
        ));
        return;
    }
    namespace::claim(&PROGRAMS, claim);
}

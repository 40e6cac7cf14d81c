//! What was seen of a cluster.

use std::time::SystemTime;

/// What was seen of a cluster. Lists hold what exists; what could not be asked for is in `unseen`.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When this was.
    pub now: Option<SystemTime>,
    /// The API server's version: major and minor.
    pub version: Option<(u32, u32)>,
    /// Namespace of the control plane.
    pub namespace: String,
    /// Nothing of an installation is there.
    pub is_bare: bool,
    /// CA, controller, injector; those that could be looked for.
    pub parts: Vec<Part>,
    /// What each part must be allowed to do, and is or is not.
    pub rights: Vec<Right>,
    /// The webhook's configuration.
    pub webhook: Seen<Webhook>,
    /// What became of a pod that was created on trial (dry run) with the label that asks for a sidecar.
    pub trial: Option<Trial>,
    /// Last days of the roots in the trust bundle of the control plane's namespace.
    pub roots: Seen<Vec<SystemTime>>,
    /// Pods that have a sidecar, or should.
    pub pods: Vec<PodFact>,
    /// Namespaces and pods whose label says neither `enabled` nor `disabled`, with what it says.
    pub odd_labels: Vec<String>,
    /// Namespaces and pods that ask for a sidecar where the webhook is not asked.
    pub unheard_labels: Vec<String>,
    /// Questions that were not answered, each with the reason.
    pub unseen: Vec<String>,
}

/// Something that was looked for.
#[derive(Clone, Debug, Default)]
pub enum Seen<T> {
    /// It could not be asked for.
    #[default]
    No,
    /// It does not exist.
    Absent,
    /// It is this.
    There(T),
}

/// A program of the control plane.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its Deployment.
    pub name: &'static str,
    /// Replicas wanted and available; absent: there is no such Deployment.
    pub replicas: Option<(i32, i32)>,
    /// The tag of its image.
    pub version: Option<String>,
}

/// Something that a part must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// Whose service account.
    pub part: String,
    /// As `create secrets in outrider`.
    pub what: String,
    /// Whether the API server says that it may.
    pub is_allowed: bool,
}

/// The configuration of the webhook.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Names of entries whose `failurePolicy` is not `Fail`.
    pub lenient: Vec<String>,
    /// Entries without roots by which the API server could believe the injector.
    pub without_roots: Vec<String>,
    /// Last days of the roots of all entries.
    pub roots: Vec<SystemTime>,
}

/// What became of a pod on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It has a sidecar.
    Injected,
    /// It was taken without one.
    NotInjected,
    /// It was refused, or could not be asked for, by our webhook; the API server's words.
    Refused(String),
    /// It had its sidecar, and Pod Security refused it for that; the API server's words.
    Barred(String),
    /// Something else refused it, before or after our webhook; the API server's words.
    Unknown(String),
    /// We may not create pods, not even on trial.
    Forbidden,
}

/// A pod that has a sidecar, or should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFact {
    /// `namespace/name`.
    pub name: String,
    /// Version of the injector that put its sidecar there; absent: it has none, and should.
    pub version: Option<String>,
    /// Whether callers may pass its sidecar by, in plaintext.
    pub has_exceptions: bool,
}

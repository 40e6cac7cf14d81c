//! Where identities come from, as a seam: the CA, files, or a test.

use std::{future::Future, pin::Pin, sync::Arc};

use outrider_certs::{spiffe_id::SpiffeId, svid::X509Svid, trust_bundle::TrustBundles};
use tokio::sync::watch;

use crate::model::status::IdentityStatus;

/// A certificate and whom to trust with it, as a source gives them.
#[derive(Clone, Debug)]
pub struct Material {
    /// Our certificate and key.
    pub svid: X509Svid,
    /// The roots we trust, per trust domain.
    pub bundles: Arc<TrustBundles>,
}

/// Where a source puts its newest material: the latest value, never a queue.
pub type Materials = watch::Sender<Option<Arc<Material>>>;

/// A source's life.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Gives material and keeps it fresh.
///
/// A source publishes only what it has checked: a key that fits its certificate, and an SVID that its own bundles
/// vouch for. When something fails it keeps quiet and the last good material stays.
pub trait Source: Send + Sync + 'static {
    /// Runs for the life of the process; may return when nothing can change any more.
    fn run(self: Arc<Self>, materials: Materials) -> Running;

    /// How it goes, for operators.
    fn status(&self) -> Arc<IdentityStatus>;

    /// What an operator has to do when the certificate (of `id`, if there was one) has run out or cannot be had.
    fn remedy(&self, id: Option<&SpiffeId>) -> String;
}

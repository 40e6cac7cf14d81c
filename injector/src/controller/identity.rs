//! Our certificate, kept fresh: from the CA by the pod's token, or from files.

use std::sync::Arc;

use outrider::{
    clock::Clock,
    config::defaults::{CIPHER_SUITES, KEY_EXCHANGE},
    drain,
    identity::{
        source::{Material, Source},
        tls_configs::TlsBase,
    },
    model::{Identity, settings::TlsSettings},
};
use tokio::sync::watch;

/// Starts `source`. The newest identity; `None` until the first is there. The last good one stays.
#[must_use]
pub fn start(source: Arc<dyn Source>, tls: TlsBase) -> watch::Receiver<Option<Arc<Identity>>> {
    let (materials, mut from) = watch::channel(None::<Arc<Material>>);
    let (to, identity) = watch::channel(None);
    drain::spawn_background(source.run(materials));
    drain::spawn_background(async move {
        while from.changed().await.is_ok() {
            let newest = from.borrow_and_update().clone();
            let Some(material) = newest else { continue };
            match tls.configs(&material.svid, &material.bundles) {
                Ok(tls) => {
                    let (svid, bundles) = (material.svid.clone(), Arc::clone(&material.bundles));
                    to.send_replace(Some(Arc::new(Identity { svid, bundles, tls })));
                }
                Err(error) => tracing::warn!(%error, "the certificate cannot be used; the last good stays"),
            }
        }
        // A source that has ended has nothing new; what it gave stays.
        to.closed().await;
    });
    identity
}

/// The clock that a certificate is held against, and the algorithms: the mesh's own.
///
/// # Errors
/// When they are not available.
pub fn tls(clock: &Clock) -> Result<TlsBase, outrider::identity::tls_configs::Error> {
    let settings = TlsSettings {
        cipher_suites: CIPHER_SUITES.iter().map(|(_, suite)| *suite).collect(),
        key_exchange: KEY_EXCHANGE.iter().map(|(_, group)| *group).collect(),
    };
    TlsBase::new(&settings, clock)
}

//! A source that publishes what it is handed: for tests, simulations and embedding.

use std::sync::Arc;

use outrider_certs::spiffe_id::SpiffeId;
use tokio::sync::watch;

use super::source::{Material, Materials, Running, Source};
use crate::model::status::IdentityStatus;

/// The source's end; give it to `identity::start`.
#[derive(Debug)]
pub struct Fixed {
    from: watch::Receiver<Option<Arc<Material>>>,
    status: Arc<IdentityStatus>,
}

/// The other end: replaces what the source publishes. When it is dropped, the last material stays.
#[derive(Clone, Debug)]
pub struct FixedHandle {
    to: watch::Sender<Option<Arc<Material>>>,
}

impl Fixed {
    /// A source that starts with `material`, or with nothing until [`FixedHandle::replace`] is called.
    #[must_use]
    pub fn new(material: Option<Material>) -> (Self, FixedHandle) {
        let (to, from) = watch::channel(material.map(Arc::new));
        (Self { from, status: Arc::default() }, FixedHandle { to })
    }
}

impl FixedHandle {
    /// Publishes `material` in place of the last.
    pub fn replace(&self, material: Material) {
        self.to.send_replace(Some(Arc::new(material)));
    }
}

impl Source for Fixed {
    fn run(self: Arc<Self>, materials: Materials) -> Running {
        Box::pin(async move {
            let mut from = self.from.clone();
            from.mark_changed();
            // Ends when the handle is gone: nothing can change any more.
            while from.changed().await.is_ok() {
                let newest = from.borrow_and_update().clone();
                if newest.is_some() {
                    materials.send_replace(newest);
                }
            }
        })
    }

    fn status(&self) -> Arc<IdentityStatus> {
        Arc::clone(&self.status)
    }

    fn remedy(&self, _id: Option<&SpiffeId>) -> String {
        "replace the certificate that was handed in".to_owned()
    }
}

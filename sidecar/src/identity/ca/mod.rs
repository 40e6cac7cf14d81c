//! Our certificate from the CA: joined once by a token, renewed by itself, kept over restarts; or got by a service
//! account's token each time, and kept nowhere.
//!
//! ```text
//!   start ──kept and unexpired?──yes──▶ holding ◀──────────────┐
//!     │no                                 │ renewal due        │ obtained
//!     ▼                                   ▼                    │
//!   waiting for a join token ──token──▶ asking the CA ─────────┘
//!     ▲                                   │ fails: backoff, the held one stays in use
//!     └──────────── expired ──────────────┘
//! ```
//!
//! With a service account's token there is neither a kept certificate nor one that proves us: each asks the CA with the
//! token that is in the file at that time.
//!
//! # Invariants
//! - A certificate is taken only if the bundle that comes with it vouches for it. A newer bundle is taken even if it
//!   does not: peers are held against it at once, and the certificate, published with it, is renewed as soon as can be.
//! - A failure never replaces or withdraws what is held; an expired certificate is renewed by a token only.
//! - One exchange at a time, each with a deadline; waits between attempts are jittered and bounded.

mod error;
mod exchange;
mod settings;
mod token;

#[cfg(test)]
mod real_ca_tests;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use outrider_certs::{
    join_token::JoinToken,
    svid::X509Svid,
    trust_bundle::{TrustBundle, TrustBundles},
};

use self::{
    exchange::{Obtained, Wish},
    token::{TokenFile, service_account_token},
};
use super::{
    report::Reporter,
    rotation::{refresh_delay, renew_at, retry_delay},
    source::{Material, Materials, Source},
    store::{Kept, Store},
};
use crate::{model::settings::CaProof, net::Net};

pub use self::{
    error::Error,
    settings::{CaSettings, CaSource},
};

/// Longest sleep, so that a wall clock that jumped is noticed.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// Shortest time between a certificate and the next.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// How often the token file is looked at while there is no valid certificate.
const TOKEN_POLL: Duration = Duration::from_secs(1);

/// A certificate in use, and when to replace it.
#[derive(Debug)]
struct Held {
    svid: X509Svid,
    bundle: TrustBundle,
    renew_at: SystemTime,
}

/// One run of the source.
struct Life<'a, N> {
    source: &'a CaSource<N>,
    materials: Materials,
    rng: fastrand::Rng,
    held: Option<Held>,
    token: TokenFile,
    /// Failures in a row, and not before when the next attempt is made.
    failures: u32,
    retry_at: Instant,
    bundle_failures: u32,
    bundle_at: Instant,
    report: Reporter<Error>,
    report_bundle: Reporter<Error>,
}

impl<'a, N: Net> Life<'a, N> {
    fn new(source: &'a CaSource<N>, materials: Materials) -> Self {
        let now = source.clock.now();
        Self {
            source,
            materials,
            rng: source.clock.fork_rng(),
            held: None,
            token: TokenFile::new(match &source.settings.proof {
                CaProof::JoinToken { file } => file.clone(),
                CaProof::ServiceAccount { .. } => None,
            }),
            failures: 0,
            retry_at: now,
            bundle_failures: 0,
            bundle_at: now,
            report: Reporter::new("getting a certificate"),
            report_bundle: Reporter::new("refreshing the trust bundle"),
        }
    }

    async fn live(mut self) {
        self.restore();
        loop {
            if self.is_renewal_due() {
                self.obtain().await;
            } else if self.is_refresh_due() {
                self.refresh().await;
            } else {
                tokio::time::sleep(self.rest()).await;
                self.look_for_token();
            }
        }
    }

    /// Takes up what an earlier process kept.
    fn restore(&mut self) {
        match self.load() {
            Ok(Some(kept)) => {
                let id = kept.svid.id();
                tracing::info!(%id, "using the kept certificate");
                if let Some(other) = self.token.peek().filter(|other| other != id) {
                    let folder = self.source.settings.state_dir.display();
                    tracing::warn!(%id, %other, "the join token is for another ID; to become that, empty {folder}");
                }
                // When it came is not known; `not_before` is earlier, so at worst it is renewed too soon.
                let obtained = kept.svid.not_before();
                self.hold((kept.svid, kept.bundle), obtained);
                self.bundle_at = self.source.clock.now();
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the kept certificate cannot be used"),
        }
    }

    /// The kept certificate, if peers would believe it.
    fn load(&self) -> Result<Option<Kept>, Error> {
        if !self.source.keeps() {
            return Ok(None);
        }
        let store = Store::open(&self.source.settings.state_dir)?;
        let Some(kept) = store.load(&self.source.settings.trust_domain)? else { return Ok(None) };
        self.source.exchange.vouches(&kept.bundle, &kept.svid)?;
        Ok(Some(kept))
    }

    fn is_renewal_due(&self) -> bool {
        let wall = self.source.clock.wall();
        let is_wanted = self.held.as_ref().is_none_or(|held| wall >= held.renew_at);
        is_wanted && self.source.clock.now() >= self.retry_at
    }

    fn is_refresh_due(&self) -> bool {
        self.unexpired().is_some() && self.source.clock.now() >= self.bundle_at
    }

    fn unexpired(&self) -> Option<&Held> {
        let wall = self.source.clock.wall();
        self.held.as_ref().filter(|held| wall <= held.svid.not_after())
    }

    fn rest(&self) -> Duration {
        let (now, wall) = (self.source.clock.now(), self.source.clock.wall());
        let Some(held) = self.unexpired() else {
            return self.retry_at.saturating_duration_since(now).min(TOKEN_POLL);
        };
        let due = held.renew_at.duration_since(wall).unwrap_or_default();
        let due = due.max(self.retry_at.saturating_duration_since(now));
        let expiry =
            held.svid.not_after().duration_since(wall).unwrap_or_default() + Duration::from_millis(1);
        due.min(self.bundle_at.saturating_duration_since(now)).min(expiry).min(MAX_SLEEP)
    }

    /// A new token ends the wait for the next attempt.
    fn look_for_token(&mut self) {
        if self.unexpired().is_none() && self.token.is_new() {
            self.failures = 0;
            self.retry_at = self.source.clock.now();
        }
    }

    async fn obtain(&mut self) {
        match self.ask().await {
            Ok(obtained) => {
                self.failures = 0;
                self.report.worked();
                self.source.status.renewals.succeed(self.source.clock.wall());
                tracing::info!(id = %obtained.0.id(), not_after = %humantime::format_rfc3339_seconds(obtained.0.not_after()), "certificate obtained");
                // A CA that gives seconds must not make us ask without a pause.
                self.retry_at = self.source.clock.now() + MIN_INTERVAL;
                let received = self.source.clock.wall();
                self.hold(obtained, received);
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &Error) {
        let wall = self.source.clock.wall();
        let left = self.unexpired().and_then(|held| held.svid.not_after().duration_since(wall).ok());
        self.failures = self.failures.saturating_add(1);
        self.retry_at = self.source.clock.now() + retry_delay(self.failures, left, &mut self.rng);
        self.source.status.renewals.fail(error.to_string());
        let id = self.token.id().or_else(|| self.held.as_ref().map(|held| held.svid.id().clone()));
        let remedy = self.source.remedy(id.as_ref());
        self.report.failed(error, left.is_none(), &remedy);
    }

    async fn ask(&mut self) -> Result<Obtained, Error> {
        let validity = self.source.settings.validity;
        if let CaProof::ServiceAccount { token_file, bundle_file } = &self.source.settings.proof {
            let token = service_account_token(token_file)?;
            let roots = self.source.roots(bundle_file)?;
            let held = self.held.as_ref().map(|held| (held.svid.id(), held.bundle.sequence()));
            let wish = Wish { validity, store: None };
            return self.source.exchange.prove(&token, &roots, held, &wish).await;
        }
        let store = Store::open(&self.source.settings.state_dir)?;
        let wish = Wish { validity, store: Some(&store) };
        let Some(held) = self.unexpired() else {
            let token = self.token.read()?;
            return self.join(&token, &wish).await;
        };
        if let Some(newer) = self.renewed_by_another(held) {
            return Ok(newer);
        }
        let renewed = self.source.exchange.renew(&held.svid, &held.bundle, &wish).await;
        match renewed {
            // The CA does not know us any more, or is another one: a token that an operator put there since decides.
            Err(error @ (Error::Refused(_) | Error::Handshake { .. })) if self.token.is_untried() => {
                let Ok(token) = self.token.read() else { return Err(error) };
                self.join(&token, &wish).await
            }
            other => {
                let obtained = other?;
                keep(&store, &obtained);
                Ok(obtained)
            }
        }
    }

    async fn join(&mut self, token: &JoinToken, wish: &Wish<'_>) -> Result<Obtained, Error> {
        let obtained = self.source.exchange.join(token, wish).await;
        // Anything else may pass, and the token with it may still be good.
        if matches!(obtained, Ok(_) | Err(Error::Refused(_))) {
            self.token.set_tried();
        }
        let obtained = obtained?;
        if let Some(store) = wish.store {
            keep(store, &obtained);
        }
        Ok(obtained)
    }

    /// What another process with the same state folder (our replacement, or the one we replace) has obtained.
    fn renewed_by_another(&self, held: &Held) -> Option<Obtained> {
        let kept = self.load().ok().flatten()?;
        let is_newer = kept.svid.id() == held.svid.id() && kept.svid.not_after() > held.svid.not_after();
        is_newer.then_some((kept.svid, kept.bundle))
    }

    async fn refresh(&mut self) {
        let Some(held) = self.unexpired() else { return };
        let found = match &self.source.settings.proof {
            CaProof::JoinToken { .. } => {
                self.source.exchange.refresh(&held.svid, &held.bundle, &held.bundle).await
            }
            CaProof::ServiceAccount { bundle_file, .. } => match self.source.roots(bundle_file) {
                Ok(roots) => self.source.exchange.refresh(&held.svid, &held.bundle, &roots).await,
                Err(error) => Err(error),
            },
        };
        let hint = held.bundle.refresh_hint();
        let delay = match found {
            Ok(changed) => {
                self.bundle_failures = 0;
                self.report_bundle.worked();
                self.source.status.bundle_refreshes.succeed(self.source.clock.wall());
                let hint = changed.as_ref().map_or(hint, TrustBundle::refresh_hint);
                if let Some(bundle) = changed {
                    self.trust(bundle);
                }
                refresh_delay(hint, &mut self.rng)
            }
            Err(error) => {
                self.bundle_failures = self.bundle_failures.saturating_add(1);
                self.source.status.bundle_refreshes.fail(error.to_string());
                self.report_bundle.failed(&error, false, "");
                retry_delay(self.bundle_failures, None, &mut self.rng)
            }
        };
        self.bundle_at = self.source.clock.now() + delay;
    }

    /// Takes a newer bundle for the certificate held.
    fn trust(&mut self, bundle: TrustBundle) {
        tracing::info!(sequence = bundle.sequence(), roots = bundle.roots().len(), "trust bundle changed");
        if self.source.keeps() {
            let kept =
                Store::open(&self.source.settings.state_dir).and_then(|store| store.keep_bundle(&bundle));
            if let Err(error) = kept {
                tracing::warn!(%error, "the trust bundle could not be kept");
            }
        }
        let Some(held) = self.held.as_mut() else { return };
        if let Err(error) = self.source.exchange.vouches(&bundle, &held.svid) {
            tracing::warn!(%error, "our certificate is not trusted under the new bundle; renewing it");
            held.renew_at = self.source.clock.wall();
        }
        held.bundle = bundle;
        self.publish();
    }

    /// Puts a certificate to use.
    fn hold(&mut self, (svid, bundle): Obtained, obtained: SystemTime) {
        self.bundle_at = self.source.clock.now() + refresh_delay(bundle.refresh_hint(), &mut self.rng);
        let renew_at = renew_at(obtained, svid.not_after(), &mut self.rng);
        self.held = Some(Held { svid, bundle, renew_at });
        self.publish();
    }

    fn publish(&self) {
        if let Some(held) = &self.held {
            let bundles = Arc::new(TrustBundles::single(held.bundle.clone()));
            self.materials.send_replace(Some(Arc::new(Material { svid: held.svid.clone(), bundles })));
        }
    }
}

/// A certificate that cannot be kept is used all the same: it costs a new token after the next restart, not the
/// service now.
fn keep(store: &Store, (svid, bundle): &Obtained) {
    if let Err(error) = store.keep_bundle(bundle).and_then(|()| store.keep_svid(svid)) {
        tracing::warn!(%error, "the certificate could not be kept: a restart will need a new join token");
    }
}

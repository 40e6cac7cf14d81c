//! The life of one federated trust domain: what is held, when it is looked at again, and what is told of it.

use std::{
    fmt::Write as _,
    mem::{Discriminant, discriminant},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use outrider_certs::{
    spiffe_id::TrustDomain,
    trust_bundle::{self, MAX_DOCUMENT_BYTES, TrustBundle},
};

use super::{
    Shared,
    fetch::{self, Belief, Error},
    kept::Kept,
    update,
};
use crate::{
    identity::{
        file::{self, POLL},
        rotation::{endpoint_retry_delay, refresh_delay, stale_after},
    },
    model::federation::{BundleEndpoint, DomainStatus, FederatedDomain, Freshness, Profile},
    net::Net,
};

/// Longest sleep, so that a bundle that grows old is noticed.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// What was kept is written again after so long, though nothing but its age has changed.
const KEEP_AGAIN: Duration = Duration::from_secs(600);
/// After a restart, what is due is fetched within this time, at random: the sidecars of a whole mesh may start together.
const SPREAD: Duration = Duration::from_secs(5);

/// What is held of a domain, for all to see.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Clone, Debug, Default)]
struct State {
    held: Option<Held>,
    /// Of `bundle_file`, as it was when it was last taken.
    file_sha256: Option<String>,
    /// Where all this is from.
    source: String,
}

#[derive(Clone, Debug)]
struct Held {
    bundle: TrustBundle,
    /// The present endpoint gave it, so that what it gives next can be compared.
    is_fetched: bool,
}

impl Slot {
    /// One that begins with what another holds.
    pub(super) fn taken_over(before: &Self) -> Self {
        Self(Mutex::new(before.lock().clone()))
    }

    pub(super) fn bundle(&self) -> Option<TrustBundle> {
        self.lock().held.as_ref().map(|held| held.bundle.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One federated domain.
#[derive(Debug)]
pub(super) struct Domain<N> {
    shared: Arc<Shared<N>>,
    settings: FederatedDomain,
    slot: Arc<Slot>,
    status: Arc<DomainStatus>,
    rng: fastrand::Rng,
    failures: u32,
    next_fetch: Instant,
    /// What is on disk was confirmed then.
    kept_at: Option<SystemTime>,
    is_told_stale: bool,
    endpoint_fault: Fault,
    file_fault: Fault,
    keep_fault: bool,
}

/// What is failing, so that the same failure is told of once.
type Fault = Option<Discriminant<Error>>;

impl<N: Net> Domain<N> {
    /// Takes up what was held before: by `slot`, or by an earlier process; then what its file says.
    pub(super) fn new(
        shared: Arc<Shared<N>>,
        settings: FederatedDomain,
        slot: Arc<Slot>,
        status: Arc<DomainStatus>,
    ) -> Self {
        let (rng, now) = (shared.clock.fork_rng(), shared.clock.now());
        let mut domain = Self {
            shared,
            settings,
            slot,
            status,
            rng,
            failures: 0,
            next_fetch: now,
            kept_at: None,
            is_told_stale: false,
            endpoint_fault: None,
            file_fault: None,
            keep_fault: false,
        };
        domain.take_over();
        domain.look_at_file();
        domain
    }

    pub(super) async fn live(mut self) {
        loop {
            self.look_at_age();
            tokio::time::sleep(self.rest()).await;
            self.look_at_file();
            let is_due = self.shared.clock.now() >= self.next_fetch;
            if let Some(endpoint) = self.settings.endpoint.clone().filter(|_| is_due) {
                self.fetch(&endpoint).await;
            }
        }
    }

    fn rest(&self) -> Duration {
        let until_fetch = self.next_fetch.saturating_duration_since(self.shared.clock.now());
        let until_fetch = if self.settings.endpoint.is_some() { until_fetch } else { MAX_SLEEP };
        let until_look = if self.settings.bundle_file.is_some() { POLL } else { MAX_SLEEP };
        until_fetch.min(until_look).min(MAX_SLEEP)
    }

    fn take_over(&mut self) {
        let source = self.settings.source();
        let is_same = self.slot.lock().source == source;
        if !is_same {
            let mut state = self.slot.lock();
            // Another source: its sequences are its own, and its file speaks first.
            state.held.iter_mut().for_each(|held| held.is_fetched = false);
            (state.file_sha256, state.source) = (None, source);
        }
        if self.slot.bundle().is_none() && self.settings.endpoint.is_some() {
            self.restore();
        }
    }

    /// What an earlier process kept.
    fn restore(&mut self) {
        let kept = match self.shared.folder.load(&self.settings.trust_domain) {
            Ok(Some(kept)) => kept,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(trust_domain = %self.settings.trust_domain, %error, "the kept bundle cannot be used");
                return;
            }
        };
        let Kept { bundle, source, file_sha256, confirmed_at } = kept;
        let is_same = source == self.settings.source();
        let (sequence, roots) = (bundle.sequence(), bundle.roots().len());
        tracing::info!(trust_domain = %self.settings.trust_domain, sequence, roots, "using the kept bundle");
        let stale_after = stale_after(bundle.refresh_hint());
        let wait = refresh_delay(bundle.refresh_hint(), &mut self.rng);
        let age = self.shared.clock.wall().duration_since(confirmed_at).unwrap_or_default();
        let mut state = self.slot.lock();
        state.held = Some(Held { bundle, is_fetched: is_same });
        if is_same {
            state.file_sha256 = file_sha256;
            drop(state);
            self.kept_at = Some(confirmed_at);
            self.status.confirm(Freshness { confirmed_at: Some(confirmed_at), stale_after });
            let spread = SPREAD.mul_f64(self.rng.f64());
            self.next_fetch = self.shared.clock.now() + wait.saturating_sub(age).max(spread);
        }
    }

    /// Takes what the file says, if it says something else than when it was last taken: whoever changes it knows better
    /// than the endpoint did, until that is asked again (SPIFFE Federation §4.2).
    fn look_at_file(&mut self) {
        let Some(path) = self.settings.bundle_file.clone() else { return };
        let is_source = self.settings.endpoint.is_none();
        let progress = &self.status.refreshes;
        match self.read_file(&path) {
            Ok(None) => {
                self.file_fault = None;
                if is_source {
                    if progress.is_failing() {
                        progress.succeed(self.shared.clock.wall());
                    }
                    self.confirm();
                }
            }
            Ok(Some((sha256, bundle))) => {
                self.file_fault = None;
                self.slot.lock().file_sha256 = Some(sha256);
                self.hold(bundle, false);
                self.next_fetch = self.shared.clock.now();
                if is_source {
                    self.status.refreshes.succeed(self.shared.clock.wall());
                    self.confirm();
                }
            }
            Err(error) => {
                if is_source {
                    progress.fail(error.to_string());
                }
                let fault = self.file_fault.replace(discriminant(&error));
                self.tell(&error, fault, "write its bundle there: it is picked up without a restart");
            }
        }
    }

    fn read_file(&self, path: &Path) -> Result<Option<(String, TrustBundle)>, Error> {
        let max_bytes = u64::try_from(MAX_DOCUMENT_BYTES).unwrap_or(u64::MAX);
        let (text, _mode) = file::read(path, max_bytes)?;
        let sha256 = sha256(&text);
        if self.slot.lock().file_sha256.as_ref() == Some(&sha256) {
            return Ok(None);
        }
        Ok(Some((sha256, parse(self.settings.trust_domain.clone(), &text)?)))
    }

    async fn fetch(&mut self, endpoint: &BundleEndpoint) {
        let asked = self.ask(endpoint).await;
        let judged = asked.and_then(|found| {
            let state = self.slot.lock();
            let held = state.held.as_ref().filter(|held| held.is_fetched).map(|held| &held.bundle);
            let is_new = update::judge(held, &found)?;
            Ok((found, is_new))
        });
        let delay = match judged {
            Ok((found, is_new)) => {
                self.failures = 0;
                self.status.refreshes.succeed(self.shared.clock.wall());
                if self.endpoint_fault.take().is_some() {
                    tracing::info!(trust_domain = %self.settings.trust_domain, %endpoint, "the bundle endpoint works again");
                }
                let hint = found.refresh_hint();
                if is_new {
                    self.hold(found, true);
                }
                self.confirm();
                self.keep(is_new);
                refresh_delay(hint, &mut self.rng)
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.status.refreshes.fail(error.to_string());
                let fault = self.endpoint_fault.replace(discriminant(&error));
                let held = self.slot.bundle().map(|bundle| bundle.refresh_hint());
                self.tell(&error, fault, "its workloads cannot be verified until its endpoint answers");
                endpoint_retry_delay(self.failures, held, &mut self.rng)
            }
        };
        self.next_fetch = self.shared.clock.now() + delay;
    }

    async fn ask(&self, endpoint: &BundleEndpoint) -> Result<TrustBundle, Error> {
        let belief = match &endpoint.profile {
            Profile::Web(roots) => Belief::web(&self.shared.tls, roots)?,
            Profile::Spiffe(server) => {
                let domain = server.trust_domain();
                let own = if *domain == self.settings.trust_domain { self.slot.bundle() } else { None };
                let bundle = own.or_else(|| self.shared.bundle_of(domain));
                let bundle = bundle.ok_or_else(|| Error::NoTrust(domain.clone()))?;
                Belief::spiffe(&self.shared.tls, server, &bundle)?
            }
        };
        let text = fetch::fetch(&self.shared.net, &endpoint.url, &belief).await?;
        Ok(TrustBundle::from_jwks(self.settings.trust_domain.clone(), &text)?)
    }

    /// Puts a bundle to use.
    fn hold(&mut self, bundle: TrustBundle, is_fetched: bool) {
        let (sequence, roots) = (bundle.sequence(), bundle.roots().len());
        tracing::info!(trust_domain = %self.settings.trust_domain, sequence, roots, "its bundle is in use");
        if roots == 0 {
            tracing::warn!(trust_domain = %self.settings.trust_domain, "its bundle has no roots: nobody of it is trusted");
        }
        self.slot.lock().held = Some(Held { bundle, is_fetched });
        self.shared.changed.notify_one();
    }

    /// A copy that cannot be written costs a fetch after the next restart, not the service now.
    fn keep(&mut self, is_new: bool) {
        let now = self.shared.clock.wall();
        let is_recent = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age < KEEP_AGAIN);
        if !is_new && self.kept_at.is_some_and(is_recent) {
            return;
        }
        let State { held, file_sha256, source } = self.slot.lock().clone();
        let Some(held) = held else { return };
        let kept = Kept { bundle: held.bundle, source, file_sha256, confirmed_at: now };
        match self.shared.folder.keep(&kept) {
            Ok(()) => (self.kept_at, self.keep_fault) = (Some(now), false),
            Err(error) => {
                if !std::mem::replace(&mut self.keep_fault, true) {
                    tracing::warn!(trust_domain = %self.settings.trust_domain, %error, "its bundle could not be kept");
                }
            }
        }
    }

    /// The source has said that what is held is its newest.
    fn confirm(&self) {
        let hint = self.slot.bundle().and_then(|bundle| bundle.refresh_hint());
        let confirmed_at = Some(self.shared.clock.wall());
        self.status.confirm(Freshness { confirmed_at, stale_after: stale_after(hint) });
    }

    fn look_at_age(&mut self) {
        let (freshness, now) = (self.status.freshness(), self.shared.clock.wall());
        let is_stale = freshness.is_stale(now);
        if is_stale && !self.is_told_stale {
            let age = Duration::from_secs(freshness.age(now).unwrap_or_default().as_secs());
            let age = humantime::format_duration(age);
            tracing::warn!(
                trust_domain = %self.settings.trust_domain, source = self.settings.source(), %age,
                "its bundle was not confirmed for too long: workloads with certificates of a newer root are refused"
            );
        }
        self.is_told_stale = is_stale;
    }

    /// Logged once per kind of failure, not once per attempt.
    fn tell(&self, error: &Error, before: Fault, remedy: &str) {
        let (trust_domain, source) = (&self.settings.trust_domain, self.settings.source());
        if before == Some(discriminant(error)) {
            tracing::debug!(%trust_domain, source, %error, "its bundle still cannot be had");
        } else if self.slot.bundle().is_some() {
            tracing::warn!(%trust_domain, source, %error, "its bundle cannot be had; the last good stays, will be tried again");
        } else {
            tracing::error!(%trust_domain, source, %error, remedy, "there is no bundle of it; will be tried again");
        }
    }
}

/// A SPIFFE bundle document, or roots in PEM.
fn parse(trust_domain: TrustDomain, text: &[u8]) -> Result<TrustBundle, trust_bundle::Error> {
    if text.trim_ascii_start().starts_with(b"{") {
        TrustBundle::from_jwks(trust_domain, text)
    } else {
        TrustBundle::from_pem(trust_domain, text)
    }
}

fn sha256(text: &[u8]) -> String {
    digest(&SHA256, text).as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a `String` does not fail.
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}

//! Certificates that are valid when the simulated world begins.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use outrider::identity::{
    fixed::{Fixed, FixedHandle},
    source::Material,
};
use outrider_certs::{TrustBundle, TrustBundles, TrustDomain, X509Svid};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

/// The trust domain of the simulated mesh.
pub(super) const TRUST_DOMAIN: &str = "sim.outrider";

/// When the simulated world begins: 2030-01-01, so that nobody who reads the real clock gets by.
pub(super) fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000)
}

/// Who a service is.
pub(super) fn spiffe_id(service: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{service}")
}

/// One root for all simulations of this process: keys are the one thing in them that is not from a seed.
static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

/// A source with a service's certificate. The handle has to be kept: a source without one ends.
pub(super) fn identity(service: &str) -> (Arc<Fixed>, FixedHandle) {
    let (source, handle) = Fixed::new(Some(AUTHORITY.issue(service)));
    (Arc::new(source), handle)
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    bundles: Arc<TrustBundles>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(&format!("spiffe://{TRUST_DOMAIN}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).unwrap().der().clone();
        let domain: TrustDomain = TRUST_DOMAIN.parse().unwrap();
        let bundle = TrustBundle::new(domain, vec![root], 1, None).unwrap();
        Self { issuer: Issuer::new(params, key), bundles: Arc::new(TrustBundles::single(bundle)) }
    }

    fn issue(&self, service: &str) -> Material {
        let key = KeyPair::generate().unwrap();
        let mut params = params(&spiffe_id(service));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let svid = X509Svid::from_parts(vec![leaf], key.into()).unwrap();
        Material { svid, bundles: Arc::clone(&self.bundles) }
    }
}

fn params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.not_before = (epoch() - Duration::from_secs(3600)).into();
    params.not_after = (epoch() + Duration::from_secs(24 * 3600)).into();
    params
}

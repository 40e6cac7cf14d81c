//! Certificates for tests: proper ones, and every kind of improper one.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::spiffe_id::TrustDomain;
use crate::svid::X509Svid;
use crate::trust_bundle::{TrustBundle, TrustBundles};

/// The time all certificates of these tests are made at.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

/// A root or intermediate with its key.
pub(crate) struct TestCa {
    pub(crate) domain: TrustDomain,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(crate) struct TestLeaf {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

/// What a proper leaf for `id` is made of, valid for an hour to both sides.
pub(crate) fn leaf_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (now() - hours(1)).into();
    params.not_after = (now() + hours(1)).into();
    params
}

/// What a proper signing certificate is made of, valid for a day.
pub(crate) fn ca_params(domain: &str, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into().unwrap())];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = (now() - hours(24)).into();
    params.not_after = (now() + hours(24)).into();
    params
}

impl TestCa {
    pub(crate) fn new(domain: &str) -> Self {
        Self::from_params(domain, ca_params(domain, "root"))
    }

    pub(crate) fn from_params(domain: &str, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { domain: TrustDomain::parse(domain).unwrap(), der, issuer: Issuer::new(params, key) }
    }

    /// A signing certificate below this one.
    pub(crate) fn intermediate(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { domain: self.domain.clone(), der, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> TestLeaf {
        let key = KeyPair::generate().unwrap();
        TestLeaf { der: params.signed_by(&key, &self.issuer).unwrap().der().clone(), key }
    }

    /// A proper leaf.
    pub(crate) fn leaf(&self, id: &str) -> TestLeaf {
        self.sign(&leaf_params(id))
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::new(self.domain.clone(), vec![self.der.clone()], 1, None).unwrap()
    }

    pub(crate) fn bundles(&self) -> TrustBundles {
        TrustBundles::single(self.bundle())
    }
}

impl TestLeaf {
    pub(crate) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    pub(crate) fn svid(&self) -> X509Svid {
        X509Svid::from_parts(vec![self.der.clone()], self.key_der()).unwrap()
    }
}

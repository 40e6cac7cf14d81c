//! A CA of the test, which also signs what no CA should.

use std::time::{Duration, SystemTime};

use outrider_certs::{SpiffeId, TrustBundle, TrustBundles, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The trust domain of all meshes here.
pub(crate) const DOMAIN: &str = "test.outrider";

/// The SPIFFE ID of a service of this trust domain.
pub(crate) fn id(service: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://{DOMAIN}/{service}")).unwrap()
}

/// A root with its key.
pub(crate) struct TestCa {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(crate) struct TestLeaf {
    /// The certificate.
    pub(crate) der: CertificateDer<'static>,
    key: KeyPair,
}

/// What can be wrong with a certificate that names the right service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It ran out an hour ago.
    Expired,
    /// It is valid from an hour on.
    NotYetValid,
    /// Its root is unknown, though of the same name.
    ForeignRoot,
    /// Its ID is of another trust domain, signed by our root.
    OtherDomain,
    /// It names two services.
    TwoUris,
    /// It names none.
    NoUri,
    /// It may sign others.
    CaAsLeaf,
}

impl Wrong {
    /// Every kind.
    pub(crate) const ALL: [Self; 7] = [
        Self::Expired,
        Self::NotYetValid,
        Self::ForeignRoot,
        Self::OtherDomain,
        Self::TwoUris,
        Self::NoUri,
        Self::CaAsLeaf,
    ];
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

fn leaf_params(uris: &[String]) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let uris = uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap()));
    params.subject_alt_names = uris.collect();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (now - hours(1)).into();
    params.not_after = (now + hours(1)).into();
    params
}

fn web_params(name: &str) -> CertificateParams {
    let mut params = leaf_params(&[]);
    params.subject_alt_names = vec![match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_no_address) => SanType::DnsName(name.try_into().unwrap()),
    }];
    params
}

impl TestCa {
    /// A fresh root.
    pub(crate) fn new() -> Self {
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{DOMAIN}").try_into().unwrap())];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = (now - hours(24)).into();
        params.not_after = (now + hours(24)).into();
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { der, issuer: Issuer::new(params, key) }
    }

    /// A proper certificate for a service.
    pub(crate) fn leaf(&self, service: &str) -> TestLeaf {
        self.sign(&leaf_params(&[id(service).to_string()]))
    }

    /// A proper certificate for a service that runs out so soon.
    pub(crate) fn short_leaf(&self, service: &str, life: Duration) -> TestLeaf {
        let mut params = leaf_params(&[id(service).to_string()]);
        params.not_after = (SystemTime::now() + life).into();
        self.sign(&params)
    }

    /// A proper certificate for a server of that name, or of that address: what browsers know.
    pub(crate) fn web_leaf(&self, name: &str) -> TestLeaf {
        self.sign(&web_params(name))
    }

    /// As [`TestCa::web_leaf`], but out of its time.
    pub(crate) fn wrong_web(&self, wrong: Wrong, name: &str) -> TestLeaf {
        let now = SystemTime::now();
        let mut params = web_params(name);
        match wrong {
            Wrong::Expired => {
                (params.not_before, params.not_after) = ((now - hours(2)).into(), (now - hours(1)).into());
            }
            Wrong::NotYetValid => params.not_before = (now + hours(1)).into(),
            Wrong::ForeignRoot | Wrong::OtherDomain | Wrong::TwoUris | Wrong::NoUri | Wrong::CaAsLeaf => {
                panic!("{wrong:?} is about SPIFFE IDs")
            }
        }
        self.sign(&params)
    }

    /// The root.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.der.clone()
    }

    /// An improper certificate for a service.
    pub(crate) fn wrong(&self, wrong: Wrong, service: &str) -> TestLeaf {
        let own = id(service).to_string();
        let now = SystemTime::now();
        let mut params = leaf_params(std::slice::from_ref(&own));
        match wrong {
            Wrong::Expired => {
                params.not_before = (now - hours(2)).into();
                params.not_after = (now - hours(1)).into();
            }
            Wrong::NotYetValid => {
                params.not_before = (now + hours(1)).into();
                params.not_after = (now + hours(2)).into();
            }
            Wrong::ForeignRoot => return Self::new().sign(&params),
            Wrong::OtherDomain => params = leaf_params(&[format!("spiffe://other.outrider/{service}")]),
            Wrong::TwoUris => params = leaf_params(&[own, id("second").to_string()]),
            Wrong::NoUri => params = leaf_params(&[]),
            Wrong::CaAsLeaf => {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages.push(KeyUsagePurpose::KeyCertSign);
            }
        }
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> TestLeaf {
        let key = KeyPair::generate().unwrap();
        TestLeaf { der: params.signed_by(&key, &self.issuer).unwrap().der().clone(), key }
    }

    /// The bundle with this root.
    pub(crate) fn bundle(&self) -> TrustBundle {
        Self::common_bundle(&[self], 1)
    }

    /// The bundle with these roots.
    pub(crate) fn common_bundle(cas: &[&Self], sequence: u64) -> TrustBundle {
        let roots = cas.iter().map(|ca| ca.der.clone()).collect();
        TrustBundle::new(TrustDomain::parse(DOMAIN).unwrap(), roots, sequence, None).unwrap()
    }

    /// The bundles that a member of the mesh holds.
    pub(crate) fn bundles(&self) -> TrustBundles {
        TrustBundles::single(self.bundle())
    }
}

impl TestLeaf {
    /// The key, for TLS.
    pub(crate) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// The certificate, for a file.
    pub(crate) fn pem(&self) -> String {
        outrider_certs::pem::certificate(&self.der)
    }

    /// The key, for a file.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

//! Reads certificate requests of strangers.
//!
//! A request proves that the sender holds a key, and nothing else. Of its
//! content only the key is used; a URI in it is compared with what the caller
//! has proved, so that a misconfigured workload is told rather than renamed.
//!
//! # Keys
//! P-256, P-384 and Ed25519, which every TLS stack of the field signs with
//! cheaply; and RSA of 2048 to 4096 bits with the usual exponent, because
//! Istio's agent makes RSA-2048 keys unless told otherwise. Larger RSA keys
//! would let one workload make all its peers' handshakes slow.

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::{PublicKey, RSAPublicKey};

use crate::certificate::{sha256, uri_of};
use crate::spiffe_id::SpiffeId;

/// Largest request in PEM, in bytes. RSA-4096 with a long ID is under 5 KiB.
pub(super) const MAX_CSR_BYTES: usize = 16 * 1024;

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// More than [`MAX_CSR_BYTES`].
    #[error("the certificate request is larger than {MAX_CSR_BYTES} bytes")]
    TooLarge,
    /// Not one PEM section "CERTIFICATE REQUEST".
    #[error("the certificate request is not PEM with a CERTIFICATE REQUEST section")]
    NotPem,
    /// Not a PKCS#10 structure.
    #[error("the certificate request is not a well-formed PKCS#10 request")]
    Malformed,
    /// Its own signature does not fit its key: the sender may not hold the key.
    #[error("the signature of the certificate request does not fit its key")]
    Signature,
    /// A kind of key that is not certified.
    #[error("the key of the certificate request is not P-256, P-384, Ed25519 or RSA of 2048 to 4096 bits")]
    Key,
    /// It names somebody other than the caller.
    #[error("the certificate request asks for {asked:?}, but the caller is {proven}")]
    OtherName {
        /// The URI in it, shortened.
        asked: String,
        /// Who the caller has proved to be.
        proven: SpiffeId,
    },
}

/// A request that was checked.
#[derive(Debug)]
pub(super) struct Csr {
    pub(super) public_key: SubjectPublicKeyInfo,
    /// SHA-256 of the key's SubjectPublicKeyInfo, for the log.
    pub(super) spki_sha256: [u8; 32],
    uris: Vec<String>,
}

impl Csr {
    /// Reads a request and checks its signature.
    pub(super) fn read(pem: &str) -> Result<Self, Error> {
        if pem.len() > MAX_CSR_BYTES {
            return Err(Error::TooLarge);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| Error::NotPem)?;
        let Ok(([], request)) = X509CertificationRequest::from_der(&der) else {
            return Err(Error::Malformed);
        };
        let spki = request.certification_request_info.subject_pki.raw;
        // Before the signature is checked: some keys make that expensive.
        let public_key = supported_key(&request).ok_or(Error::Key)?;
        request.verify_signature().map_err(|_| Error::Signature)?;
        Ok(Self { public_key, spki_sha256: sha256(spki), uris: uris(&request) })
    }

    /// Lets a request pass that names nobody or the caller.
    pub(super) fn check_name(&self, proven: &SpiffeId) -> Result<(), Error> {
        match self.uris.iter().find(|uri| *uri != proven.as_str()) {
            None => Ok(()),
            Some(uri) => {
                Err(Error::OtherName { asked: uri.chars().take(200).collect(), proven: proven.clone() })
            }
        }
    }
}

fn supported_key(request: &X509CertificationRequest<'_>) -> Option<SubjectPublicKeyInfo> {
    let spki = &request.certification_request_info.subject_pki;
    if let Ok(PublicKey::RSA(key)) = spki.parsed()
        && !is_usual_rsa(&key)
    {
        return None;
    }
    let key = SubjectPublicKeyInfo::from_der(spki.raw).ok()?;
    let known = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ];
    known.contains(&rcgen::PublicKeyData::algorithm(&key)).then_some(key)
}

fn is_usual_rsa(key: &RSAPublicKey<'_>) -> bool {
    (2048..=4096).contains(&key.key_size()) && key.try_exponent().is_ok_and(|exponent| exponent == 65537)
}

fn uris(request: &X509CertificationRequest<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for attribute in request.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(wanted) = attribute.parsed_attribute() else { continue };
        for extension in &wanted.extensions {
            if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                found.extend(names.general_names.iter().filter_map(uri_of));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;

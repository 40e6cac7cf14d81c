//! Writing PEM (RFC 7468). Reading is `rustls-pki-types`' job.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// Characters of a line of base64 text (RFC 7468 §2).
const LINE: usize = 64;

/// One section of PEM, with a line break at its end.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let mut text = String::with_capacity(encoded_len(label, der));
    write(&mut text, label, der);
    text
}

/// One certificate in PEM, with a line break at its end.
pub fn certificate(der: &CertificateDer<'_>) -> String {
    encode("CERTIFICATE", der)
}

/// A private key in PEM; the text is wiped when it is dropped.
pub fn encode_key(key: &PrivateKeyDer<'_>) -> Zeroizing<String> {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        // The enum may grow; PKCS#8 is the container for every kind.
        PrivateKeyDer::Pkcs8(_) | _ => "PRIVATE KEY",
    };
    let der = key.secret_der();
    // The whole length at once: a text that grew would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(encoded_len(label, der)));
    write(&mut text, label, der);
    text
}

fn encoded_len(label: &str, der: &[u8]) -> usize {
    let body = der.len().div_ceil(3) * 4;
    2 * label.len() + 40 + body + body / LINE + 1
}

fn write(text: &mut String, label: &str, der: &[u8]) {
    for part in ["-----BEGIN ", label, "-----\n"] {
        text.push_str(part);
    }
    let body = Zeroizing::new(STANDARD.encode(der));
    for (at, character) in body.chars().enumerate() {
        if at > 0 && at % LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    for part in ["\n-----END ", label, "-----\n"] {
        text.push_str(part);
    }
}

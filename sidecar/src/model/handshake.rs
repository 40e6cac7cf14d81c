//! Why TLS handshakes with endpoints fail: a closed list, for metrics and for people.

/// Why a TLS handshake with an endpoint failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// What answered was no TLS.
    Plaintext,
    /// It speaks no TLS 1.3.
    OldTls,
    /// It and we share no cipher suite, or no key exchange group.
    NoAlgorithm,
    /// It and we share no application protocol.
    NoProtocol,
    /// Its certificate did not verify, or is for somebody else.
    BadCertificate,
    /// It proved to be another workload than it must be.
    WrongPeer,
    /// It refused us: it does not take our certificate, or asks for one.
    Refused,
    /// Anything else: the connection broke, or the TLS library objects.
    Other,
}

impl TlsFailure {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 8] = [
        Self::Plaintext,
        Self::OldTls,
        Self::NoAlgorithm,
        Self::NoProtocol,
        Self::BadCertificate,
        Self::WrongPeer,
        Self::Refused,
        Self::Other,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::OldTls => "old_tls",
            Self::NoAlgorithm => "no_algorithm",
            Self::NoProtocol => "no_protocol",
            Self::BadCertificate => "bad_certificate",
            Self::WrongPeer => "wrong_peer",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }

    /// The reason in words, with what can be done where that is not plain.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Plaintext => "what answered is not TLS",
            Self::OldTls => "the endpoint does not speak TLS 1.3, and sidecars speak TLS 1.3 only",
            Self::NoAlgorithm => {
                "the endpoint takes none of our cipher suites or key exchange groups (tls.cipher_suites, \
                 tls.key_exchange)"
            }
            Self::NoProtocol => "the endpoint takes none of our application protocols (ALPN)",
            Self::BadCertificate => "the endpoint's certificate does not verify",
            Self::WrongPeer => "the endpoint is not who it must be",
            Self::Refused => "the endpoint refused us; it may not take our certificate",
            Self::Other => "TLS handshake failed",
        }
    }
}

//! What a connection was found to speak: a closed list, for decisions and for metrics.

/// What the downstream of a connection speaks, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// TLS: it begins with a `ClientHello`.
    Tls,
    /// HTTP/2 with prior knowledge: it begins with the connection preface.
    Http2,
    /// HTTP/1: it begins with a request line.
    Http1,
    /// Anything else; its bytes are carried as they are.
    Opaque,
}

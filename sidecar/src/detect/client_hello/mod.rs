//! What a TLS client asks for before it is answered: the server's name and the application protocols.

use rustls::server::Acceptor;

/// How much of a connection is read to have its `ClientHello` whole, in bytes, the headers of its records included. It
/// is what rustls takes for a handshake message, so what can be terminated can be read here; with a post-quantum key
/// share a usual one has 1.2 to 2 KiB.
pub const MAX_CLIENT_HELLO_BYTES: usize = 0xffff;

/// `ContentType.handshake` (RFC 8446 §5.1).
pub(super) const HANDSHAKE_RECORD: u8 = 22;
/// `HandshakeType.client_hello` (RFC 8446 §4).
pub(super) const CLIENT_HELLO: u8 = 1;
/// What a record in the clear may carry, at least 1 in a handshake (RFC 8446 §5.1).
pub(super) const MAX_PLAINTEXT_BYTES: u16 = 1 << 14;
/// Type and length of a handshake message (RFC 8446 §4).
const MESSAGE_HEADER_BYTES: usize = 4;

/// What a `ClientHello` says, as far as it matters to where the connection goes. All of it is a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The server's name (RFC 6066 §3): a DNS name in lower case, without the root's dot, as `canonical::authority` writes
    /// a host. `None` if there is none, or an IP address, which that RFC does not permit.
    pub server_name: Option<Box<str>>,
    /// The application protocols (RFC 7301), the preferred one first; empty if the client names none.
    pub alpn: Vec<Box<[u8]>>,
}

/// Why bytes are no `ClientHello`.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ClientHelloError {
    /// They are no records with a `ClientHello` in them.
    #[error("not a ClientHello")]
    Other,
    /// It is not whole within [`MAX_CLIENT_HELLO_BYTES`].
    #[error("a ClientHello of more than {MAX_CLIENT_HELLO_BYTES} bytes")]
    TooLarge,
    /// It is one that breaks a rule, or has no signature algorithms (before TLS 1.2).
    #[error("a malformed ClientHello: {0}")]
    Malformed(#[from] rustls::Error),
}

impl ClientHello {
    /// Reads the `ClientHello` that `bytes` begin with: all that the client has sent so far, in any number of records.
    /// What follows the record in which it ends is not looked at.
    ///
    /// `None`: more is needed. Until it is whole this only walks from record to record and allocates nothing; then
    /// rustls parses it, once. Any TLS version will do.
    ///
    /// # Errors
    /// [`ClientHelloError`]; no further byte changes it.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, ClientHelloError> {
        let bytes_looked_at = bytes.get(..MAX_CLIENT_HELLO_BYTES).unwrap_or(bytes);
        match whole(bytes_looked_at)? {
            Some(records) => accept(records).map(Some),
            None if bytes.len() >= MAX_CLIENT_HELLO_BYTES => Err(ClientHelloError::TooLarge),
            None => Ok(None),
        }
    }

    /// Whether the client would speak this protocol.
    #[must_use]
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.alpn.iter().any(|offered| **offered == *protocol)
    }
}

/// The records up to the end of the `ClientHello`, once they are all there.
fn whole(bytes: &[u8]) -> Result<Option<&[u8]>, ClientHelloError> {
    let mut rest = bytes;
    let mut message_header = [0; MESSAGE_HEADER_BYTES];
    let mut seen = 0;
    while let Some((&[kind, major, _, high, low], behind)) = rest.split_first_chunk::<5>() {
        let length = u16::from_be_bytes([high, low]);
        if kind != HANDSHAKE_RECORD || major != 3 || !(1..=MAX_PLAINTEXT_BYTES).contains(&length) {
            return Err(ClientHelloError::Other);
        }
        let length = usize::from(length);
        let (fragment, behind) = behind.split_at_checked(length).unwrap_or((behind, &[]));
        for (place, byte) in message_header.iter_mut().skip(seen).zip(fragment) {
            *place = *byte;
        }
        seen += fragment.len();
        if let Some(needed) = message_bytes(message_header.get(..seen).unwrap_or(&message_header))?
            && seen >= needed
            && fragment.len() == length
        {
            return Ok(bytes.get(..bytes.len() - behind.len()));
        }
        rest = behind;
    }
    Ok(None)
}

/// The length of the handshake message, header included, as far as the header has come.
fn message_bytes(header: &[u8]) -> Result<Option<usize>, ClientHelloError> {
    match *header {
        [kind, ..] if kind != CLIENT_HELLO => Err(ClientHelloError::Other),
        [_, high, ..] if high > 0 => Err(ClientHelloError::TooLarge),
        [_, _, middle, low] => {
            Ok(Some(MESSAGE_HEADER_BYTES + usize::from(u16::from_be_bytes([middle, low]))))
        }
        _ => Ok(None),
    }
}

/// What rustls reads in the records of a whole `ClientHello`.
fn accept(mut records: &[u8]) -> Result<ClientHello, ClientHelloError> {
    let mut acceptor = Acceptor::default();
    // Each turn takes up to 4 KiB; one that takes none ends it.
    while matches!(acceptor.read_tls(&mut records), Ok(1..)) {
        let Some(accepted) = acceptor.accept().map_err(|(error, _alert)| error)? else { continue };
        let hello = accepted.client_hello();
        return Ok(ClientHello {
            // In lower case and without the root's dot: rustls gives it so.
            server_name: hello.server_name().map(Box::from),
            alpn: hello.alpn().into_iter().flatten().map(Box::from).collect(),
        });
    }
    Err(ClientHelloError::Other)
}

#[cfg(test)]
mod tests;

//! The file a join token is found in: read when one is needed, and again whenever it changes.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use outrider_certs::{
    join_token::{JoinToken, MAX_TOKEN_BYTES, TokenId},
    spiffe_id::SpiffeId,
};
use zeroize::Zeroizing;

use super::Error;

/// Longest token of a service account, in bytes; usual ones have about one kilobyte.
const MAX_SERVICE_ACCOUNT_TOKEN: usize = 12 * 1024;

/// The service account's token that is in the file now. The kubelet replaces it long before it runs out.
pub(super) fn service_account_token(path: &Path) -> Result<Zeroizing<String>, Error> {
    let no = |why: &str| Error::NoServiceAccount(format!("{}: {why}", path.display()));
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path).map_err(|error| no(&error.to_string()))?;
    let limit = MAX_SERVICE_ACCOUNT_TOKEN as u64 + 1;
    file.take(limit).read_to_string(&mut text).map_err(|error| no(&error.to_string()))?;
    if text.len() > MAX_SERVICE_ACCOUNT_TOKEN {
        return Err(no("it is too large for a token"));
    }
    let token = text.trim();
    // What goes into a header field, and what tokens are made of (RFC 6750 §2.1).
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(no("it does not hold a token"));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

/// A join token's file, and which token of it was spent or refused.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: Option<PathBuf>,
    read: Option<(TokenId, SpiffeId)>,
    tried: Option<TokenId>,
}

impl TokenFile {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, read: None, tried: None }
    }

    /// Reads the token that is there.
    pub(super) fn read(&mut self) -> Result<JoinToken, Error> {
        let path =
            self.path.as_ref().ok_or_else(|| Error::NoToken("no file is configured for one".to_owned()))?;
        let token = token_in(path)?;
        self.read = Some((token.id(), token.spiffe_id().clone()));
        Ok(token)
    }

    /// Whom the token that is there is for; does not count as reading it.
    pub(super) fn peek(&self) -> Option<SpiffeId> {
        let token = token_in(self.path.as_ref()?).ok()?;
        Some(token.spiffe_id().clone())
    }

    /// Whom the token that was read last is for.
    pub(super) fn id(&self) -> Option<SpiffeId> {
        self.read.as_ref().map(|(_, id)| id.clone())
    }

    /// Notes that the token that was read last was spent or refused.
    pub(super) fn set_tried(&mut self) {
        self.tried = self.read.as_ref().map(|(number, _)| *number);
    }

    /// Whether another token is there than the one that was read last.
    pub(super) fn is_new(&self) -> bool {
        self.number().is_some_and(|number| self.read.as_ref().is_none_or(|(read, _)| *read != number))
    }

    /// Whether a token is there that was neither spent nor refused yet.
    pub(super) fn is_untried(&self) -> bool {
        self.number().is_some_and(|number| self.tried != Some(number))
    }

    fn number(&self) -> Option<TokenId> {
        self.path.as_ref().and_then(|path| token_in(path).ok()).map(|token| token.id())
    }
}

fn token_in(path: &Path) -> Result<JoinToken, Error> {
    let no = |why: String| Error::NoToken(format!("{}: {why}", path.display()));
    let mut text = Zeroizing::new(String::new());
    // One byte more than a token with white space around it may have, so that more is noticed.
    let limit = MAX_TOKEN_BYTES as u64 + 64;
    let file = File::open(path).map_err(|error| no(error.to_string()))?;
    file.take(limit).read_to_string(&mut text).map_err(|error| no(error.to_string()))?;
    JoinToken::parse(&text).map_err(|error| no(error.to_string()))
}

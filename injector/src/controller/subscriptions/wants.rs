//! How much is wanted, and how much may be. Who is refused goes on with all that it has.

use std::collections::HashMap;

use crate::controller::model::objects::Name;

/// What one stream may want at most.
pub const MAX_WANTS: usize = 4096;

/// Destinations that may be wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxWants {
    /// By all streams of one service account: whoever wants much takes it from nobody else.
    pub of_identity: usize,
    /// By all streams together.
    pub of_all: usize,
}

/// Why a wish is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not an `IP:port` or `host:port`.
    #[error("the key is neither IP:port nor host:port")]
    Key,
    /// The stream wants too much.
    #[error("one stream may want no more than {MAX_WANTS} destinations")]
    TooManyOfOne,
    /// All streams of its service account want too much.
    #[error("all streams of one identity may want no more (--max-wants-per-identity)")]
    TooManyOfIdentity,
    /// All streams together want too much.
    #[error("all streams together may want no more (--max-wants)")]
    TooManyOfAll,
}

/// A namespace, and a service account in it.
pub(super) type Account = (Name, Name);

/// What is wanted, counted.
#[derive(Debug)]
pub(super) struct Wants {
    max: MaxWants,
    all: usize,
    /// Of each that wants something.
    of: HashMap<Account, usize>,
}

impl Wants {
    pub(super) fn new(max: MaxWants) -> Self {
        Self { max, all: 0, of: HashMap::new() }
    }

    pub(super) fn all(&self) -> usize {
        self.all
    }

    /// Whether a stream of this account may want one more, which wants `own` now.
    pub(super) fn check(&self, account: &Account, own: usize) -> Result<(), Refused> {
        if own >= MAX_WANTS {
            return Err(Refused::TooManyOfOne);
        }
        if self.of.get(account).is_some_and(|wants| *wants >= self.max.of_identity) {
            return Err(Refused::TooManyOfIdentity);
        }
        if self.all >= self.max.of_all {
            return Err(Refused::TooManyOfAll);
        }
        Ok(())
    }

    pub(super) fn add(&mut self, account: Account) {
        self.all += 1;
        *self.of.entry(account).or_default() += 1;
    }

    pub(super) fn remove(&mut self, account: &Account, count: usize) {
        self.all = self.all.saturating_sub(count);
        if let Some(wants) = self.of.get_mut(account) {
            *wants = wants.saturating_sub(count);
            if *wants == 0 {
                self.of.remove(account);
            }
        }
    }
}

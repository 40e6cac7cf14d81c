//! What one check found, in a word for machines and in a sentence for people.

use std::error::Error as _;

use crate::{
    connect::{self, http_client::SendError},
    model::health_check::CheckOutcome,
    relay::received::Broken,
    resilience::outcome,
};

/// Longest sentence kept, in bytes: what an endpoint says of itself can be of any length.
const MAX_TEXT_BYTES: usize = 200;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// In a word.
    pub(super) outcome: CheckOutcome,
    /// In a sentence.
    pub(super) text: Box<str>,
}

impl Finding {
    /// A finding; control characters of its text are taken out, and it is cut where it is too long.
    pub(super) fn new(outcome: CheckOutcome, text: &str) -> Self {
        let mut kept: String = text.chars().filter(|c| !c.is_control()).collect();
        let end = (0..=MAX_TEXT_BYTES).rev().find(|end| kept.is_char_boundary(*end)).unwrap_or_default();
        kept.truncate(end);
        Self { outcome, text: kept.into() }
    }

    /// No answer within the timeout.
    pub(super) fn timeout(limit: std::time::Duration) -> Self {
        Self::new(CheckOutcome::Timeout, &format!("no answer within {limit:?}"))
    }

    /// What an endpoint's sidecar says instead of its app. A sidecar that is at a cap has more than enough to do, and is
    /// not ill.
    pub(super) fn of_sidecar(outcome: CheckOutcome, text: &str, reason: &str) -> Self {
        let is_at_cap = outcome::of_reason(reason.as_bytes()).is_some_and(|said| said.is_overloaded);
        let outcome = if is_at_cap { CheckOutcome::Skipped } else { outcome };
        Self::new(outcome, &format!("{text}, its sidecar says {reason}"))
    }
}

impl From<connect::Error> for Finding {
    fn from(error: connect::Error) -> Self {
        let outcome = match &error {
            error if error.is_identity() => CheckOutcome::Identity,
            connect::Error::Timeout => CheckOutcome::Timeout,
            // Of our own making.
            connect::Error::Overflow(_)
            | connect::Error::NoIdentity
            | connect::Error::NoPublicTls
            | connect::Error::GivenUp => CheckOutcome::Skipped,
            connect::Error::Tcp(_)
            | connect::Error::Tls(_)
            | connect::Error::Refused
            | connect::Error::Http(_)
            | connect::Error::Http2(_)
            | connect::Error::ClosedAtOnce => CheckOutcome::Connect,
        };
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::new(outcome, &text)
    }
}

impl From<SendError> for Finding {
    fn from(error: SendError) -> Self {
        match error {
            SendError::NotSent(_) | SendError::Refused | SendError::Downstream => {
                Self::new(CheckOutcome::Reset, "it did not take the request")
            }
            SendError::Reset(broken) => Self::broken(&broken),
            SendError::Protocol(broken) => {
                Self::new(CheckOutcome::Protocol, &format!("no HTTP: {}", cause(&broken)))
            }
        }
    }
}

impl Finding {
    /// The answer broke off.
    pub(super) fn broken(broken: &Broken) -> Self {
        Self::new(CheckOutcome::Reset, &format!("it broke off: {}", cause(broken)))
    }
}

fn cause(broken: &Broken) -> String {
    broken.source().map_or_else(|| broken.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters_and_holds_no_control_character() {
        let found = Finding::new(CheckOutcome::Protocol, &format!("a\r\n\u{1b}[0m{}", "é".repeat(300)));
        assert!(found.text.len() <= MAX_TEXT_BYTES && found.text.starts_with("a[0mé"), "{}", found.text);
    }

    #[test]
    fn a_sidecar_at_a_cap_is_not_ill() {
        let found = |reason| Finding::of_sidecar(CheckOutcome::Status, "status 503", reason).outcome;
        assert_eq!(found("max_requests"), CheckOutcome::Skipped);
        assert_eq!(found("max_requests_of_peer"), CheckOutcome::Skipped);
        assert_eq!(found("connect_failed"), CheckOutcome::Status);
        assert_eq!(Finding::from(connect::Error::NoIdentity).outcome, CheckOutcome::Skipped);
        assert_eq!(Finding::from(connect::Error::Refused).outcome, CheckOutcome::Connect);
    }
}

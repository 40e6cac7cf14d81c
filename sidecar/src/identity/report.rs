//! Tells of failures once per change of state, not once per attempt.

use std::mem::{Discriminant, discriminant};

/// What is failing, so that the same failure is told of once.
#[derive(Debug)]
pub(super) struct Reporter<E> {
    activity: &'static str,
    failing: Option<Discriminant<E>>,
}

impl<E: std::error::Error> Reporter<E> {
    /// For one activity, named as in "certificate renewal".
    pub(super) fn new(activity: &'static str) -> Self {
        Self { activity, failing: None }
    }

    /// It failed. Logged if it did not fail before, or in another way. `is_fatal`: the process cannot do its job
    /// without it.
    pub(super) fn failed(&mut self, error: &E, is_fatal: bool, remedy: &str) {
        if self.failing.replace(discriminant(error)) == Some(discriminant(error)) {
            tracing::debug!(activity = self.activity, %error, "still failing");
        } else if is_fatal {
            tracing::error!(activity = self.activity, %error, remedy, "failing; will be tried again");
        } else {
            tracing::warn!(activity = self.activity, %error, "failing; the last good stays, will be tried again");
        }
    }

    /// It worked. Logged if it failed before.
    pub(super) fn worked(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!(activity = self.activity, "works again");
        }
    }
}

//! Who spoke first on a cluster's connections the last time: a hint for the next one, never a decision.

use std::sync::atomic::{AtomicU8, Ordering};

/// Who speaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// The client, as in HTTP.
    ClientFirst,
    /// The server, as in SMTP.
    ServerFirst,
}

/// The habit last seen, if there was any.
#[derive(Debug, Default)]
pub struct LastHabit(AtomicU8);

impl LastHabit {
    /// What was seen last.
    #[must_use]
    pub fn get(&self) -> Option<Habit> {
        match self.0.load(Ordering::Relaxed) {
            1 => Some(Habit::ClientFirst),
            2 => Some(Habit::ServerFirst),
            _ => None,
        }
    }

    /// Remembers it.
    pub fn set(&self, habit: Habit) {
        let value = match habit {
            Habit::ClientFirst => 1,
            Habit::ServerFirst => 2,
        };
        self.0.store(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_counts() {
        let habit = LastHabit::default();
        assert_eq!(habit.get(), None);
        habit.set(Habit::ServerFirst);
        assert_eq!(habit.get(), Some(Habit::ServerFirst));
        habit.set(Habit::ClientFirst);
        assert_eq!(habit.get(), Some(Habit::ClientFirst));
    }
}

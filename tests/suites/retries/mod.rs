//! What may be repeated is, elsewhere, within a budget; what may not be is done once at most.

mod apps;
mod budget;
mod peers;

/// More retries than any test here needs: the budget is the matter of `budget` alone.
const PLENTY: &str = "balance: round_robin, retry: {budget_min_per_second: 1000, backoff_base: 1ms}";

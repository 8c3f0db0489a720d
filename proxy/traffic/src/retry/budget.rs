//! Retry budgets: retries as a share of what is under way anyway, so that they cannot multiply an outage.

use crate::config::RetryBudget;

/// How many retries may be under way beside so many requests. Source: Envoy: `retry_budget`.
pub fn allowed(rule: RetryBudget, active_requests: u32, pending_requests: u32) -> u32 {
    let under_way = u64::from(active_requests) + u64::from(pending_requests);
    let share = under_way * u64::from(rule.budget.millionths()) / 1_000_000;
    u32::try_from(share).unwrap_or(u32::MAX).max(rule.min_retry_concurrency)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fraction;

    #[test]
    fn budget_is_a_share_but_at_least_the_minimum() {
        let rule = RetryBudget { budget: Fraction::from_percent(20), min_retry_concurrency: 3 };
        for (active, pending, expected) in
            [(0, 0, 3), (15, 0, 3), (19, 0, 3), (20, 0, 4), (10, 10, 4), (u32::MAX, u32::MAX, 1_717_986_918)]
        {
            assert_eq!(allowed(rule, active, pending), expected);
        }
    }
}

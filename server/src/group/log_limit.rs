//! What clients can cause again and again is logged now and then.

use std::time::Duration;

/// How often something is logged at most.
const INTERVAL: Duration = Duration::from_secs(10);

/// When something was last logged, and how often it was not since.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    logged: Option<Duration>,
    missed: u64,
}

impl LogLimit {
    /// How often it was not logged since it was, if it is to be logged now.
    pub(super) fn admit(&mut self, now: Duration) -> Option<u64> {
        if self.logged.is_some_and(|at| now.saturating_sub(at) < INTERVAL) {
            self.missed += 1;
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.missed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_often_is_logged_now_and_then() {
        let mut limit = LogLimit::default();
        let logged: Vec<Option<u64>> = [0, 0, 9, 10, 11, 19, 100].map(|at| limit.admit(Duration::from_secs(at))).into();
        assert_eq!(logged, [Some(0), None, None, Some(2), None, None, Some(2)]);
    }
}

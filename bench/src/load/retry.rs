//! Trying again as Kafka's clients do: soon at first, then less and less often (KIP-144, KIP-580), and not for ever
//! (`delivery.timeout.ms`, KIP-91). Producers and consumers use it for brokers that go away, come back, or answer that they cannot
//! do it now; it never decides which errors pass.

use std::net::SocketAddr;
use std::time::Duration;

use super::client::{ClientError, Connection};
use super::content::Random;
use super::control::Lane;

/// Kafka's `reconnect.backoff.ms`.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Kafka's `reconnect.backoff.max.ms`.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Pauses are up to this part longer or shorter, so that not all come back at once.
const JITTER: f64 = 0.2;

/// When to try next, and until when.
#[derive(Debug)]
pub(crate) struct Retry {
    limit_ns: u64,
    since_ns: Option<u64>,
    tries: u32,
    next_ns: u64,
    random: Random,
}

impl Retry {
    /// Tries for `retry_for` from the first failure on; zero never tries again.
    #[must_use]
    pub(crate) fn new(retry_for: Duration, seed: u64) -> Self {
        Self { limit_ns: retry_for.as_nanos() as u64, since_ns: None, tries: 0, next_ns: 0, random: Random::new(seed) }
    }

    /// Notes a failure; whether to try again, at [`Retry::next_ns`]. Failures before that are the same one.
    pub(crate) fn failed(&mut self, now_ns: u64) -> bool {
        let since_ns = *self.since_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(since_ns) >= self.limit_ns {
            return false;
        }
        if now_ns >= self.next_ns {
            let pause = PAUSE_FIRST.saturating_mul(1 << self.tries.min(10)).min(PAUSE_MAX);
            let pause = pause.mul_f64(1.0 - JITTER + 2.0 * JITTER * self.random.fraction());
            self.next_ns = now_ns + pause.as_nanos() as u64;
            self.tries += 1;
        }
        true
    }

    /// Notes that it works again.
    pub(crate) fn succeeded(&mut self) {
        self.since_ns = None;
        self.tries = 0;
        self.next_ns = 0;
    }

    /// Whether the last that is known is a failure.
    #[must_use]
    pub(crate) fn is_failing(&self) -> bool {
        self.since_ns.is_some()
    }

    /// When to try next.
    #[must_use]
    pub(crate) fn next_ns(&self) -> u64 {
        self.next_ns
    }
}

/// A new connection after one was lost by `error`; `None` where the run was told to end at once.
///
/// # Errors
/// The last that went wrong, when the time is over.
pub(crate) async fn reconnect(
    retry: &mut Retry,
    lane: &mut Lane,
    leader: SocketAddr,
    error: ClientError,
) -> Result<Option<Connection>, ClientError> {
    let mut outage = None;
    let mut last = error;
    loop {
        // Whoever greets strangely may be a broker that is still starting, so every failure to connect may pass.
        if !retry.failed(lane.shared.clock.now_ns()) {
            return Err(last);
        }
        outage.get_or_insert_with(|| lane.shared.outages.begin(&last));
        if lane.pause_until(retry.next_ns()).await {
            return Ok(None);
        }
        let timeout = lane.shared.timeout;
        let opened = tokio::select! {
            opened = Connection::open(leader, timeout) => opened,
            () = lane.aborted() => return Ok(None),
        };
        match opened {
            Ok(connection) => return Ok(Some(connection)),
            Err(error) => last = error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn pauses_grow_to_a_second_and_end_in_time() {
        let mut retry = Retry::new(Duration::from_secs(60), 1);
        let mut now_ns = 5;
        let mut pauses = Vec::new();
        while retry.failed(now_ns) {
            assert!(retry.is_failing());
            pauses.push(retry.next_ns() - now_ns);
            now_ns = retry.next_ns();
        }
        assert!((60_000 * MS..61_300 * MS).contains(&now_ns), "{now_ns}");
        for (at, pause) in pauses.iter().enumerate() {
            let middle = (50 << at.min(10)).min(1000) * MS;
            assert!((middle * 8 / 10..=middle * 12 / 10).contains(pause), "{at}: {pause}");
        }
    }

    #[test]
    fn failures_at_once_are_one_and_success_begins_anew() {
        let mut retry = Retry::new(Duration::from_secs(60), 1);
        assert!(retry.failed(0));
        let next_ns = retry.next_ns();
        assert!(retry.failed(1) && retry.failed(next_ns - 1));
        assert_eq!(retry.next_ns(), next_ns);
        assert!(retry.failed(next_ns) && retry.next_ns() > next_ns);
        retry.succeeded();
        assert!(!retry.is_failing());
        assert!(retry.failed(1_000_000 * MS) && retry.next_ns() - 1_000_000 * MS <= 60 * MS);
        assert!(!Retry::new(Duration::ZERO, 1).failed(0));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The extent of a measurement.

use std::time::Duration;

/// At least this many requests are measured, however long they take.
pub const REQUESTS_MIN: u32 = 20;
/// Each measured request is served together with its reset, as two halves, and again in the steady state.
const CALLS_A_REQUEST: u32 = 3;

/// The extent of a measurement.
#[derive(Clone, Copy)]
pub struct Plan {
    pub requests: u32,
    /// How long the requests may take, approximately; `None`: no limit.
    pub time: Option<Duration>,
}

impl Plan {
    /// How long one of `parts` equal parts may take.
    pub fn share(self, parts: u32) -> Duration {
        self.time.map_or(Duration::MAX, |time| time / parts)
    }

    /// The plan for requests that take `each`.
    pub fn for_requests_of(self, each: Duration) -> Self {
        let Some(time) = self.time else { return self };
        let fit = time.as_nanos() / u128::from(CALLS_A_REQUEST) / each.as_nanos().max(1);
        let fit = u32::try_from(fit).unwrap_or(u32::MAX).max(REQUESTS_MIN);
        Self { requests: self.requests.min(fit), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_slow_requests_are_measured() {
        let plan = Plan { requests: 1_000, time: Some(Duration::from_secs(3)) };
        let requests = |each_us| plan.for_requests_of(Duration::from_micros(each_us)).requests;
        assert_eq!((requests(0), requests(30), requests(2_000), requests(1 << 30)), (1_000, 1_000, 500, REQUESTS_MIN));
        let endless = Plan { time: None, ..plan };
        assert_eq!(endless.for_requests_of(Duration::from_secs(60)).requests, 1_000);
    }
}

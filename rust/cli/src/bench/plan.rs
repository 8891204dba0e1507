// SPDX-License-Identifier: MIT OR Apache-2.0
//! The extent of a measurement.

use std::time::{Duration, Instant};

/// At least this many requests are measured, however long they take.
pub const REQUESTS_MIN: u32 = 3;
/// Each measured request is served together with its reset, as two halves, and again in the steady state.
const CALLS_A_REQUEST: u32 = 3;
/// The part of the time for the rounds, in which a request is served twice. The steady state takes half as long.
const ROUNDS_PART: u32 = 3;
const REQUESTS_PART: u32 = 2;
/// The part of the time for each of the [`STEPS`] other steps. Together with the requests they take the whole time.
const STEP_PART: u32 = REQUESTS_PART * STEPS;
/// The requests before the measurement, forks, memory twice, routes and limits, the first response.
const STEPS: u32 = 6;

/// Requests that are measured if the command line does not say how many.
const REQUESTS: u32 = 20_000;
/// How long the measurement may take if it does not say that either.
const TIME: Duration = Duration::from_secs(20);

/// The extent of a measurement.
#[derive(Clone, Copy)]
pub struct Plan {
    /// How many requests are measured; fewer if they would take longer than `time`, unless their number is exact.
    pub requests: u32,
    pub is_exact: bool,
    /// How long all steps together may take, approximately. Boots come on top, and what the least numbers need.
    pub time: Duration,
}

impl Plan {
    /// The plan for what the command line names. A number of requests without a time is exact.
    pub fn new(requests: Option<u32>, seconds: Option<u64>) -> Self {
        Self {
            requests: requests.unwrap_or(REQUESTS),
            is_exact: requests.is_some() && seconds.is_none(),
            time: seconds.map_or(TIME, Duration::from_secs),
        }
    }

    /// How long a step other than the requests may take.
    pub fn step(self) -> Duration {
        self.time / STEP_PART
    }

    /// How long the rounds may take. None if the number of requests is exact.
    pub fn rounds(self) -> Option<Duration> {
        (!self.is_exact).then(|| self.time / ROUNDS_PART)
    }

    /// The plan for requests that take `each`.
    pub fn for_requests_of(self, each: Duration) -> Self {
        if self.is_exact {
            return self;
        }
        let fit = fit(self.time / REQUESTS_PART / CALLS_A_REQUEST, each).max(REQUESTS_MIN);
        Self { requests: self.requests.min(fit), ..self }
    }
}

/// How many steps of `each` fit into `time`.
pub fn fit(time: Duration, each: Duration) -> u32 {
    u32::try_from(time.as_nanos() / each.as_nanos().max(1)).unwrap_or(u32::MAX)
}

/// The numbers below `most` one by one, until `time` is over; `least` of them at any rate.
pub fn within(time: Duration, least: u32, most: u32) -> impl Iterator<Item = u32> {
    let began = Instant::now();
    (0..most).take_while(move |&done| done < least || began.elapsed() < time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_slow_requests_are_measured() {
        let plan = Plan { requests: 1_000, is_exact: false, time: Duration::from_secs(3) };
        let requests = |each_us| plan.for_requests_of(Duration::from_micros(each_us)).requests;
        assert_eq!((requests(0), requests(30), requests(1_000), requests(1 << 30)), (1_000, 1_000, 500, REQUESTS_MIN));
        let exact = Plan { is_exact: true, ..plan };
        assert_eq!(exact.for_requests_of(Duration::from_secs(60)).requests, 1_000);
    }

    #[test]
    fn the_steps_fit_into_the_time() {
        let plan = Plan::new(None, Some(12));
        let rounds = plan.rounds().unwrap();
        assert_eq!(rounds + rounds / (CALLS_A_REQUEST - 1) + plan.step() * STEPS, Duration::from_secs(12));
        assert_eq!(Plan::new(Some(500), None).rounds(), None);
        assert!(Plan::new(Some(500), Some(1)).rounds().is_some());
    }

    #[test]
    fn steps_end_with_their_time_or_their_number() {
        assert_eq!(within(Duration::ZERO, 3, 10).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(within(Duration::from_secs(600), 3, 10).count(), 10);
        assert_eq!(within(Duration::ZERO, 3, 2).count(), 2);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Samples in nanoseconds, and their quantiles.

use std::time::Instant;

/// Up to a fixed number of samples; adding one allocates nothing.
#[derive(Debug)]
pub struct Samples {
    nanoseconds: Vec<u64>,
}

impl Samples {
    /// Room for `capacity` samples. It touches the pages now, so that no page fault falls into a measurement.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut nanoseconds = vec![1; capacity];
        nanoseconds.clear();
        Self { nanoseconds }
    }

    /// Adds a sample; drops it if there is no room.
    pub fn add(&mut self, nanoseconds: u64) {
        if self.nanoseconds.len() < self.nanoseconds.capacity() {
            self.nanoseconds.push(nanoseconds);
        }
    }

    /// Runs `work` and adds the time that it takes.
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(start.elapsed().as_nanos() as u64);
        result
    }

    /// Like [`Self::time`], for work that may fail; a failure is no sample.
    pub fn try_time<T, E>(&mut self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let start = Instant::now();
        let result = work()?;
        self.add(start.elapsed().as_nanos() as u64);
        Ok(result)
    }

    pub fn len(&self) -> usize {
        self.nanoseconds.len()
    }

    /// The smallest sample that is not exceeded by at least `share` (0 to 1) of all; none without samples.
    pub fn quantile(&mut self, share: f64) -> Option<f64> {
        self.nanoseconds.sort_unstable();
        let rank = (share * self.nanoseconds.len() as f64).ceil() as usize;
        self.nanoseconds.get(rank.saturating_sub(1)).map(|&nanoseconds| nanoseconds as f64)
    }

    pub fn median(&mut self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// The median in microseconds.
    pub fn median_us(&mut self) -> Option<f64> {
        self.quantile_us(0.5)
    }

    /// [`Self::quantile`] in microseconds.
    pub fn quantile_us(&mut self, share: f64) -> Option<f64> {
        self.quantile(share).map(|nanoseconds| nanoseconds / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::Samples;

    #[test]
    fn quantiles_are_samples_by_rank() {
        let mut samples = Samples::with_capacity(100);
        (1..=150).rev().for_each(|sample| samples.add(sample));
        assert_eq!(samples.quantile(0.0), Some(51.0));
        assert_eq!(samples.median(), Some(100.0));
        assert_eq!(samples.quantile(0.99), Some(149.0));
        assert_eq!(samples.quantile(1.0), Some(150.0));
        assert_eq!(samples.quantile_us(1.0), Some(0.15));
        assert_eq!(Samples::with_capacity(0).median(), None);
    }
}

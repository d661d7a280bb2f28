//! When to return memory to the system after a crowd of clients.

/// Fewer connections than this are not worth it.
const CROWD: usize = 256;

/// The most connections since memory was last returned.
#[derive(Debug, Default)]
pub(crate) struct ConnectionPeak(usize);

impl ConnectionPeak {
    /// Whether few enough connections are left that returning memory is worth it.
    pub(crate) fn is_over(&mut self, connections: usize) -> bool {
        self.0 = self.0.max(connections);
        let is_over = self.0 >= CROWD && connections <= self.0 / 2;
        if is_over {
            self.0 = connections;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_returned_each_time_half_of_a_crowd_has_gone() {
        let mut peak = ConnectionPeak::default();
        let growing = (1..=1000).filter(|&open| peak.is_over(open)).count();
        assert_eq!(growing, 0);
        let falling: Vec<_> = (0..1000).rev().filter(|&open| peak.is_over(open)).collect();
        assert_eq!(falling, [500, 250]);
        assert!(!(0..CROWD).any(|open| peak.is_over(open)));
        assert!(!peak.is_over(0), "few are not worth it");
    }
}

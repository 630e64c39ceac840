//! One commander at a time.

use std::time::Duration;

use tenon_core::time::MonotonicTime;

#[derive(Debug, Clone, Copy)]
struct Holder {
    session: u64,
    last_sign: MonotonicTime,
}

/// Who commands, and when it was heard last.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    holder: Option<Holder>,
    epoch: u32,
    timeout: Duration,
}

/// Answer to a wish to command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    Granted,
    /// The same session repeated itself.
    AlreadyHeld,
    /// That session commands and is alive.
    HeldBy(u64),
    /// 0 is no session.
    NoSession,
}

impl Lease {
    /// Nobody commands; later silence longer than `timeout` ends a lease.
    pub fn new(timeout: Duration) -> Self {
        Self { holder: None, epoch: 0, timeout }
    }

    /// The session in force; 0 for none.
    pub fn session(&self) -> u64 {
        self.holder.map_or(0, |holder| holder.session)
    }

    /// Counts the leases granted; 0 before the first.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// `session` wants to command.
    pub fn claim(&mut self, session: u64, now: MonotonicTime) -> Claim {
        match &mut self.holder {
            _ if session == 0 => Claim::NoSession,
            Some(holder) if holder.session == session => {
                holder.last_sign = holder.last_sign.max(now);
                Claim::AlreadyHeld
            }
            Some(holder) if now.since(holder.last_sign) <= self.timeout => Claim::HeldBy(holder.session),
            _ => {
                self.holder = Some(Holder { session, last_sign: now });
                self.epoch = self.epoch.wrapping_add(1);
                Claim::Granted
            }
        }
    }

    /// A message of `session` arrived. Returns whether it is the commander's.
    pub fn hear(&mut self, session: u64, at: MonotonicTime) -> bool {
        match &mut self.holder {
            Some(holder) if holder.session == session => {
                holder.last_sign = holder.last_sign.max(at);
                true
            }
            _ => false,
        }
    }

    /// Whether there is a commander that has been silent for too long.
    pub fn is_silent(&self, now: MonotonicTime) -> bool {
        self.holder.is_some_and(|holder| now.since(holder.last_sign) > self.timeout)
    }

    /// Nobody commands any more.
    pub fn end(&mut self) {
        self.holder = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: i64) -> MonotonicTime {
        MonotonicTime::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_second_session_is_refused_while_the_first_is_heard() {
        let mut lease = Lease::new(Duration::from_millis(300));
        assert_eq!(lease.claim(0, ms(0)), Claim::NoSession);
        assert_eq!(lease.claim(7, ms(0)), Claim::Granted);
        assert_eq!(lease.claim(8, ms(100)), Claim::HeldBy(7));
        assert!(lease.hear(7, ms(250)) && !lease.hear(8, ms(250)));
        assert_eq!(lease.claim(8, ms(500)), Claim::HeldBy(7));
        assert_eq!(lease.claim(7, ms(500)), Claim::AlreadyHeld);
        assert!(!lease.is_silent(ms(800)) && lease.is_silent(ms(801)));
        assert_eq!(lease.claim(8, ms(801)), Claim::Granted);
        assert_eq!((lease.session(), lease.epoch()), (8, 2));
        lease.end();
        assert_eq!(lease.session(), 0);
        assert!(!lease.is_silent(ms(9999)));
    }

    #[test]
    fn a_message_that_was_stamped_earlier_never_ages_the_lease() {
        let mut lease = Lease::new(Duration::from_millis(300));
        lease.claim(7, ms(1000));
        assert!(lease.hear(7, ms(10)));
        assert!(!lease.is_silent(ms(1300)));
    }
}

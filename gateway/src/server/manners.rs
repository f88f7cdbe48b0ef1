//! What an HTTP/2 connection may do that is work for us and no request: talk without asking (pings, settings, window updates,
//! heads that do not end), also beside a request that is open, and ask without waiting for an answer (streams that are opened
//! and reset).
//!
//! All are budgets that refill: a client that keeps alive, or whose user changes his mind, never meets them. Who does is let go
//! with its whole connection. Pure: the time is handed in.

use std::time::Duration;

use routing::units::Time;

/// Bytes that may come while no request is open, at once. A body comes with its head: as much of it as the client may send ahead
/// (its window of 512 KiB) is read before anybody knows that it asks.
const TALK: u64 = 640 * 1024;
/// And so many more a second. (A ping has 17 bytes.)
const TALK_A_SECOND: u64 = 8 * 1024;
/// Bytes that may come while a request is open, at once, beyond those of bodies: what the client may send ahead (its window,
/// which is not read yet) and what frames and TLS add to it.
const BUSY_TALK: u64 = 2 * 1024 * 1024;
/// And so many more a second.
const BUSY_TALK_A_SECOND: u64 = 16 * 1024;
/// A request beside others makes up for so much of it.
const ASKED: u64 = 128 * 1024;
/// What a piece of a body takes beside its bytes: the frame's head and TLS's; of an answer's, that its reader makes room for
/// more, twice.
const PIECE: u64 = 64;
/// Streams that may be left before their answer has ended, at once. Each one that is answered makes up for another.
const LEFT: u64 = 200;
/// And so many more a second.
const LEFT_A_SECOND: u64 = 10;

/// Why a connection is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It talks without asking.
    Talk,
    /// It asks without waiting for answers.
    Resets,
}

impl Why {
    /// For metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Talk => "talk",
            Self::Resets => "resets",
        }
    }
}

/// One connection's budgets.
#[derive(Debug)]
pub struct Manners {
    talk: Budget,
    busy: Budget,
    left: Budget,
}

#[derive(Debug)]
struct Budget {
    used: u64,
    most: u64,
    a_second: u64,
    at: Time,
}

impl Budget {
    fn new(most: u64, a_second: u64, now: Time) -> Self {
        Self {
            used: 0,
            most,
            a_second,
            at: now,
        }
    }

    fn back(&mut self, amount: u64) {
        self.used = self.used.saturating_sub(amount);
    }

    /// Takes; `false`: that was more than there is.
    fn take(&mut self, amount: u64, now: Time) -> bool {
        let since = now.since(self.at);
        let refilled = u64::try_from(since.as_micros())
            .unwrap_or(u64::MAX)
            .saturating_mul(self.a_second)
            / 1_000_000;
        if refilled > 0 {
            self.back(refilled);
            // What is less than one stays for the next time.
            let spent = refilled.saturating_mul(1_000_000) / self.a_second.max(1);
            self.at = (self.at + Duration::from_micros(spent)).min(now);
        }
        self.used = self.used.saturating_add(amount);
        self.used <= self.most
    }
}

impl Manners {
    /// A connection that begins now.
    pub fn new(now: Time) -> Self {
        Self {
            talk: Budget::new(TALK, TALK_A_SECOND, now),
            busy: Budget::new(BUSY_TALK, BUSY_TALK_A_SECOND, now),
            left: Budget::new(LEFT, LEFT_A_SECOND, now),
        }
    }

    /// So many bytes came while no request was open.
    ///
    /// # Errors
    /// That was too much.
    pub fn talked(&mut self, bytes: u64, now: Time) -> Result<(), Why> {
        self.talk.take(bytes, now).then_some(()).ok_or(Why::Talk)
    }

    /// So many bytes came while a request was open.
    ///
    /// # Errors
    /// That was too much, beyond what bodies came to.
    pub fn talked_beside(&mut self, bytes: u64, now: Time) -> Result<(), Why> {
        self.busy.take(bytes, now).then_some(()).ok_or(Why::Talk)
    }

    /// A piece of a body of so many bytes was passed on, of a request or of an answer. An empty one is worth nothing.
    pub fn passed(&mut self, bytes: u64) {
        if bytes > 0 {
            self.busy.back(bytes.saturating_add(PIECE));
        }
    }

    /// A request began: what was said before was said to ask it. Beside others it makes up for some of it.
    pub fn asked(&mut self) {
        self.talk.used = 0;
        self.busy.back(ASKED);
    }

    /// A stream ended: with its answer, or left before.
    ///
    /// # Errors
    /// Too many were left.
    pub fn ended(&mut self, answered: bool, now: Time) -> Result<(), Why> {
        if answered {
            self.left.back(1);
            return Ok(());
        }
        self.left.take(1, now).then_some(()).ok_or(Why::Resets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_millis(1_000 + ms)
    }

    #[test]
    fn a_client_that_keeps_alive_or_changes_its_mind_is_kept() {
        let mut m = Manners::new(at(0));
        // A ping and an acknowledgement every second, for a day.
        for s in 0..86_400 {
            assert_eq!(m.talked(34, at(s * 1_000)), Ok(()));
        }
        // Every third stream is left, a thousand a second.
        let mut m = Manners::new(at(0));
        for n in 0..100_000 {
            m.asked();
            assert_eq!(m.ended(n % 3 != 0, at(n)), Ok(()));
        }
    }

    #[test]
    fn floods_are_not() {
        let mut m = Manners::new(at(0));
        let pings = (0..1_000_000)
            .position(|n| m.talked(17, at(n / 3)).is_err())
            .unwrap();
        assert!((38_000..60_000).contains(&pings), "{pings}");
        let mut m = Manners::new(at(0));
        let resets = (0..1_000_000)
            .position(|n| m.ended(false, at(n / 10)).is_err())
            .unwrap();
        assert!((200..205).contains(&resets), "{resets}");
    }

    #[test]
    fn beside_a_request_bodies_are_no_talk_and_the_rest_is() {
        // A body of 1 GB at once, all of whose window comes before it is read.
        let mut m = Manners::new(at(0));
        for _ in 0..1_000 {
            for _ in 0..64 {
                assert_eq!(m.talked_beside(16_384 + 40, at(0)), Ok(()));
            }
            (0..64).for_each(|_| m.passed(16_384));
        }
        // A stream of small events, whose reader makes room after each, and keeps alive.
        for n in 0..1_000_000 {
            m.passed(10);
            assert_eq!(m.talked_beside(2 * 13 + 17, at(n / 1_000)), Ok(()));
        }
        // Pings alone, and empty pieces between them.
        let pings = (0..1_000_000).position(|_| {
            m.passed(0);
            m.talked_beside(17, at(1_000)).is_err()
        });
        assert!((100_000..130_000).contains(&pings.unwrap()), "{pings:?}");
    }

    #[test]
    fn small_steps_of_time_refill_as_large_ones_do() {
        let mut m = Manners::new(at(0));
        for _ in 0..LEFT {
            m.ended(false, at(0)).unwrap();
        }
        // One every 100 ms, looked at every 10.
        let mut fine = 0;
        for n in 1..=100 {
            fine += u32::from(m.ended(false, at(n * 10)).is_ok());
            if m.left.used > LEFT {
                m.left.back(1);
            }
        }
        assert_eq!(fine, 10);
    }
}

//! Through which orders reach the control thread.
//!
//! The sequencer of an episode and a person at the arm both give orders. What the person says goes at once, and from then on nothing
//! that the sequencer still had in mind reaches the arm, until the next episode is asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rtrb::Producer;

use crate::machine::Order;

/// The control thread takes one order in each tick; a queue that stays full for longer has nobody at its other end.
const PATIENCE: Duration = Duration::from_millis(200);

/// Both sides' way to the control thread's queue.
#[derive(Debug, Clone)]
pub struct Gate {
    side: Arc<Mutex<Side>>,
}

#[derive(Debug)]
struct Side {
    orders: Producer<Order>,
    /// A person has the word, and said this.
    taken: Option<&'static str>,
    /// How often a person took it.
    times: u64,
}

impl Side {
    fn push(&mut self, order: Order) {
        let until = Instant::now() + PATIENCE;
        // A loop that has ended takes none, which whoever waits for the order's effect names.
        while self.orders.push(order).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A person has taken over; the text says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken(pub &'static str);

impl Gate {
    pub fn new(orders: Producer<Order>) -> Self {
        Self { side: Arc::new(Mutex::new(Side { orders, taken: None, times: 0 })) }
    }

    /// An order of the sequencer.
    ///
    /// # Errors
    /// [`Taken`]: it was not given.
    pub fn give(&self, order: Order) -> Result<(), Taken> {
        // Held while the order is pushed: a person's order that comes now comes behind it.
        let mut side = self.lock();
        match side.taken {
            Some(how) => Err(Taken(how)),
            None => {
                side.push(order);
                Ok(())
            }
        }
    }

    /// A person's orders, and the sequencer is shut out. `how`: what an interrupted episode is told.
    pub fn take(&self, how: &'static str, orders: &[Order]) {
        let mut side = self.lock();
        side.taken = Some(how);
        side.times += 1;
        for order in orders {
            side.push(*order);
        }
    }

    /// Whether a person has taken over.
    ///
    /// # Errors
    /// [`Taken`]
    pub fn check(&self) -> Result<(), Taken> {
        self.lock().taken.map_or(Ok(()), |how| Err(Taken(how)))
    }

    /// How often a person took over so far, for [`Gate::release`].
    pub fn times(&self) -> u64 {
        self.lock().times
    }

    /// The sequencer may give orders again, because it was asked to when a person had taken over `times` times.
    ///
    /// # Errors
    /// [`Taken`]: somebody has said stop since then.
    pub fn release(&self, times: u64) -> Result<(), Taken> {
        let mut side = self.lock();
        match side.taken {
            Some(how) if side.times != times => Err(Taken(how)),
            _ => {
                side.taken = None;
                Ok(())
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Side> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rtrb::RingBuffer;

    use super::*;

    #[test]
    fn behind_a_persons_order_nothing_of_the_sequencer_arrives() {
        let (orders, mut taken) = RingBuffer::new(8);
        let gate = Gate::new(orders);
        gate.give(Order::Run { actions: 1 }).unwrap();
        gate.clone().take("held", &[Order::Hold, Order::Disarm]);
        assert_eq!(gate.give(Order::Run { actions: 2 }), Err(Taken("held")));
        assert_eq!(gate.check(), Err(Taken("held")));
        let given: Vec<String> = std::iter::from_fn(|| taken.pop().ok()).map(|order| format!("{order:?}")).collect();
        assert_eq!(given, ["Run { actions: 1 }", "Hold", "Disarm"]);
        gate.release(gate.times()).unwrap();
        assert_eq!(gate.give(Order::Hold), Ok(()));
    }

    #[test]
    fn a_start_that_was_asked_for_before_the_stop_does_not_undo_it() {
        let (orders, _taken) = RingBuffer::new(8);
        let gate = Gate::new(orders);
        let asked = gate.times();
        gate.take("stopped", &[Order::Disarm]);
        assert_eq!(gate.release(asked), Err(Taken("stopped")));
        assert_eq!(gate.give(Order::Run { actions: 1 }), Err(Taken("stopped")));
        assert_eq!(gate.release(gate.times()), Ok(()));
    }
}

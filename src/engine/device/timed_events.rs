//! Timed events, used again and again: making one costs more than recording it.

use crate::driver::Driver;
use crate::driver::abi::*;

/// Those that nobody uses now.
#[derive(Default)]
pub struct TimedEvents(Vec<CUevent>);

impl TimedEvents {
    /// One that is recorded on `stream` now.
    pub fn record(&mut self, driver: &Driver, stream: CUstream) -> Option<CUevent> {
        let event = match self.0.pop() {
            Some(event) => event,
            None => driver.event_create(false).ok()?,
        };
        if driver.event_record(event, stream).is_err() {
            self.0.push(event);
            return None;
        }
        Some(event)
    }

    pub fn give_back(&mut self, events: impl IntoIterator<Item = CUevent>) {
        self.0.extend(events);
    }

    /// Gives them to the driver.
    pub fn release(&mut self, driver: &Driver) {
        for event in self.0.drain(..) {
            let _ = driver.event_destroy(event);
        }
    }
}

//! The program's thread waits for the device: without a lock, so that whatever
//! has to happen first can, and for whichever of several things is over first.
//!
//! A long wait is said, by a thread that does nothing else: it may be one that
//! does not end, when what the program asked for must take the place of memory
//! that a stream has yet to use, which itself waits for something that the program
//! does later. On a card with endless memory that is no wait.
//!
//! Not here: what is waited for (`device::order`).

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::account::WaitReason;
use super::guards::RelaxedCapture;
use super::state::{Engine, engine, lock};
use super::users::{Mark, Point};
use crate::driver::abi::*;

/// Marks, one of which has to be over.
pub type Awaited = Vec<(Point, Arc<Mark>)>;

/// A wait that lasts so long is said: while a stream waits for the host, and
/// while none is known to; looked at so often.
const LONG_HELD_UP: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_secs(1);

/// The waits under way.
#[derive(Default)]
pub struct Waits {
    under_way: Mutex<Vec<Wait>>,
    watched: OnceLock<()>,
}

struct Wait {
    began: Instant,
    device: usize,
    what: &'static str,
    long: Duration,
    said: bool,
}

/// A wait, for as long as it lives.
pub struct Watched(&'static Waits, Instant);

impl Drop for Watched {
    fn drop(&mut self) {
        let mut waits = lock(&self.0.under_way);
        if let Some(at) = waits.iter().position(|wait| wait.began == self.1) {
            waits.swap_remove(at);
        }
    }
}

impl Waits {
    /// The thread may wait from here on: `what` it does, on `device`; said after `long`.
    pub fn watch(&'static self, device: usize, what: &'static str, long: Duration) -> Watched {
        let began = Instant::now();
        lock(&self.under_way).push(Wait { began, device, what, long, said: false });
        self.watched.get_or_init(|| {
            let look = || loop {
                std::thread::sleep(LOOK);
                self.say_long_ones();
            };
            if let Err(why) = super::threads::spawn("autooffload-waits", look) {
                log::debug!("nobody to say that a wait does not end: {why}");
            }
        });
        Watched(self, began)
    }

    fn say_long_ones(&self) {
        for wait in lock(&self.under_way).iter_mut() {
            if !wait.said && wait.began.elapsed() > wait.long {
                wait.said = true;
                log::error!(
                    "device {}: {} has waited for {} s for memory that queued work has yet to use: \
                     if that work waits for what the program does later, neither goes on. Raise \
                     AUTOOFFLOAD_VRAM until all that is queued at once fits",
                    wait.device,
                    wait.what,
                    wait.began.elapsed().as_secs(),
                );
            }
        }
    }
}

/// What the program's thread does.
fn doing(reason: WaitReason) -> &'static str {
    match reason {
        WaitReason::Allocation => "an allocation",
        WaitReason::PlanChange | WaitReason::Look => "an operation",
        WaitReason::Native => "a call that frees memory",
    }
}

impl Engine {
    /// A change of place is tried. While a stream is held up, a driver may answer a
    /// mapping only when that stream goes on (docs/design.md): that is said as well.
    #[inline]
    pub(super) fn watch_change(&self, device: usize, reason: WaitReason) -> Option<Watched> {
        if !self.users.any_held_up() {
            return None;
        }
        engine().map(|engine| engine.waits.watch(device, doing(reason), LONG_HELD_UP))
    }

    /// Waits until any of `awaited`, of `device`, is over; how long that took.
    /// Errors: the driver's; then all of it is.
    pub(super) fn wait_for_any(
        &self,
        device: usize,
        reason: WaitReason,
        awaited: &[(Point, Arc<Mark>)],
    ) -> (Duration, Result<()>) {
        let began = Instant::now();
        let _relaxed = RelaxedCapture::always(self.driver);
        let held_up = self.users.any_held_up();
        let long = if held_up { LONG_HELD_UP } else { LONG };
        let _watched = engine().map(|engine| engine.waits.watch(device, doing(reason), long));
        let of_one = awaited.iter().all(|(point, _)| point.user == awaited[0].0.user);
        let outcome = if of_one && !held_up {
            let first = awaited.iter().min_by_key(|(point, _)| point.stretch);
            let (point, mark) = first.expect("something to wait for");
            let outcome = self.driver.event_synchronize(mark.event());
            self.users.set_over(*point);
            outcome
        } else {
            self.ask_until_one_is_over(awaited)
        };
        if outcome.is_err() {
            awaited.iter().for_each(|&(point, _)| self.users.set_over(point));
        }
        (began.elapsed(), outcome)
    }

    fn ask_until_one_is_over(&self, awaited: &[(Point, Arc<Mark>)]) -> Result<()> {
        const FIRST: Duration = Duration::from_micros(20);
        const LONGEST: Duration = Duration::from_millis(1);
        let mut pause = FIRST;
        loop {
            for &(point, ref mark) in awaited {
                // Known when its context ended, and the event with that.
                if self.users.known_over(point) || self.driver.is_event_over(mark.event())? {
                    self.users.set_over(point);
                    return Ok(());
                }
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(LONGEST);
        }
    }
}

//! Saying, once each, what was asked for and is not done.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Writes one line to stderr the first time `what` is refused.
pub fn say_once(library: &str, what: &str) {
    static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.get_or_insert_default().insert(what.to_owned()) {
        eprintln!("standin: {library}: not supported: {what}");
    }
}

//! autooffload: placeholder, the map of the crate follows.

mod driver;

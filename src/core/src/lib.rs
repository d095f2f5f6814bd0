//! The pure core.

#![forbid(unsafe_code)]

pub mod config;
pub mod params;
pub mod units;

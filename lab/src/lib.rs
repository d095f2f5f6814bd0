//! The laboratory: what programs do, what no policy can beat, and a device in
//! virtual time on which the core is measured. Nothing of it ships.
//!
//! ```text
//!   workload     what programs do, and what no policy can beat
//!   sim          a device in virtual time, our policy and others'
//! ```
//!
//! Not here: decisions (`autooffload_core`), the bench and the forecast (`cli`).

#![forbid(unsafe_code)]

pub mod sim;
pub mod workload;

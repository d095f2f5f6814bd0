//! Traces of published architectures.

//! A discrete-event simulator of one device.

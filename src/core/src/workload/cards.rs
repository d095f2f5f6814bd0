//! What cards and links can do.

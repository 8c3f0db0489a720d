//! Sharing, carrying over, and refusals.

//! Going away without losing a request.

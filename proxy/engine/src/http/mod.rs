//! Serving HTTP on an accepted connection: codecs, normalisation, forwarding headers, upgrades.

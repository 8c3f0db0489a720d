//! HTTP filters between the connection manager and the router.

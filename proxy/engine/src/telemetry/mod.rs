//! What the proxy tells about itself: statistics, metrics, access logs, traces.

//! What keeps clusters current: name resolution, outlier sweeps.

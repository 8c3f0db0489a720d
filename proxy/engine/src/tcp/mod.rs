//! TCP proxying: bytes passed on as they come.

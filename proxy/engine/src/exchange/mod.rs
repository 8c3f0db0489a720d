//! One request from head to last byte, in order: route, filters, attempts, response, bookkeeping.

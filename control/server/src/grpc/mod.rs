//! What members of the mesh call: certificates ([`certificate`]), registration ([`registration`]), and,
//! from `ads`, configuration. All on one TLS port; who may do what is decided by [`peer`].

pub mod peer;

pub mod certificate;

pub mod registration;

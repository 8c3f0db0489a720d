//! Who is who: the certificate authority, what it signs, and how a host proves it may ask.
//!
//! In reading order: [`spiffe`] (the name written into a certificate), [`csr`] (what is taken from a
//! request: one public key, nothing else), [`rotation`] (the pure state machine of signing CAs),
//! [`keys`] (files on disk), [`ca_files`] (certificates and keys
//! of the CAs on disk), [`ca`] (the authority itself), [`join_token`] and [`attest`] (first enrolment),
//! [`host`] (where an enrolment was made, and whether it still counts),
//! [`grant`] (what a service account may then say of itself), [`svid`] (certificates generated here for xDS clients that cannot make requests), and
//! [`server_tls`] (the TLS configuration of our own port, which follows all of the above).
//!
//! What the mesh trusts is the *signing* CAs in use, each being a trust anchor, and not the root:
//! otherwise a retired signing CA would stay trusted as long as the root does. The root signs the
//! signing CAs and authenticates this service to a host that has nothing yet but a join token. When the root is
//! exchanged, old and new are known side by side for a while, and what signs is certified by both.

pub mod spiffe;

pub mod csr;

pub mod rotation;

pub mod keys;

pub mod ca;

pub mod ca_files;

pub mod join_token;

pub mod attest;

pub mod host;

pub mod grant;

pub mod svid;

pub mod server_tls;

pub use ca::{Authority, AuthorityError, AuthoritySettings, KeyedSvid, ServerNames, Svid, TrustBundle};
pub use grant::{Claim, Grant};
pub use host::{HostMark, Hosts, Standing};
pub use join_token::JoinTokens;
pub use spiffe::Identity;

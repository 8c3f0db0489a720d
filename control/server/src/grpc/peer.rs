//! Who is calling.

use tonic::{Request, Status};

use crate::clock::UnixMs;
use crate::identity::Identity;
use crate::serve::Peer;

/// The other end of the connection this call came on.
///
/// *Errors*: `INTERNAL` when the call did not come through [`crate::serve`].
#[allow(clippy::result_large_err, reason = "the gRPC library's error type")]
pub fn of<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get::<Peer>().cloned().ok_or_else(|| Status::internal("connection without a peer"))
}

/// The identity the caller proved, which must still be valid: a connection may outlive the certificate
/// it began with.
///
/// *Errors*: `UNAUTHENTICATED` without a client certificate or with one that has expired; `PERMISSION_DENIED` with one
/// that was given to a host which was revoked since.
#[allow(clippy::result_large_err, reason = "the gRPC library's error type")]
pub fn member(peer: &Peer, now: UnixMs) -> Result<&Identity, Status> {
    match &peer.identity {
        None => Err(Status::unauthenticated("a client certificate of this mesh is needed")),
        Some(_) if peer.expires_at <= now => Err(Status::unauthenticated(
            "the client certificate of this connection has expired: reconnect with the renewed one",
        )),
        Some(_) if peer.host.as_ref().is_some_and(|host| !host.is_good()) => Err(revoked()),
        Some(identity) => Ok(identity),
    }
}

/// What a member is told whose host was revoked.
pub fn revoked() -> Status {
    Status::permission_denied("the host this certificate was given to was revoked: it must be onboarded anew")
}

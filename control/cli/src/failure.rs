//! What can go wrong, and the exit code a script sees.

use std::fmt;

/// A failure of one invocation.
#[derive(Debug)]
pub enum Failure {
    /// Anything else: files, answers that make no sense.
    Other(String),
    /// `--diff` found a difference: as `diff` says it.
    Differs(String),
    /// Arguments that do not fit together.
    Usage(String),
    /// The resources were refused; each line is one reason.
    Refused(Vec<String>),
    /// Somebody else changed it in between.
    Conflict(String),
    /// There is no such thing.
    NotFound(String),
    /// No token, or not a good one.
    Unauthorized,
    /// A good token that does not open this.
    Forbidden(String),
    /// The server cannot be reached.
    Unreachable(String),
    /// Applied, but not acknowledged.
    NotAcknowledged(String),
}

impl Failure {
    /// Documented in the help text and in docs/operations.md.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Other(_) | Self::Differs(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Conflict(_) => 4,
            Self::NotFound(_) => 5,
            Self::Unauthorized | Self::Forbidden(_) => 6,
            Self::Unreachable(_) => 7,
            Self::NotAcknowledged(_) => 8,
        }
    }

    /// For a file, with what the system said.
    pub fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Other(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(text)
            | Self::Differs(text)
            | Self::Usage(text)
            | Self::Conflict(text)
            | Self::NotFound(text)
            | Self::Forbidden(text)
            | Self::Unreachable(text)
            | Self::NotAcknowledged(text) => write!(f, "{text}"),
            Self::Refused(lines) => {
                write!(f, "refused, nothing was changed:")?;
                lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
            }
            Self::Unauthorized => {
                write!(
                    f,
                    "not allowed: give a valid token with `outrigger login`, --token or OUTRIGGER_TOKEN"
                )
            }
        }
    }
}

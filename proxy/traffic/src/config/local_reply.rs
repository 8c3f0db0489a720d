//! How responses look that are made here (`local_reply_config` of `HttpConnectionManager`).

use super::{AccessLogFormat, HeaderEdit, LogFilter};
use serde::{Deserialize, Serialize};

/// What is done to responses made here: the first mapper whose filter fits, then the format.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LocalReply {
    /// In order; the first that fits counts.
    pub mappers: Vec<ReplyMapper>,
    /// How bodies look where the mapper does not say; `None`: as they are.
    pub format: Option<ReplyFormat>,
}

/// What becomes of some of the responses (`ResponseMapper`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyMapper {
    /// Which; of statuses, those of the response.
    pub filter: LogFilter,
    /// New status, 200..=599.
    pub status: Option<u16>,
    /// New body, before it is formatted.
    pub body: Option<String>,
    /// Instead of [`LocalReply::format`].
    pub format: Option<ReplyFormat>,
    /// Edits of the headers.
    pub headers: Vec<HeaderEdit>,
}

/// How a body looks. `%LOCAL_REPLY_BODY%` is what it would be otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyFormat {
    /// A text, or a JSON object.
    pub format: AccessLogFormat,
    /// `content-type`; empty: `text/plain`, or `application/json`.
    pub content_type: String,
}

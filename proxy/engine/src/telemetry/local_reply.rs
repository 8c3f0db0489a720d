//! How responses look that are made here (`local_reply_config`): the first mapper whose filter fits changes status, body and
//! headers, and the body is written anew. Source: Envoy: local reply modification.

use super::access_log::{Filter, LineFormat, Sample};
use super::facts::RequestView;
use super::record::RequestRecord;
use crate::worker::Worker;
use outrigger_traffic::config::{AccessLogFormat, LocalReply, ReplyFormat, ReplyMapper};
use outrigger_traffic::route::Edits;

/// A compiled [`LocalReply`].
#[derive(Debug)]
pub struct LocalReplies {
    mappers: Box<[Mapper]>,
    format: Option<Format>,
}

#[derive(Debug)]
struct Mapper {
    filter: Filter,
    status: Option<u16>,
    body: Option<Box<[u8]>>,
    format: Option<Format>,
    edits: Edits,
}

#[derive(Debug)]
struct Format {
    line: LineFormat,
    content_type: Box<str>,
}

/// The mapper that fits a response.
#[derive(Clone, Copy, Debug)]
pub struct Mapped<'r> {
    /// New status.
    pub status: Option<u16>,
    /// New body, before it is formatted.
    pub body: Option<&'r [u8]>,
    /// Edits of the headers.
    pub edits: &'r Edits,
    index: usize,
}

impl LocalReplies {
    /// Makes it ready.
    ///
    /// *Errors*: paths below `local_reply_config` and what is wrong there.
    pub fn compile(from: &LocalReply) -> Result<Self, Vec<(String, String)>> {
        let mut errors = Vec::new();
        let mut mappers = Vec::with_capacity(from.mappers.len());
        for (i, mapper) in from.mappers.iter().enumerate() {
            mappers.extend(Mapper::compile(mapper, &format!("mappers[{i}]"), &mut errors));
        }
        let format = compiled(from.format.as_ref(), "body_format", &mut errors);
        if errors.is_empty() { Ok(Self { mappers: mappers.into(), format }) } else { Err(errors) }
    }

    /// The mapper for a response whose status is in `record`.
    pub fn find(&self, worker: &Worker, record: &RequestRecord<'_>) -> Option<Mapped<'_>> {
        if self.mappers.is_empty() {
            return None;
        }
        let sample = Sample::of_request(worker, record, record.timeline.total());
        let index = self.mappers.iter().position(|mapper| mapper.filter.wants(&sample))?;
        let mapper = self.mappers.get(index)?;
        Some(Mapped { status: mapper.status, body: mapper.body.as_deref(), edits: &mapper.edits, index })
    }

    /// The body and its type, where it is written anew. `record` tells the body that it would have otherwise.
    pub fn write(
        &self,
        worker: &Worker,
        record: &RequestRecord<'_>,
        mapped: Option<usize>,
    ) -> Option<(Vec<u8>, &str)> {
        let own = mapped.and_then(|index| self.mappers.get(index)).and_then(|mapper| mapper.format.as_ref());
        let format = own.or(self.format.as_ref())?;
        let total = record.timeline.total();
        let view = RequestView { record, total, telemetry: &worker.shared.telemetry, is_logged: false };
        let mut body = Vec::with_capacity(256);
        format.line.write(&view, &mut body);
        Some((body, &format.content_type))
    }
}

impl Mapped<'_> {
    /// Names the mapper for [`LocalReplies::write`].
    pub const fn index(&self) -> usize {
        self.index
    }
}

impl Mapper {
    fn compile(from: &ReplyMapper, path: &str, errors: &mut Vec<(String, String)>) -> Option<Self> {
        let filter = Filter::compile(&from.filter)
            .map_err(|reason| errors.push((format!("{path}.filter"), reason)))
            .ok();
        let mut note = |field: String, reason: String| errors.push((format!("{path}.{field}"), reason));
        let edits = Edits::of_level("headers_to_add", &from.headers, &mut note);
        let format = compiled(from.format.as_ref(), &format!("{path}.body_format_override"), errors);
        Some(Self {
            filter: filter?,
            status: from.status,
            body: from.body.as_ref().map(|body| body.as_bytes().into()),
            format,
            edits,
        })
    }
}

fn compiled(from: Option<&ReplyFormat>, path: &str, errors: &mut Vec<(String, String)>) -> Option<Format> {
    let from = from?;
    match LineFormat::compile(&from.format) {
        Ok(line) => {
            let usual = match from.format {
                AccessLogFormat::Json(_) | AccessLogFormat::JsonOmitting(_) => "application/json",
                AccessLogFormat::Default | AccessLogFormat::Text(_) | AccessLogFormat::TextOmitting(_) => {
                    "text/plain"
                }
            };
            let content_type = if from.content_type.is_empty() { usual } else { &from.content_type };
            Some(Format { line, content_type: content_type.into() })
        }
        Err(reason) => {
            errors.push((path.to_owned(), reason));
            None
        }
    }
}

//! gRPC-Web becomes gRPC (`envoy.filters.http.grpc_web`): browsers cannot read trailers, so they get them as a frame at the
//! end of the body; the text form is base64. Source: gRPC-Web protocol (grpc/grpc, PROTOCOL-WEB.md); Envoy: gRPC-Web filter.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_wire::{FieldBlock, Known, Trailers};

use super::{After, Verdict, compression};
use crate::exchange::{Exchange, Front, Notes};
use crate::http::body::BodyError;
use crate::http::staged::BodyStage;
use crate::http::view;

/// The bit of a frame's first byte that says that it holds trailers.
const TRAILERS: u8 = 0x80;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spoken {
    /// The request is base64.
    text_in: bool,
    /// The response is to be.
    text_out: bool,
}

fn is_web(kind: &[u8]) -> bool {
    [&b"application/grpc-web"[..], b"application/grpc-web+proto"].contains(&kind)
}

fn is_web_text(kind: &[u8]) -> bool {
    [&b"application/grpc-web-text"[..], b"application/grpc-web-text+proto"].contains(&kind)
}

/// Makes a request of gRPC one of gRPC-Web, and sees to the response.
pub(super) fn on_request(x: &mut Exchange, notes: &mut Notes) -> Verdict {
    let fields = &x.front.request.fields;
    let Some(kind) = fields.get_known(Known::ContentType) else { return Verdict::Next };
    let text_in = is_web_text(kind);
    if !text_in && !is_web(kind) {
        return Verdict::Next;
    }
    let text_out = fields.get_known(Known::Accept).is_some_and(is_web_text);
    let has_body = compression::has_body(x);
    let fields = &mut x.front.request.fields;
    fields.remove_known(Known::ContentLength);
    fields.put(Known::ContentType, b"application/grpc");
    fields.put(Known::Te, b"trailers");
    fields.put(Known::GrpcAcceptEncoding, b"identity");
    notes.is_grpc = true;
    notes.is_grpc_web = true;
    notes.after.push(After::GrpcWeb(Spoken { text_in, text_out }));
    notes.shapes_response = true;
    if has_body && text_in {
        x.stage_request(Box::new(FromText::default()));
    } else if has_body {
        x.request_length_changes();
    }
    Verdict::Next
}

/// Makes a response of gRPC one of gRPC-Web.
pub(super) fn on_response(x: &mut Front, notes: &mut Notes, spoken: Spoken) {
    let fields = &mut x.response.fields;
    if !view::is_grpc(fields) {
        return;
    }
    let kind: &[u8] =
        if spoken.text_out { b"application/grpc-web-text+proto" } else { b"application/grpc-web+proto" };
    fields.put(Known::ContentType, kind);
    if notes.has_body {
        fields.remove_known(Known::ContentLength);
        notes.stages.push(Box::new(ToWeb { text: spoken.text_out, rest: Vec::new() }));
    }
}

/// Reads base64 of a body that may be several texts one after the other, each with its own padding.
#[derive(Debug, Default)]
struct FromText {
    /// Fewer than four characters.
    rest: Vec<u8>,
}

impl BodyStage for FromText {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        for byte in piece {
            self.rest.push(*byte);
            if self.rest.len() == 4 {
                STANDARD.decode_vec(&self.rest, out).map_err(|_| BodyError::Protocol)?;
                self.rest.clear();
            }
        }
        Ok(())
    }

    fn end(&mut self, _out: &mut Vec<u8>, _trailers: &mut Option<Trailers>) -> Result<(), BodyError> {
        if self.rest.is_empty() { Ok(()) } else { Err(BodyError::Protocol) }
    }
}

/// Puts the trailers into the body.
#[derive(Debug)]
struct ToWeb {
    text: bool,
    /// Bytes that do not fill three yet, of the text form.
    rest: Vec<u8>,
}

impl ToWeb {
    fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if !self.text {
            return out.extend_from_slice(bytes);
        }
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.len() / 3 * 3;
        let rest = self.rest.split_off(whole);
        let coded = STANDARD.encode(std::mem::replace(&mut self.rest, rest));
        out.extend_from_slice(coded.as_bytes());
    }
}

impl BodyStage for ToWeb {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        self.write(piece, out);
        Ok(())
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        if !self.rest.is_empty() {
            out.extend_from_slice(STANDARD.encode(std::mem::take(&mut self.rest)).as_bytes());
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>, trailers: &mut Option<Trailers>) -> Result<(), BodyError> {
        if let Some(section) = trailers.take() {
            let frame = frame(&section);
            self.write(&frame, out);
        }
        self.flush(out)
    }
}

/// Trailers as a frame.
fn frame(section: &FieldBlock) -> Vec<u8> {
    let mut text = Vec::with_capacity(64);
    for (name, value) in section.iter() {
        text.extend_from_slice(name);
        text.push(b':');
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut frame = vec![TRAILERS];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&text);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::staged::{Stages, whole};

    #[test]
    fn text_of_several_paddings_is_read_in_any_pieces() {
        for size in 1..9 {
            let mut stage = FromText::default();
            let mut out = Vec::new();
            for piece in b"AAAAAAE=YWI=YQ==".chunks(size) {
                stage.push(piece, &mut out).unwrap();
            }
            stage.end(&mut out, &mut None).unwrap();
            assert_eq!(out, b"\0\0\0\0\x01aba");
        }
        for broken in [&b"AAA"[..], b"A!AA"] {
            let stages: Stages = vec![Box::new(FromText::default())];
            assert!(whole(stages, broken).is_err());
        }
    }

    #[test]
    fn trailers_become_a_frame_of_either_form() {
        let mut section = Trailers::default();
        section.append(b"grpc-status", b"0");
        let mut trailers = Some(section);
        let mut out = Vec::new();
        let mut stage = ToWeb { text: false, rest: Vec::new() };
        stage.push(b"ab", &mut out).unwrap();
        stage.end(&mut out, &mut trailers.clone()).unwrap();
        assert_eq!(out, b"ab\x80\0\0\0\x0fgrpc-status:0\r\n");
        let mut text = Vec::new();
        let mut stage = ToWeb { text: true, rest: Vec::new() };
        stage.push(b"a", &mut text).unwrap();
        stage.push(b"b", &mut text).unwrap();
        stage.end(&mut text, &mut trailers).unwrap();
        assert_eq!(STANDARD.decode(text).unwrap(), out);
        assert!(trailers.is_none());
    }
}

//! `Compressor`, `Decompressor` and `Buffer`.

use super::super::At;
use outrigger_api::envoy::config::core::v3::{RuntimeFeatureFlag, TypedExtensionConfig};
use outrigger_api::envoy::extensions::compression::{brotli, gzip};
use outrigger_api::envoy::extensions::filters::http::buffer::v3::Buffer as ProtoBuffer;
use outrigger_api::envoy::extensions::filters::http::{
    compressor::v3 as proto, decompressor::v3 as decoding,
};
use outrigger_traffic::config::{
    BufferLimit, Coding, Compressible, Compressor, CompressorRoute, Decoding, Decompressible, Decompressor,
};

/// Envoy's limit of what a byte may become.
const INFLATE_RATIO: u32 = 100;

pub(super) fn compressor(message: &proto::Compressor, at: &At<'_>) -> Option<Compressor> {
    let at_library = at.field("compressor_library");
    let library = at_library.need(message.compressor_library.as_ref())?;
    let request = message.request_direction_config.as_ref().and_then(|r| r.common_config.as_ref());
    let response = message.response_direction_config.as_ref();
    let (mut rules, enabled) = match response.map(|r| r.common_config.as_ref()) {
        Some(Some(common)) => (compressible(common), is_on(common.enabled.as_ref(), true)),
        Some(None) => (Compressible::default(), true),
        // The fields of older versions.
        None => (
            Compressible {
                min_content_length: message.content_length.unwrap_or(30),
                content_types: message.content_type.clone(),
            },
            is_on(message.runtime_enabled.as_ref(), true),
        ),
    };
    rules.content_types.retain(|one| !one.is_empty());
    let old = response.is_none();
    Some(Compressor {
        coding: coding(library, &at_library)?,
        response: enabled.then_some(rules),
        request: request.filter(|common| is_on(common.enabled.as_ref(), false)).map(compressible),
        disable_on_etag: response.map_or(message.disable_on_etag_header, |r| r.disable_on_etag_header),
        remove_accept_encoding: response
            .map_or(message.remove_accept_encoding_header, |r| r.remove_accept_encoding_header),
        uncompressible_statuses: response
            .map(|r| statuses(&r.uncompressible_response_codes, &at.field("response_direction_config")))
            .filter(|_| !old)
            .unwrap_or_default(),
        choose_first: message.choose_first,
    })
}

fn statuses(codes: &[u32], at: &At<'_>) -> Vec<u16> {
    let one = |(i, code): (usize, &u32)| match u16::try_from(*code) {
        Ok(code @ 200..=599) => Some(code),
        _ => {
            at.item("uncompressible_response_codes", i).refuse(format!("{code} is not between 200 and 599"));
            None
        }
    };
    codes.iter().enumerate().filter_map(one).collect()
}

fn compressible(common: &proto::compressor::CommonDirectionConfig) -> Compressible {
    Compressible {
        min_content_length: common.min_content_length.unwrap_or(30),
        content_types: common.content_type.clone(),
    }
}

fn is_on(flag: Option<&RuntimeFeatureFlag>, otherwise: bool) -> bool {
    flag.map_or(otherwise, |flag| flag.default_value.unwrap_or(false))
}

fn coding(library: &TypedExtensionConfig, at: &At<'_>) -> Option<Coding> {
    at.field("name").need_text(&library.name);
    let at = at.field("typed_config");
    let any = at.need(library.typed_config.as_ref())?;
    if let Some(message) = at.unpack::<gzip::compressor::v3::Gzip>(any) {
        let message = message.message()?;
        let level = match message.compression_level {
            0 => 6,
            level => u32::try_from(level).ok().filter(|level| *level <= 9).unwrap_or_else(|| {
                at.field("compression_level").refuse("is not known");
                6
            }),
        };
        let window_bits = bits(message.window_bits, 12, 9, 15, &at);
        return Some(Coding::Gzip { level, window_bits });
    }
    if let Some(message) = at.unpack::<brotli::compressor::v3::Brotli>(any) {
        let message = message.message()?;
        let quality = message.quality.unwrap_or(3);
        if quality > 11 {
            at.field("quality").refuse("must be at most 11");
        }
        return Some(Coding::Brotli { quality, window_bits: bits(message.window_bits, 18, 10, 24, &at) });
    }
    at.refuse_type(any);
    None
}

fn bits(value: Option<u32>, otherwise: u8, least: u8, most: u8, at: &At<'_>) -> u8 {
    let Some(value) = value else { return otherwise };
    match u8::try_from(value) {
        Ok(bits) if (least..=most).contains(&bits) => bits,
        _ => {
            at.field("window_bits").refuse(format!("must be between {least} and {most}"));
            otherwise
        }
    }
}

pub(super) fn compressor_route(message: &proto::CompressorPerRoute, at: &At<'_>) -> Option<CompressorRoute> {
    use proto::compressor_per_route::Override as O;
    match at.need(message.r#override.as_ref())? {
        O::Disabled(true) => Some(CompressorRoute::Off),
        O::Disabled(false) => {
            at.field("disabled").refuse("must be true");
            None
        }
        O::Overrides(overrides) => Some(CompressorRoute::On {
            remove_accept_encoding: overrides
                .response_direction_config
                .as_ref()
                .and_then(|response| response.remove_accept_encoding_header),
        }),
    }
}

pub(super) fn decompressor(message: &decoding::Decompressor, at: &At<'_>) -> Option<Decompressor> {
    let at_library = at.field("decompressor_library");
    let library = at_library.need(message.decompressor_library.as_ref())?;
    let rules = |common: Option<&decoding::decompressor::CommonDirectionConfig>| match common {
        None => Some(Decompressible::default()),
        Some(common) => is_on(common.enabled.as_ref(), true)
            .then_some(Decompressible { ignore_no_transform: common.ignore_no_transform_header }),
    };
    let request = message.request_direction_config.as_ref();
    let response = message.response_direction_config.as_ref();
    Some(Decompressor {
        coding: undone(library, &at_library)?,
        request: rules(request.and_then(|r| r.common_config.as_ref())),
        response: rules(response.and_then(|r| r.common_config.as_ref())),
        advertise: request.and_then(|r| r.advertise_accept_encoding).unwrap_or(true),
    })
}

fn undone(library: &TypedExtensionConfig, at: &At<'_>) -> Option<Decoding> {
    at.field("name").need_text(&library.name);
    let at = at.field("typed_config");
    let any = at.need(library.typed_config.as_ref())?;
    if let Some(message) = at.unpack::<gzip::decompressor::v3::Gzip>(any) {
        let message = message.message()?;
        let max_inflate_ratio = message.max_inflate_ratio.unwrap_or(INFLATE_RATIO);
        if !(1..=1032).contains(&max_inflate_ratio) {
            at.field("max_inflate_ratio").refuse("must be between 1 and 1032");
        }
        return Some(Decoding::Gzip {
            window_bits: bits(message.window_bits, 15, 9, 15, &at),
            max_inflate_ratio,
        });
    }
    if let Some(message) = at.unpack::<brotli::decompressor::v3::Brotli>(any) {
        return message.message().map(|_| Decoding::Brotli);
    }
    at.refuse_type(any);
    None
}

pub(super) fn buffer(message: &ProtoBuffer, at: &At<'_>) -> BufferLimit {
    let at = at.field("max_request_bytes");
    let max_request_bytes = at.need(message.max_request_bytes).unwrap_or(0);
    if message.max_request_bytes == Some(0) {
        at.refuse("must be greater than 0");
    }
    BufferLimit { max_request_bytes }
}

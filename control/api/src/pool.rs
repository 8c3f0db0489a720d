//! Descriptors of everything in `proto/`, for reflection.

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use std::sync::{Mutex, PoisonError};

/// The encoded `FileDescriptorSet` of all our files and the well-known types they use.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// What a type URL begins with on this wire.
pub const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

/// The same without comments and options: what reading needs.
const REFLECTION: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reflection.bin"));

/// The pool while it is kept.
static POOL: Mutex<Option<DescriptorPool>> = Mutex::new(None);

/// The descriptors. They are parsed at the first call and kept until [`forget_pool`]; what was taken from them lives on.
///
/// *Panics*: never; the set is made by the same build, and a test parses it.
///
/// *Cost*: the first call some milliseconds and 2 MiB.
pub fn pool() -> DescriptorPool {
    let mut kept = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    kept.get_or_insert_with(|| DescriptorPool::decode(REFLECTION).unwrap_or_default()).clone()
}

/// Gives the memory of the descriptors back: for a process that lives long and has read its file.
pub fn forget_pool() {
    drop(POOL.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Packs a message into `Any` under its type URL.
pub fn any<M: Message + Name>(message: &M) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("{TYPE_URL_PREFIX}{}", M::full_name()),
        value: message.encode_to_vec(),
    }
}

/// A message as JSON, with the field names of the `.proto` files, for people to read. `None` when the type is not known
/// or the bytes are not such a message.
pub fn to_json(type_url: &str, bytes: &[u8]) -> Option<serde_json::Value> {
    let name = type_url.rsplit('/').next().unwrap_or(type_url);
    let message = DynamicMessage::decode(pool().get_message_by_name(name)?, bytes).ok()?;
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::listener::v3::Listener;

    #[test]
    fn pool_knows_generated_messages_under_their_official_names() {
        assert_eq!(Listener::full_name(), "envoy.config.listener.v3.Listener");
        assert!(pool().get_message_by_name("envoy.config.listener.v3.Listener").is_some());
        assert!(pool().all_messages().count() > 150);
        let before = pool();
        forget_pool();
        assert_eq!(pool().all_messages().count(), before.all_messages().count());
    }

    #[test]
    fn json_has_names_of_the_proto_files() {
        let listener = Listener { name: "x".into(), ..Listener::default() };
        let any = any(&listener);
        let json = to_json(&any.type_url, &any.value).unwrap();
        assert_eq!(json, serde_json::json!({ "name": "x" }));
        assert_eq!(to_json("type.googleapis.com/none", &[]), None);
    }

    #[test]
    fn any_carries_the_type_url() {
        assert_eq!(
            any(&Listener::default()).type_url,
            "type.googleapis.com/envoy.config.listener.v3.Listener"
        );
    }
}

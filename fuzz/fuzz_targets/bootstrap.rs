//! Whatever stands in a bootstrap file is refused with reasons, or read the same when it is laid over nothing; and the
//! compiler bears what was accepted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger_xds::bootstrap::{Format, load_bootstrap_with};

mod no_files;

use no_files::NoFiles;

fuzz_target!(|data: &[u8]| {
    let Some((choice, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let format = if choice & 1 == 0 { Format::Yaml } else { Format::Json };
    let loaded = match load_bootstrap_with(Some((text, format)), None, &NoFiles) {
        Ok(loaded) => loaded,
        Err(reasons) => {
            assert!(!reasons.is_empty() && reasons.iter().all(|one| !one.reason.is_empty()), "{reasons:?}");
            return;
        }
    };
    if format == Format::Yaml {
        let over = load_bootstrap_with(None, Some(text), &NoFiles).expect("the same text");
        assert_eq!((over.config, over.node, over.dynamic), (loaded.config.clone(), loaded.node, loaded.dynamic));
    }
    if let Err(reasons) = outrigger_traffic::compile(&loaded.config, None) {
        assert!(!reasons.is_empty());
    }
});

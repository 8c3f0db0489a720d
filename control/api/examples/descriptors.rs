//! Writes the encoded descriptor set to standard output, for `tests/official/compare.py`.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(outrigger_api::DESCRIPTORS)
}

//! How the program is linked.
//!
//! Code is brought into memory by the page, and on Linux sixteen pages around each one that is touched. Of eleven megabytes of
//! code a start and the usual requests touch three, strewn over all of it, so that seven are resident. `hot_functions.txt`
//! lists the names of what they touch (patterns without the hashes that differ from build to build, made from a callgrind
//! profile by `.ci/hot-functions`); the linker puts these side by side. A name that is not there any more is no error, and a
//! function that is missing in the list only lies elsewhere.

use std::fmt::Write as _;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=hot_functions.txt");
    let is = |key: &str, value: &str| std::env::var(key).is_ok_and(|found| found == value);
    let linux_gnu = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if !linux_gnu || !is("PROFILE", "release") {
        return;
    }
    // Half a megabyte of relocations in a twentieth of the room: they are read at every start and stay in memory.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    let mut script = String::from("SECTIONS\n{\n  .text.used : {\n");
    for pattern in include_str!("hot_functions.txt").lines() {
        writeln!(script, "    *(.text.{pattern})").expect("a text grows");
    }
    script.push_str("  }\n}\nINSERT BEFORE .text;\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo")).join("layout.ld");
    std::fs::write(&out, script).expect("the folder for output can be written to");
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", out.display());
}

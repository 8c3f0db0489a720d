//! `cargo xtask images [--profile NAME] [--tar-only]`: static binaries, and images from nothing but them, without a registry.
//!
//! What an image holds is said once, in the stages of `docker/Dockerfile`; here a stage is taken out of it, with files of
//! a small folder in place of those of its build stage.

use anyhow::{Context, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Largest image of the proxy, in bytes.
const PROXY_BYTES_MAX: u64 = 20_000_000;

/// Stage of the Dockerfile, name of the image.
const IMAGES: &[(&str, &str)] = &[
    ("proxy", "outrigger-proxy"),
    ("control", "outrigger-control"),
    ("agent", "outrigger-agent"),
    ("cli", "outrigger"),
    ("demo", "outrigger-demo"),
];

/// Where systems keep the certificates of public authorities.
const CA_BUNDLES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What the images are copied from, in the Dockerfile.
const BUILD_FOLDER: &str = "/out/";

/// Builds binaries and images, prints their sizes; with `--tar-only` it stops at the folders for `docker build`, packed.
///
/// # Errors
/// Docker that does not run (before anything is built), a binary that is not static, a proxy's image that is too large.
pub fn run(args: &[String]) -> anyhow::Result<()> {
    let (profile, tar_only) = flags(args)?;
    if !tar_only {
        ensure_docker()?;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("root")?;
    let dockerfile = fs::read_to_string(root.join("docker/Dockerfile")).context("docker/Dockerfile")?;
    let target = target_folder()?;
    let binaries = build(&target, &profile)?;
    let bundle = ca_bundle()?;
    let mut proxy_bytes = 0;
    for (stage, image) in IMAGES {
        let recipe = stage_alone(&dockerfile, stage)?;
        let folder = target.join("images").join(image);
        fill(&folder, &recipe, &binaries, &bundle).with_context(|| format!("{}", folder.display()))?;
        let bytes = if tar_only { pack(&folder)? } else { docker_build(&folder, image)? };
        println!("{image:<18} {:>6.1} MB", bytes as f64 / 1e6);
        if *stage == "proxy" {
            proxy_bytes = bytes;
        }
    }
    // At the end, so that a build that is not optimised gives images to try all the same.
    ensure!(
        proxy_bytes < PROXY_BYTES_MAX,
        "the proxy's image has {proxy_bytes} bytes; {PROXY_BYTES_MAX} are too many"
    );
    Ok(())
}

fn flags(args: &[String]) -> anyhow::Result<(String, bool)> {
    let (mut profile, mut tar_only) = ("release".to_owned(), false);
    let mut rest = args.iter();
    while let Some(flag) = rest.next() {
        match flag.as_str() {
            "--profile" => profile = rest.next().context("--profile NAME")?.clone(),
            "--tar-only" => tar_only = true,
            other => bail!("unknown flag {other}; images [--profile NAME] [--tar-only]"),
        }
    }
    Ok((profile, tar_only))
}

fn ensure_docker() -> anyhow::Result<()> {
    let asked = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    match asked {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!(
            "docker does not run: {}\nstart it, or give --tar-only",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => bail!("docker cannot be started: {error}\ninstall it, or give --tar-only"),
    }
}

fn cargo() -> Command {
    Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
}

fn target_folder() -> anyhow::Result<PathBuf> {
    let answer = output(cargo().args(["metadata", "--locked", "--no-deps", "--format-version", "1"]))?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    answer.get("target_directory").and_then(|t| t.as_str()).map(PathBuf::from).context("target_directory")
}

/// The folder with the static binaries.
fn build(target: &Path, profile: &str) -> anyhow::Result<PathBuf> {
    println!("building ({profile}, static) …");
    let folder = target.join(if profile == "dev" { "debug" } else { profile });
    let out = target.join("images/bin");
    fs::create_dir_all(&out)?;
    for package in ["outrigger-proxy", "outrigger-control", "outrigger-agent", "outrigger", "xtask"] {
        // Only the last step is told to link statically: everything below is shared with an ordinary build, and macros
        // stay dynamic, as they must.
        let mut command = cargo();
        command.args(["rustc", "--locked", "--profile", profile, "--package", package, "--bin", package]);
        command.args(["--", "-C", "target-feature=+crt-static"]);
        ensure!(command.status()?.success(), "build of {package} failed");
        let binary = fs::read(folder.join(package)).with_context(|| package.to_owned())?;
        ensure!(!has_interpreter(&binary)?, "{package} is not static: it asks for a dynamic loader");
        fs::copy(folder.join(package), out.join(package)).with_context(|| package.to_owned())?;
    }
    Ok(out)
}

/// Whether an ELF program names a dynamic loader (a program header of type `PT_INTERP`). Source: System V ABI, chapter 5.
fn has_interpreter(elf: &[u8]) -> anyhow::Result<bool> {
    const PT_INTERP: u64 = 3;
    ensure!(elf.get(..6) == Some(b"\x7fELF\x02\x01"), "no 64-bit little-endian ELF program");
    let number = |at: usize, bytes: usize| -> anyhow::Result<u64> {
        let field = elf.get(at..at + bytes).context("program is cut off")?;
        Ok(field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let (table, size, count) =
        (usize::try_from(number(0x20, 8)?)?, usize::try_from(number(0x36, 2)?)?, number(0x38, 2)?);
    for index in 0..usize::try_from(count)? {
        if number(table + index * size, 4)? == PT_INTERP {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A stage of the Dockerfile as one of its own, whose files lie beside it.
fn stage_alone(dockerfile: &str, stage: &str) -> anyhow::Result<String> {
    let first = format!("FROM scratch AS {stage}");
    let lines = dockerfile.lines().skip_while(|line| *line != first);
    let body = lines.skip(1).take_while(|line| !line.starts_with("FROM "));
    let mut text = "FROM scratch\n".to_owned();
    for line in body.filter(|line| !line.trim().is_empty()) {
        text.push_str(&line.replace("--from=build ", "").replace(BUILD_FOLDER, ""));
        text.push('\n');
    }
    ensure!(text.contains("COPY "), "docker/Dockerfile has no stage {stage}");
    Ok(text)
}

/// Sources of the `COPY` lines of a recipe.
fn sources(recipe: &str) -> impl Iterator<Item = &str> {
    recipe
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter_map(|copy| copy.split_whitespace().find(|word| !word.starts_with("--")))
}

fn fill(folder: &Path, recipe: &str, binaries: &Path, bundle: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    fs::write(folder.join("Dockerfile"), recipe)?;
    for name in sources(recipe) {
        let to = folder.join(name);
        match name {
            "state" => fs::create_dir_all(&to)?,
            "ca-certificates.crt" => drop(fs::copy(bundle, &to)?),
            binary => drop(fs::copy(binaries.join(binary), &to).with_context(|| binary.to_owned())?),
        }
    }
    Ok(())
}

fn ca_bundle() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named
        .into_iter()
        .chain(CA_BUNDLES.iter().map(PathBuf::from))
        .find(|path| path.is_file())
        .context("no CA bundle on this system; name one in SSL_CERT_FILE")
}

/// The image's size.
fn docker_build(folder: &Path, image: &str) -> anyhow::Result<u64> {
    let versioned = format!("{image}:{}", env!("CARGO_PKG_VERSION"));
    let latest = format!("{image}:latest");
    let mut command = Command::new("docker");
    command.args(["build", "--quiet", "--tag", &versioned, "--tag", &latest]).arg(folder);
    output(&mut command)?;
    let size =
        output(Command::new("docker").args(["image", "inspect", "--format", "{{.Size}}", &versioned]))?;
    size.trim().parse().context("size of the image")
}

/// `FOLDER.tar`, for `docker build - < FOLDER.tar` elsewhere; its size.
fn pack(folder: &Path) -> anyhow::Result<u64> {
    let tar = folder.with_extension("tar");
    output(
        Command::new("tar").arg("--create").arg("--file").arg(&tar).arg("--directory").arg(folder).arg("."),
    )?;
    println!("{}", tar.display());
    Ok(fs::metadata(tar)?.len())
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, error.trim());
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dockerfile() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/Dockerfile");
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn stage_of_the_dockerfile_stands_alone() {
        let text = "FROM rust AS build\nRUN x\n\nFROM scratch AS one\nCOPY --from=build /out/one /one\n\nFROM scratch AS two\n\
                    COPY --from=build --chown=1:1 /out/state /var/two\nUSER 1:1\n";
        assert_eq!(stage_alone(text, "one").unwrap(), "FROM scratch\nCOPY one /one\n");
        let two = stage_alone(text, "two").unwrap();
        assert_eq!(two, "FROM scratch\nCOPY --chown=1:1 state /var/two\nUSER 1:1\n");
        assert_eq!(sources(&two).collect::<Vec<_>>(), ["state"]);
        assert!(stage_alone(text, "three").is_err());
        assert!(stage_alone(text, "build").is_err());
    }

    #[test]
    fn every_image_but_the_agents_is_a_stage_that_is_not_root_and_needs_nothing_else() {
        let text = dockerfile();
        for (stage, _) in IMAGES {
            let recipe = stage_alone(&text, stage).unwrap();
            // It enters network namespaces.
            let user = if *stage == "agent" { "USER 0:0" } else { "USER 65532:65532" };
            assert!(recipe.lines().any(|l| l == user), "{stage}");
            assert!(!recipe.contains("RUN") && !recipe.contains("--from"), "{recipe}");
            assert!(sources(&recipe).all(|s| !s.contains('/')), "{recipe}");
        }
    }

    /// An ELF header with program headers of these types.
    fn elf(types: &[u32]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (file[0x20], file[0x36], file[0x38]) = (64, 56, u8::try_from(types.len()).unwrap());
        for kind in types {
            file.extend_from_slice(&kind.to_le_bytes());
            file.extend_from_slice(&[0; 52]);
        }
        file
    }

    #[test]
    fn program_with_a_loader_is_told_from_a_static_one() {
        assert!(has_interpreter(&elf(&[6, 3, 1])).unwrap());
        assert!(!has_interpreter(&elf(&[6, 1, 2])).unwrap());
        assert!(has_interpreter(&elf(&[1, 1])[..70]).is_err());
        assert!(has_interpreter(b"#!/bin/sh\n").is_err());
    }

    #[test]
    fn flags_are_read_or_refused() {
        let read = |args: &[&str]| flags(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&[]).unwrap(), ("release".to_owned(), false));
        assert_eq!(read(&["--tar-only", "--profile", "quick"]).unwrap(), ("quick".to_owned(), true));
        assert!(read(&["--profile"]).is_err());
        assert!(read(&["--push"]).is_err());
    }
}

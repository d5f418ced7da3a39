//! `deploy/container`: the image is built by buildah around the static binary that `tests/run` makes, looked at, and run.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::tools::{machine, root, told};

const IMAGE: &str = "countersign:test";

/// A place for images of one test's own.
struct Images(TempDir);

impl Images {
    /// One image, built as the script builds it.
    fn built() -> Self {
        let binary = root(&format!("target/{}-unknown-linux-gnu/debug/countersign", std::env::consts::ARCH));
        assert!(binary.is_file(), "{} is missing: tests/run makes it; run it once", binary.display());
        let images = Self(TempDir::new().expect("a folder"));
        let mut build = machine("deploy/container/build");
        build.arg(IMAGE).env("BINARY", &binary).env("STORAGE", images.0.path());
        build.env("SOURCE", "https://example.com/source").env_remove("DOCUMENTATION");
        told(&mut build, "").content("the build");
        images
    }

    fn buildah(&self, arguments: &[&str]) -> Command {
        let mut buildah = machine("buildah");
        self.place(&mut buildah);
        buildah.args(arguments);
        buildah
    }

    fn place(&self, command: &mut Command) {
        let path = |name: &str| self.0.path().join(name);
        command.arg("--root").arg(path("root")).arg("--runroot").arg(path("run")).args(["--storage-driver", "vfs"]);
    }

    /// A container of the image.
    fn container(&self) -> String {
        let policy = self.0.path().join("policy.json");
        std::fs::write(&policy, json!({ "default": [{ "type": "insecureAcceptAnything" }] }).to_string())
            .expect("written");
        let policy = policy.to_str().expect("UTF-8");
        let said = told(&mut self.buildah(&["from", "--pull-never", "--signature-policy", policy, IMAGE]), "");
        said.content("from").trim().to_owned()
    }
}

impl Drop for Images {
    /// Containers are mounted; a folder with mounts in it cannot be removed.
    fn drop(&mut self) {
        let _ = self.buildah(&["rm", "--all"]).output();
    }
}

fn files(folder: &Path, below: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        into.push(path.strip_prefix(below).expect("below").display().to_string());
        if path.is_dir() && !path.is_symlink() {
            files(&path, below, into);
        }
    }
}

#[test]
fn the_image_holds_the_binary_alone_and_the_demo_runs_in_it() {
    let images = Images::built();
    let said = told(&mut images.buildah(&["inspect", "--type", "image", IMAGE]), "").content("inspect");
    let image: Value = serde_json::from_str(&said).expect("JSON");
    let config = &image["Docker"]["config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["/countersign"]), &json!(["run"])));
    assert_eq!(config["Healthcheck"]["Test"], json!(["CMD", "/countersign", "health"]));
    assert_eq!((&config["StopSignal"], &config["WorkingDir"]), (&json!("SIGTERM"), &json!("/etc/countersign")));
    let label = |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].as_str().unwrap_or_default();
    assert_eq!((label("version"), label("licenses")), (env!("CARGO_PKG_VERSION"), "Apache-2.0"));
    assert_eq!((label("source"), label("documentation")), ("https://example.com/source", ""));
    assert!(label("created").ends_with('Z') && !label("revision").is_empty() && !label("title").is_empty(), "{config}");

    let container = images.container();
    let mounted = told(&mut images.buildah(&["mount", &container]), "").content("mount");
    let mounted = Path::new(mounted.trim());
    let mut found = Vec::new();
    files(mounted, mounted, &mut found);
    found.sort();
    assert_eq!(found, ["LICENSE", "countersign", "etc", "etc/countersign", "etc/group", "etc/passwd"]);

    // No network but its own loopback, no file but those: the whole tour.
    let mut alone = machine("unshare");
    alone.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh", "buildah"]);
    images.place(&mut alone);
    alone.args(["run", "--isolation", "chroot", &container, "--", "/countersign", "demo", "--once"]);
    let said = told(&mut alone, "").content("the demo");
    assert!(said.contains("Every step held."), "{said}");
}

#[test]
fn a_binary_that_needs_libraries_is_refused() {
    let place = TempDir::new().expect("a folder");
    let mut build = machine("deploy/container/build");
    build.env("BINARY", "/bin/sh").env("STORAGE", place.path());
    let told = told(&mut build, "").complaint("a dynamic binary");
    assert!(told.contains("is not static"), "{told}");
}

//! `deploy/release`: every artefact is made of a stand-in for the binary, twice, and what can be opened here is opened and
//! started. The stand-in is a script that runs the program under test: packaging is judged, not compilers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::base::secret::sha256;
use serde_json::Value;
use tempfile::TempDir;

use super::tools::{machine, prepared, told};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The artefacts of one run, made of a binary for both architectures at this path.
fn made(place: &Path, name: &str, flags: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let (binary, out) = (place.join(format!("{name}.binary")), place.join(name));
    fs::write(&binary, format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_countersign"))).expect("written");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("a mode");
    let mut build = machine("deploy/release/build");
    build.arg("--dirty").arg("--out").arg(&out).args(flags);
    for arch in ["x86_64", "aarch64"] {
        build.arg("--binary").arg(format!("{arch}={}", binary.display()));
    }
    told(build.env_remove("NFPM"), "").content("the build");
    let entries = fs::read_dir(&out).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .map(|path| (path.file_name().expect("a name").display().to_string(), fs::read(&path).expect("read")))
        .collect()
}

/// Whether the program at this path says its version.
fn starts(program: &Path) {
    let said = told(machine(program.to_str().expect("UTF-8")).arg("version"), "").content("version");
    assert!(said.starts_with(&format!("countersign {VERSION}\n")), "{said}");
}

#[test]
fn artefacts_are_the_same_bytes_twice_and_hold_a_program_that_starts() {
    let place = TempDir::new().expect("a folder");
    let place = place.path();
    let key = place.join("key");
    told(machine("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key), "").content("a key");
    let first =
        made(place, "first", &["--sign", key.to_str().expect("UTF-8"), "--source", "https://example.com/source"]);
    let second = made(place, "second", &["--source", "https://example.com/source"]);
    for (name, bytes) in &second {
        assert!(first[name] == *bytes, "{name} differs from run to run");
    }
    let unsigned: Vec<_> = second.keys().map(String::as_str).collect();
    let wheel = |arch: &str| {
        format!("countersign-{VERSION}-py3-none-manylinux_2_17_{arch}.manylinux2014_{arch}.musllinux_1_1_{arch}.whl")
    };
    let mut expected = ["SHA256SUMS", "THIRD-PARTY-LICENCES.txt"].map(str::to_owned).to_vec();
    expected.extend([".cdx.json", "-image.oci.tar"].map(|end| format!("countersign-{VERSION}{end}")));
    expected.extend([".tgz", ".oci.tar"].map(|end| format!("countersign-chart-{VERSION}{end}")));
    for (arch, debian) in [("x86_64", "amd64"), ("aarch64", "arm64")] {
        expected.push(format!("countersign-{VERSION}-{arch}-linux.tar.gz"));
        expected.push(format!("countersign-{VERSION}-1.{arch}.rpm"));
        expected.push(format!("countersign_{VERSION}-1_{debian}.deb"));
        expected.push(wheel(arch));
    }
    expected.sort();
    assert_eq!(unsigned, expected);

    let out = place.join("first");
    told(machine("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&out), "").content("sums");
    let public = fs::read_to_string(key.with_extension("pub")).expect("a public key");
    fs::write(place.join("allowed"), format!("release {public}")).expect("written");
    let mut verify = machine("ssh-keygen");
    verify.args(["-Y", "verify", "-I", "release", "-n", "countersign", "-f"]).arg(place.join("allowed"));
    verify.arg("-s").arg(out.join("SHA256SUMS.sig"));
    let sums = String::from_utf8(first["SHA256SUMS"].clone()).expect("UTF-8");
    told(&mut verify, &sums).content("the signature");

    let tar = place.join("tar");
    fs::create_dir(&tar).expect("a folder");
    let name = format!("countersign-{VERSION}-x86_64-linux");
    told(machine("tar").arg("xzf").arg(out.join(format!("{name}.tar.gz"))).arg("-C").arg(&tar), "").content("tar");
    starts(&tar.join(&name).join("countersign"));
    for path in ["LICENSE", "README.md", "man/man1/countersign-key-new.1", "completions/_countersign", "docs/config.md"]
    {
        assert!(tar.join(&name).join(path).is_file(), "{path}");
    }

    let deb = place.join("deb");
    told(machine("dpkg-deb").arg("-x").arg(out.join(format!("countersign_{VERSION}-1_amd64.deb"))).arg(&deb), "")
        .content("dpkg-deb");
    starts(&deb.join("usr/bin/countersign"));
    let unit = fs::read_to_string(deb.join("usr/lib/systemd/system/countersign.service")).expect("a unit");
    assert!(unit.contains("ExecStart=/usr/bin/countersign run") && !unit.contains("/usr/local"), "{unit}");
    let mode = |path: &str| fs::metadata(deb.join(path)).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode("etc/countersign/secrets"), mode("etc/countersign/proxy.toml")), (0o700, 0o644));

    let venv = place.join("venv");
    let mut pip = prepared("deploy/bin/python");
    pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index", "--target"]).arg(&venv);
    told(pip.arg(out.join(wheel(std::env::consts::ARCH))), "").content("pip");
    starts(&venv.join("bin/countersign"));
    assert!(first[&format!("countersign-{VERSION}-1.x86_64.rpm")].starts_with(&[0xed, 0xab, 0xee, 0xdb]));
}

#[test]
fn the_image_the_bill_of_materials_and_the_wheel_say_what_is_in_them() {
    let place = TempDir::new().expect("a folder");
    let made = made(place.path(), "once", &[]);
    one_image_for_both_architectures(place.path());
    every_linked_package(&json(&made[&format!("countersign-{VERSION}.cdx.json")]));
    let licences = String::from_utf8(made["THIRD-PARTY-LICENCES.txt"].clone()).expect("UTF-8");
    assert!(licences.contains("\n    rustls 0.") && licences.contains("GNU C Library"), "licences");
    let wheel = made.keys().find(|name| name.ends_with("x86_64.whl")).expect("a wheel");
    right_record(place.path(), &place.path().join("once").join(wheel));
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// Every blob is what its digest says, from the index down to the layers.
fn one_image_for_both_architectures(place: &Path) {
    let layout = place.join("layout");
    fs::create_dir(&layout).expect("a folder");
    let image = place.join(format!("once/countersign-{VERSION}-image.oci.tar"));
    told(machine("tar").arg("xf").arg(image).arg("-C").arg(&layout), "").content("tar");
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().and_then(|text| text.strip_prefix("sha256:")).expect("a digest");
        let bytes = fs::read(layout.join("blobs/sha256").join(digest)).expect("a blob");
        let hex: String = sha256(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((hex.as_str(), Some(bytes.len() as u64)), (digest, descriptor["size"].as_u64()));
        bytes
    };
    let index = json(&blob(&json(&fs::read(layout.join("index.json")).expect("an index"))["manifests"][0]));
    let mut architectures = Vec::new();
    for descriptor in index["manifests"].as_array().expect("manifests") {
        let manifest = json(&blob(descriptor));
        let image = json(&blob(&manifest["config"]));
        blob(&manifest["layers"][0]);
        assert_eq!(image["architecture"], descriptor["platform"]["architecture"]);
        let config = &image["config"];
        assert_eq!((&config["User"], &config["WorkingDir"]), (&"65532:65532".into(), &"/etc/countersign".into()));
        assert_eq!(config["Entrypoint"], serde_json::json!(["/countersign"]));
        assert_eq!(config["Labels"]["org.opencontainers.image.version"], VERSION);
        // Nobody said where the source is.
        assert!(config["Labels"]["org.opencontainers.image.source"].is_null(), "{config}");
        architectures.push(image["architecture"].clone());
    }
    assert_eq!(architectures, ["arm64", "amd64"]);
}

fn every_linked_package(bill: &Value) {
    let components = bill["components"].as_array().expect("components");
    let references: Vec<_> = components.iter().map(|one| one["bom-ref"].as_str().expect("a reference")).collect();
    let named = |name: &str| references.iter().any(|one| one.contains(&format!("/{name}@")));
    assert!(named("rustls") && named("aws-lc-sys"), "what is linked");
    assert!(!named("proptest") && !named("serde_derive") && !named("ring"), "what is not");
    for edge in bill["dependencies"].as_array().expect("dependencies") {
        for below in edge["dependsOn"].as_array().expect("references") {
            assert!(references.contains(&below.as_str().expect("a reference")), "{below}");
        }
    }
}

/// Python's installers trust the RECORD, or refuse the wheel.
fn right_record(place: &Path, wheel: &Path) {
    const SCRIPT: &str = "import json, sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); z.extractall(sys.argv[2]); \
                          json.dump(z.namelist(), sys.stdout)";
    let folder = place.join("wheel");
    let said = told(prepared("deploy/bin/python").args(["-c", SCRIPT]).arg(wheel).arg(&folder), "").content("zip");
    let names: Vec<String> = serde_json::from_str(&said).expect("JSON");
    let record = fs::read_to_string(folder.join(names.last().expect("a RECORD"))).expect("a RECORD");
    let listed: Vec<Vec<&str>> = record.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(listed.iter().map(|row| row[0]).collect::<Vec<_>>(), names);
    for row in listed.iter().filter(|row| !row[1].is_empty()) {
        let bytes = fs::read(folder.join(row[0])).expect("a file");
        let digest = format!("sha256={}", URL_SAFE_NO_PAD.encode(sha256(&bytes)));
        assert_eq!((row[1], row[2]), (digest.as_str(), bytes.len().to_string().as_str()));
    }
}

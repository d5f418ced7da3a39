use std::collections::BTreeMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use proptest::prelude::*;

use super::*;

const PRIVATE: &[u8] = include_bytes!("../../../tests/fixtures/signing/ed25519-pkcs8.pem");

/// A folder that exists in memory alone.
#[derive(Clone, Default)]
struct Folder(BTreeMap<String, Vec<u8>>);

impl Folder {
    fn with(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.insert(name.to_owned(), bytes.into());
        self
    }
}

impl PackFolder for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.0.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn shown(&self, name: &str) -> String {
        format!("banks/{name}")
    }
}

fn key() -> PackKey {
    let key = pkcs::private_key(PRIVATE, None).unwrap();
    PackKey(VerifyingKey::Public(key.public().clone()))
}

/// A key that has signed nothing.
fn other_key() -> PackKey {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    PackKey(VerifyingKey::Public(PublicKey::ed25519(pair.public_key().as_ref()).unwrap()))
}

const BASE: &str = "name = \"base\"\nextends = \"oauth2\"\n[environments.live]\nbase_url = \"https://bank.example\"\n";

fn profiles() -> Folder {
    let folder = Folder::default().with("base.toml", BASE);
    folder.with("scb.toml", Profile::builtin_text("scb").unwrap()).with("README.md", "not a profile")
}

/// Makes a pack of a folder, as `profiles pack` does.
fn packed(folder: Folder, version: &str) -> Folder {
    let pack = describe_folder(&folder, "banks".to_owned(), PackVersion::parse(version).unwrap()).unwrap();
    let manifest = pack.manifest().to_toml();
    let signature = sign_manifest(manifest.as_bytes(), PRIVATE).unwrap();
    folder.with(MANIFEST_FILE, manifest).with(SIGNATURE_FILE, signature)
}

fn opened(folder: &Folder, key: PackKey) -> Result<ProfilePack, Vec<PackFault>> {
    let trust = PackTrust::Signed(key);
    ProfilePack::open(folder, &PackDemand { trust: &trust, name: Some("banks"), min_version: None })
}

fn faults(folder: &Folder) -> Vec<PackFault> {
    opened(folder, key()).map(|_| ()).unwrap_err()
}

#[test]
fn a_pack_is_opened_as_it_was_signed() {
    let folder = packed(profiles(), "2026.11.30");
    let pack = opened(&folder, key()).unwrap();
    assert_eq!((pack.name(), pack.version().to_string().as_str()), ("banks", "2026.11.30"));
    assert_eq!(pack.names().collect::<Vec<_>>(), ["base", "scb"]);
    assert_eq!(pack.profile("scb", &Diagnostics::new()).unwrap().name(), "scb");
    assert!(pack.profile("base", &Diagnostics::new()).unwrap().environment("live").is_some());
    assert!(pack.profile("meed", &Diagnostics::new()).is_none(), "a built-in one is no profile of the pack");
    let contents: Vec<String> = pack.contents().map(|(name, _)| name).collect();
    assert_eq!(contents, ["pack.toml", "pack.sig", "base.toml", "scb.toml"]);
    // The signature may stand there as it is, too, as other tools write it.
    let raw = signature(folder.0.get(SIGNATURE_FILE).unwrap()).unwrap();
    assert!(opened(&folder.with(SIGNATURE_FILE, raw), key()).is_ok());
}

#[test]
fn a_pack_that_was_changed_is_refused_and_each_fault_is_told() {
    let folder = packed(profiles(), "2");
    let manifest = String::from_utf8(folder.0.get(MANIFEST_FILE).unwrap().clone()).unwrap();
    let gone = |name: &str| {
        let mut folder = folder.clone();
        folder.0.remove(name);
        folder
    };
    assert_eq!(faults(&gone(MANIFEST_FILE)), [PackFault::NoManifest]);
    assert_eq!(faults(&gone(SIGNATURE_FILE)), [PackFault::NotSigned]);
    assert_eq!(faults(&gone("scb.toml")), [PackFault::Missing("scb.toml".to_owned())]);
    assert_eq!(faults(&folder.clone().with(SIGNATURE_FILE, "hello")), [PackFault::BadSignatureForm]);
    assert_eq!(faults(&folder.clone().with(MANIFEST_FILE, format!("{manifest}#"))), [PackFault::WrongSignature]);
    assert_eq!(opened(&folder, other_key()).unwrap_err(), [PackFault::WrongSignature]);
    let changed = folder.clone().with("scb.toml", "name = \"scb\"").with("new.toml", "").with("base.toml", b"\xff");
    let [new, base, scb] = ["new.toml", "base.toml", "scb.toml"].map(ToOwned::to_owned);
    assert_eq!(faults(&changed), [PackFault::Unlisted(new), PackFault::Altered(base), PackFault::Altered(scb)]);
    let long = folder.clone().with("scb.toml", vec![b'#'; LONGEST_PROFILE + 1]);
    assert!(matches!(&faults(&long)[..], [PackFault::Long { .. }]));
    for fault in faults(&changed).into_iter().chain(faults(&long)) {
        assert!(!fault.help().is_empty() && fault.to_string().starts_with("its "), "{fault}");
    }
    // Without the manifest's own signature nothing of it is looked at.
    assert_eq!(faults(&folder.with(MANIFEST_FILE, "name = 7")), [PackFault::WrongSignature]);
}

#[test]
fn a_pack_of_another_name_or_an_older_version_is_refused() {
    let folder = packed(profiles(), "2026.9.1");
    let (trust, least) = (PackTrust::Signed(key()), PackVersion::parse("2026.11.30").unwrap());
    let demand = PackDemand { trust: &trust, name: Some("others"), min_version: Some(&least) };
    let found = ProfilePack::open(&folder, &demand).unwrap_err();
    assert!(matches!(&found[..], [PackFault::Name { .. }, PackFault::Old { .. }]), "{found:?}");
    assert_eq!(found[1].to_string(), "its version is 2026.9.1, older than 2026.11.30");
}

#[test]
fn an_unsigned_pack_must_fit_its_manifest_all_the_same() {
    let mut folder = packed(profiles(), "1");
    folder.0.remove(SIGNATURE_FILE);
    assert!(ProfilePack::open(&folder, &PackDemand::NONE).is_ok());
    let changed = folder.clone().with("scb.toml", "");
    assert_eq!(
        ProfilePack::open(&changed, &PackDemand::NONE).unwrap_err(),
        [PackFault::Altered("scb.toml".to_owned())]
    );
    let found = ProfilePack::open(&folder.with(MANIFEST_FILE, "name = 7"), &PackDemand::NONE).unwrap_err();
    assert!(matches!(&found[..], [PackFault::Malformed(why)] if why.contains("banks/pack.toml:1:8")), "{found:?}");
}

#[test]
fn only_ed25519_keys_sign_packs() {
    let rsa = include_bytes!("../../../tests/fixtures/signing/rsa-pkcs8.pem");
    assert_eq!(sign_manifest(b"x", rsa), Err(PackKeyError::Kind(KeyType::Rsa)));
    let public = include_bytes!("../../../tests/fixtures/signing/rsa-public.pem");
    let refused = PackKey::from_pem(public).map(|_| ()).unwrap_err();
    assert_eq!(refused.to_string(), "an RSA key, and packs are signed with an Ed25519 key");
    assert!(matches!(PackKey::from_pem(b"text"), Err(PackKeyError::Key(KeyError::NoPublicKey))));
}

#[test]
fn a_profile_of_a_pack_extends_built_in_ones_and_its_neighbours() {
    let child = "name = \"child\"\nextends = \"./base\"\n[environments.test]\nbase_url = \"https://test.example\"\n";
    let pack = opened(&packed(profiles().with("child.toml", child), "1"), key()).unwrap();
    let profile = pack.profile("child", &Diagnostics::new()).unwrap();
    assert_eq!(profile.environments(), ["live", "test"]);
    // Another parent's text, another token key.
    let other = profiles().with("child.toml", child).with("base.toml", format!("{BASE}# changed\n"));
    let other = opened(&packed(other, "1"), key()).unwrap();
    assert_ne!(other.profile("child", &Diagnostics::new()).unwrap().digest, profile.digest);
}

fn mistakes(folder: Folder, name: &str) -> Vec<String> {
    let pack = opened(&packed(folder, "1"), key()).unwrap();
    let report = Diagnostics::new();
    assert!(pack.profile(name, &report).is_none());
    report.into_diagnostics().iter().map(|found| found.one_line()).collect()
}

#[test]
fn parents_that_lead_in_a_circle_or_nowhere_are_mistakes() {
    let ring = profiles().with("a.toml", "name = \"a\"\nextends = \"./b\"\n");
    let ring = ring.with("b.toml", "name = \"b\"\nextends = \"./a\"\n");
    let found = mistakes(ring, "a");
    assert!(found.len() == 1 && found[0].contains("`extends` leads in a circle"), "{found:?}");
    let mut chain = profiles();
    for n in 0..=MOST_CHAIN {
        chain = chain.with(&format!("p{n}.toml"), format!("name = \"p{n}\"\nextends = \"./p{}\"\n", n + 1));
    }
    assert!(mistakes(chain.clone(), "p0")[0].contains("further than 8 profiles"));
    let found = mistakes(profiles().with("a.toml", "name = \"a\"\nextends = \"./bsae\"\n"), "a");
    assert!(found.iter().any(|line| line.contains("did you mean `\"./base\"`?")), "{found:?}");
    let found = mistakes(profiles().with("a.toml", "name = \"a\"\nextends = \"base\"\n"), "a");
    assert!(found[0].contains("`extends` names no built-in profile"), "{found:?}");
    let report = Diagnostics::new();
    assert!(Profile::parse(&SourceText::new("a.toml", "name = \"a\"\nextends = \"./base\"\n"), &report).is_none());
    assert!(report.into_diagnostics()[0].title.contains("only a profile of a pack"));
}

const MOST_CHAIN: usize = 10;

proptest! {
    /// A byte that is changed in any file that counts is noticed.
    #[test]
    fn no_changed_byte_goes_unnoticed(which in 0_usize..4, at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut folder = packed(profiles(), "1");
        let name = [MANIFEST_FILE, SIGNATURE_FILE, "base.toml", "scb.toml"][which];
        let bytes = folder.0.get_mut(name).unwrap();
        // The line break behind the signature does not count.
        let length = if name == SIGNATURE_FILE { bytes.len() - 1 } else { bytes.len() };
        let at = at.index(length);
        bytes[at] ^= 1 << bit;
        prop_assert!(opened(&folder, key()).is_err());
    }
}

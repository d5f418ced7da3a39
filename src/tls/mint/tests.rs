//! The guarantees of a mint, on a clock that the tests move.

use rustls::pki_types::UnixTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::parse_x509_certificate;

use super::*;
use crate::signing::blocking_signature::may_block;
use crate::signing::key::SigningKey as PrivateSigningKey;
use crate::signing::pkcs;

const DAY: Duration = Duration::from_secs(24 * 3600);
const START: Now = Now::at(1_000_000, 1_790_000_000_000);

fn authority(kind: KeyKind, permits: &[&str], years: u32) -> MintAuthority {
    let permits: Vec<NameConstraint> = permits.iter().map(|text| NameConstraint::parse(text).expect(text)).collect();
    let constraints =
        if permits.is_empty() { Constraints::NONE } else { Constraints::only(&permits).expect("something") };
    MintAuthority::new(kind, &constraints, START, years).expect("a CA").0
}

fn mint(permits: &[&str]) -> Mint {
    Mint::new(authority(KeyKind::EcdsaP256, permits, 1)).expect("a mint")
}

fn validity(certified: &CertifiedKey) -> (u64, u64) {
    let (_, leaf) = parse_x509_certificate(&certified.cert[0]).expect("X.509");
    let seconds = |at: i64| u64::try_from(at).expect("after 1970");
    (seconds(leaf.validity().not_before.timestamp()), seconds(leaf.validity().not_after.timestamp()))
}

/// As a rustls client would, with nothing but the CA trusted.
fn verify(mint: &Mint, certified: &CertifiedKey, host: &str, now: Now) -> Result<(), rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(mint.authority().chain()[0].clone()).expect("a CA");
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = verifier.build().expect("a verifier");
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.unix_seconds()));
    use rustls::client::danger::ServerCertVerifier as _;
    verifier.verify_server_cert(&certified.cert[0], &certified.cert[1..], &name, &[], now).map(drop)
}

#[test]
fn a_leaf_carries_what_strict_verifiers_ask_for() {
    for kind in [KeyKind::EcdsaP256, KeyKind::Rsa2048] {
        let mint = Mint::new(authority(kind, &["bank.example"], 1)).expect("a mint");
        let certified = mint.certified("api.bank.example", START).expect("a leaf");
        verify(&mint, &certified, "api.bank.example", START).expect("rustls accepts it");
        assert_eq!(certified.cert.len(), 2, "the leaf and the CA");
        certified.keys_match().expect("the key belongs to the leaf");
        let (_, ca) = parse_x509_certificate(&certified.cert[1]).expect("X.509");
        let (_, leaf) = parse_x509_certificate(&certified.cert[0]).expect("X.509");
        assert_eq!(leaf.public_key().algorithm.algorithm.to_id_string(), "1.2.840.10045.2.1", "ECDSA whatever the CA");
        assert_eq!(leaf.issuer().as_raw(), ca.subject().as_raw());
        let own_id = |certificate: &x509_parser::certificate::X509Certificate<'_>| {
            certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
        };
        let issuer_id = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        });
        assert!(own_id(&leaf).is_some() && issuer_id.is_some() && issuer_id == own_id(&ca));
        let basic = ca.basic_constraints().expect("well-formed").expect("present").value;
        assert_eq!((basic.ca, basic.path_len_constraint), (true, Some(0)));
        assert!(!leaf.basic_constraints().expect("well-formed").expect("present").value.ca);
        let usage = leaf.extended_key_usage().expect("well-formed").expect("present").value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any);
        let usage = leaf.key_usage().expect("well-formed").expect("present").value;
        assert!(usage.digital_signature() && usage.flags.count_ones() == 1);
        let names = leaf.subject_alternative_name().expect("well-formed").expect("present").value;
        assert_eq!(names.general_names, vec![GeneralName::DNSName("api.bank.example")]);
        assert!(ca.name_constraints().expect("well-formed").is_some());
        let constraints =
            ca.extensions().iter().find(|e| matches!(e.parsed_extension(), ParsedExtension::NameConstraints(_)));
        assert!(constraints.is_some_and(|extension| extension.critical));
    }
}

#[test]
fn a_leaf_lives_a_week_and_is_made_anew_in_its_last_third() {
    let mint = mint(&[]);
    let first = mint.certified("api.bank.example", START).expect("a leaf");
    let (from, until) = validity(&first);
    assert_eq!(from, START.unix_seconds() - 3600);
    assert_eq!(until - from, 7 * 24 * 3600);
    let later = START.plus(DAY * 4);
    assert!(Arc::ptr_eq(&first, &mint.certified("api.bank.example", later).expect("a leaf")), "more than a third left");
    let later = START.plus(DAY * 5);
    let second = mint.certified("api.bank.example", later).expect("a leaf");
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(validity(&second).0, later.unix_seconds() - 3600);
    assert_eq!(mint.kept(), 1, "the new one took the old one's place");
}

#[test]
fn no_leaf_outlives_the_ca_and_none_is_made_over_and_over_at_its_end() {
    let mint = mint(&[]);
    let end = mint.authority().validity().1;
    let last_day = Now::at(START.boot, (end - 600) * 1000);
    let leaf = mint.certified("api.bank.example", last_day).expect("a leaf");
    assert_eq!(validity(&leaf).1, end);
    let later = last_day.plus(Duration::from_secs(590));
    assert!(Arc::ptr_eq(&leaf, &mint.certified("api.bank.example", later).expect("a leaf")));
    let after = Now::at(START.boot, end * 1000);
    assert_eq!(mint.certified("api.bank.example", after).expect_err("ended"), MintError::AuthorityEnded(end));
    let early = Now::at(START.boot, START.wall - 7_200_000);
    assert!(matches!(mint.certified("api.bank.example", early), Err(MintError::AuthorityNotYet(_))));
}

#[test]
fn a_host_outside_the_constraints_gets_nothing() {
    let mint = mint(&["bank.example"]);
    for host in ["evil.example", "notbank.example", "127.0.0.1", "[::1]"] {
        let error = mint.certified(host, START).expect_err(host);
        assert!(matches!(error, MintError::OutsideConstraints { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("bank.example") && text.contains("ca new --permit"), "{text}");
    }
    for host in ["", "a b", "bank.example:443", "*.bank.example", "bank..example", "b\u{e4}nk.example", "[::1"] {
        assert!(matches!(mint.certified(host, START), Err(MintError::NotAName(_))), "{host}");
    }
    assert_eq!(mint.kept(), 0);
}

#[test]
fn an_address_gets_a_leaf_that_names_it() {
    let mint = mint(&["127.0.0.1", "::1"]);
    for (host, bare) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let leaf = mint.certified(host, START).expect(host);
        verify(&mint, &leaf, bare, START).expect("rustls accepts it");
    }
}

#[test]
fn spellings_of_a_host_share_a_leaf() {
    let mint = mint(&[]);
    let leaf = mint.certified("api.bank.example", START).expect("a leaf");
    for spelling in ["API.Bank.Example", "api.bank.example."] {
        assert!(Arc::ptr_eq(&leaf, &mint.certified(spelling, START).expect("a leaf")), "{spelling}");
    }
    let long = format!("{}.{}.example", "a".repeat(60), "b".repeat(60));
    let leaf = mint.certified(&long, START).expect("a long name has no place in the common name");
    verify(&mint, &leaf, &long, START).expect("rustls accepts it");
}

#[test]
fn the_mint_is_bounded_and_keeps_what_is_used() {
    let mint = mint(&[]);
    let kept = mint.certified("kept.example", START).expect("a leaf");
    let mut numbers = std::collections::HashSet::new();
    for n in 0..CAPACITY + 50 {
        let now = START.plus(Duration::from_secs(n as u64 + 1));
        let leaf = mint.certified(&format!("h{n}.example"), now).expect("a leaf");
        let (_, read) = parse_x509_certificate(&leaf.cert[0]).expect("X.509");
        assert!(numbers.insert(read.raw_serial().to_vec()), "no two leaves of one issuer share a number");
        assert!(Arc::ptr_eq(&kept, &mint.certified("kept.example", now).expect("a leaf")));
    }
    assert_eq!(mint.kept(), CAPACITY);
}

#[test]
fn many_at_once_share_one_leaf() {
    let mint = mint(&[]);
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| mint.certified("api.bank.example", START).expect("a leaf"))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(made.iter().all(|leaf| Arc::ptr_eq(leaf, &made[0])));
}

#[test]
fn a_ca_whose_key_is_elsewhere_signs_where_that_can_be_waited_for() {
    use crate::signing::algorithm::SigningAlgorithm;
    let made = |algorithm: &'static rcgen::SignatureAlgorithm| {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("a CA").pem();
        let key = pkcs::private_key(key.serialize_pem().as_bytes(), None).expect("a key");
        (certificate, Arc::new(PrivateSigningKey::Private(key)))
    };
    for (kind, algorithm) in
        [(&PKCS_ECDSA_P256_SHA256, SigningAlgorithm::Es256), (&rcgen::PKCS_RSA_SHA256, SigningAlgorithm::Rs256)]
    {
        let (certificate, signer) = made(kind);
        let authority = MintAuthority::elsewhere(certificate.as_bytes(), signer.clone(), algorithm).expect("a CA");
        assert!(authority.is_remote());
        let mint = Mint::new(authority).expect("a mint");
        let error = mint.certified("api.bank.example", START).expect_err("an event loop does not wait");
        assert!(matches!(error, MintError::KeyService(_)), "{error}");
        assert_eq!(mint.find("api.bank.example", START).map(drop), None);
        let leaf = may_block(|| mint.certified("api.bank.example", START)).expect("a leaf");
        verify(&mint, &leaf, "api.bank.example", START).expect("rustls accepts it");
        let kept = mint.certified("api.bank.example", START).expect("what is kept is signed already");
        assert!(Arc::ptr_eq(&leaf, &kept));
        let foreign = MintAuthority::elsewhere(made(kind).0.as_bytes(), signer, algorithm);
        assert!(matches!(foreign, Err(CaError::ForeignKey)));
    }
}

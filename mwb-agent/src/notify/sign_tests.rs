use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
        .collect()
}

/// Key, data and HMAC-SHA256 of the test cases 1, 2, 3, 4, 6 and 7.
fn rfc_4231() -> Vec<(Vec<u8>, Vec<u8>, &'static str)> {
    vec![
        (
            vec![0x0b; 20],
            b"Hi There".to_vec(),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            vec![0xaa; 20],
            vec![0xdd; 50],
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
        (
            bytes("0102030405060708090a0b0c0d0e0f10111213141516171819"),
            vec![0xcd; 50],
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        ),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            vec![0xaa; 131],
            b"This is a test using a larger than block-size key and a larger than block-size \
              data. The key needs to be hashed before being used by the HMAC algorithm."
                .to_vec(),
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ]
}

#[test]
fn hmac_is_that_of_rfc_4231() {
    for (key, data, expected) in rfc_4231() {
        assert_eq!(hex(&hmac_sha256(&key, &[&data])), expected);
        let (begin, end) = data.split_at(data.len() / 2);
        assert_eq!(hex(&hmac_sha256(&key, &[begin, end])), expected);
    }
}

#[test]
fn the_signature_covers_the_time_a_full_stop_and_the_body() {
    // printf '1764515375.{"kind":"test"}' | openssl dgst -sha256 -hmac 0123…
    let secret = b"0123456789abcdef0123456789abcdef";
    let expected = "sha256=ed0986f5d2852bad89be756a9b445b20ccf5e528a5b88e924009445386123186";
    assert_eq!(signature(secret, 1_764_515_375, br#"{"kind":"test"}"#), expected);
    assert_ne!(signature(secret, 1_764_515_376, br#"{"kind":"test"}"#), expected);
}

/// Loads a file of this content with these rights.
fn load(content: &[u8], mode: u32) -> Result<Secret, SecretError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    fs::write(&path, content).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its own file");
    Secret::load(&path)
}

#[test]
fn a_secret_that_others_may_read_or_change_is_refused() {
    for mode in [0o600, 0o640, 0o400, 0o440] {
        assert!(load(&[b's'; 32], mode).is_ok(), "{mode:o}");
    }
    for mode in [0o644, 0o604, 0o602, 0o601, 0o660, 0o650, 0o666, 0o777] {
        let refused = load(&[b's'; 32], mode);
        assert!(
            matches!(&refused, Err(SecretError::Open { mode: m, .. }) if *m == mode),
            "{mode:o}"
        );
    }
}

#[test]
fn a_secret_is_what_stands_between_white_space() {
    let secret = load(b"\n 0123456789abcdef \n", 0o600).expect("a secret");
    assert_eq!(secret.sign(7, b"x"), signature(b"0123456789abcdef", 7, b"x"));
    assert_eq!(format!("{secret:?}"), "Secret");
}

#[test]
fn a_secret_has_a_length_that_makes_sense() {
    assert!(matches!(load(b"0123456789abcde\n", 0o600), Err(SecretError::Length { .. })));
    assert!(matches!(load(&[b's'; 4_097], 0o600), Err(SecretError::Length { .. })));
    assert!(load(&[b's'; 4_096], 0o600).is_ok());
    let missing = Secret::load(Path::new("/nonexistent/secret"));
    assert!(matches!(missing, Err(SecretError::Unreadable { .. })));
}

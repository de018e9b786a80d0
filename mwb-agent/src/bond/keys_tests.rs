use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::bond::Os;

/// RFC 7748, 6.1.
const ALICE: &str = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
const ALICE_PUBLIC: &str = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
const BOB: &str = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
const BOB_PUBLIC: &str = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
const SHARED: &str = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";

fn key(hex: &str) -> [u8; 32] {
    let byte = |at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex digits");
    std::array::from_fn(byte)
}

#[test]
fn the_keys_of_rfc_7748_come_out_right() {
    let alice = PrivateKey::from_bytes(&key(ALICE)).expect("a key");
    assert_eq!(alice.public().bytes(), &key(ALICE_PUBLIC));
    assert_eq!(public(&key(BOB)), key(BOB_PUBLIC));
    for (private, public) in [(ALICE, BOB_PUBLIC), (BOB, ALICE_PUBLIC)] {
        assert_eq!(agree(&key(private), &key(public)).as_deref(), Some(&key(SHARED)));
    }
}

#[test]
fn points_of_small_order_agree_on_nothing() {
    let mut one = [0; 32];
    one[0] = 1;
    // Order 8, from the list at https://cr.yp.to/ecdh.html.
    let eight = key("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
    for point in [[0; 32], one, eight] {
        assert_eq!(agree(&key(ALICE), &point), None, "{point:?}");
    }
}

#[test]
fn a_key_is_written_as_wireguard_writes_it() {
    // `echo … | wg pubkey`: the keys of RFC 7748 once more.
    let text = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    let private: PrivateKey = text.parse().expect("a key");
    assert_eq!(private.bytes(), &key(ALICE));
    assert_eq!(*private.to_text(), text);
    let public = private.public();
    assert_eq!(public.to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    assert_eq!(public.to_string().parse(), Ok(public));
}

#[test]
fn what_is_no_key_is_refused_and_said_why() {
    let right = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    let wrong = [
        (String::new(), NotAKey::Length(0)),
        (right[..43].to_owned(), NotAKey::Length(43)),
        (format!("{right} "), NotAKey::Length(45)),
        (right.replace('d', "!"), NotAKey::Base64),
        // The same bytes by other characters: one key has one text.
        (right.replace("Co=", "Cp="), NotAKey::Base64),
        (right.replace('=', "A"), NotAKey::Base64),
        (right.replace("Co=", "C=="), NotAKey::Base64),
        ("ä".repeat(22), NotAKey::Length(22)),
        (format!("{}=", "A".repeat(43)), NotAKey::Zero),
    ];
    for (text, why) in wrong {
        assert_eq!(text.parse::<PublicKey>(), Err(why), "{text}");
        assert_eq!(text.parse::<PrivateKey>().map(|key| key.public()), Err(why), "{text}");
    }
    let mut one = [0; 32];
    one[0] = 1;
    assert_eq!(PublicKey::from_bytes(one), Err(NotAKey::SmallOrder));
    assert!(PrivateKey::from_bytes(&one).is_ok(), "a private one is a number");
    assert_eq!(PublicKey::from_bytes([0; 32]), Err(NotAKey::Zero));
    assert!(PrivateKey::from_bytes(&[0; 32]).is_err());
}

#[test]
fn new_keys_are_clamped_and_different() {
    let [first, second] = [(); 2].map(|()| PrivateKey::generate(&mut Os).expect("random bytes"));
    assert_ne!(first.bytes(), second.bytes());
    for key in [first, second] {
        assert_eq!((key.bytes()[0] & 7, key.bytes()[31] & 0xc0), (0, 0x40));
    }
}

#[test]
fn a_private_key_is_not_shown() {
    let private = PrivateKey::from_bytes(&key(ALICE)).expect("a key");
    assert_eq!(format!("{private:?} {private:#?}"), "PrivateKey PrivateKey");
}

#[test]
fn a_private_key_is_read_from_a_file_that_only_its_owner_can_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    let shown = path.display();
    let missing = PrivateKey::read(&path).expect_err("no file").to_string();
    assert!(missing.starts_with(&format!("{shown}: cannot be read: ")), "{missing}");
    let text = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    fs::write(&path, format!("{text}\n")).expect("written");
    for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
        let refused = PrivateKey::read(&path).expect_err("others can read it").to_string();
        assert_eq!(
            refused,
            format!(
                "{shown}: is a private key, and others can read or change it (mode {mode:04o})\n\
                 fix: chmod 600 {shown}"
            )
        );
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
        let read = PrivateKey::read(&path).expect("a key");
        assert_eq!(*read.to_text(), text);
    }
    for (written, why) in
        [(format!("{text}{text}"), "this has 88"), (" ".repeat(9000), "this has 0")]
    {
        let path = folder.path().join("other");
        fs::write(&path, written).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a mode");
        let refused = PrivateKey::read(&path).expect_err("no key").to_string();
        assert!(refused.starts_with(&format!("{}: a key has 44", path.display())), "{refused}");
        assert!(refused.contains(why) && refused.contains("fix: "), "{refused}");
    }
}

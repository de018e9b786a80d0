use snow::resolvers::FallbackResolver;

use super::*;

/// These bytes, and none after them.
struct Bytes(Vec<u8>);

impl Random for Bytes {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        if self.0.len() < bytes.len() {
            return Err(NoRandomness);
        }
        bytes.copy_from_slice(&self.0.drain(..bytes.len()).collect::<Vec<_>>());
        Ok(())
    }
}

/// For a crate that wants a source even where it is not used.
struct Unused;

impl snow::types::Random for Unused {
    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::Rng)
    }
}

impl CryptoResolver for Unused {
    fn resolve_rng(&self) -> Option<Box<dyn snow::types::Random>> {
        Some(Box::new(Unused))
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        None
    }

    fn resolve_hash(&self, _: &HashChoice) -> Option<Box<dyn Hash>> {
        None
    }

    fn resolve_cipher(&self, _: &CipherChoice) -> Option<Box<dyn Cipher>> {
        None
    }
}

fn private(seed: u8) -> PrivateKey {
    PrivateKey::from_bytes(&[seed; 32]).expect("a key")
}

/// The crate as it is, with its own curve.
fn plain<'a>(private: &'a PrivateKey, ephemeral: &'a [u8; 32]) -> Builder<'a> {
    let resolver = FallbackResolver::new(Box::new(DefaultResolver), Box::new(Unused));
    let protocol = "Noise_IK_25519_ChaChaPoly_BLAKE2s".parse().expect("a protocol");
    Builder::with_resolver(protocol, Box::new(resolver))
        .local_private_key(private.bytes())
        .and_then(|builder| builder.prologue(b"MWB 1"))
        .expect("set once")
        .fixed_ephemeral_key_for_testing_only(ephemeral)
}

#[test]
fn both_messages_and_the_keys_are_those_of_the_crate_by_itself() {
    let (gateway, server) = (private(1), private(2));
    let server_public = server.public();
    let mut theirs = plain(&gateway, &[3; 32])
        .remote_public_key(server_public.bytes())
        .and_then(Builder::build_initiator)
        .expect("an initiator");
    let mut other = plain(&server, &[4; 32]).build_responder().expect("a responder");
    let (say, answer) = ([5; payload::INITIATION], [6; payload::RESPONSE]);
    let mut first = [0; INITIATION_BODY];
    assert_eq!(theirs.write_message(&say, &mut first), Ok(INITIATION_BODY));
    assert_eq!(other.read_message(&first, &mut [0; 64]), Ok(say.len()));
    let mut second = [0; RESPONSE_BODY];
    assert_eq!(other.write_message(&answer, &mut second), Ok(RESPONSE_BODY));
    assert_eq!(theirs.read_message(&second, &mut [0; 64]), Ok(answer.len()));
    let keys = theirs.dangerously_get_raw_split();

    let (mut begun, message) =
        begin(&gateway, &server_public, &say, &mut Bytes(vec![3; 32])).expect("an initiation");
    assert_eq!(message, first);
    let heard = hear(&server, &message, &mut Bytes(vec![4; 32])).expect("authentic");
    assert_eq!((heard.client, heard.payload), (gateway.public(), say));
    let (message, ours) = heard.answer(&answer).expect("a response");
    assert_eq!(message, second);
    let (payload, finished) = begun.finish(&message).expect("authentic");
    assert_eq!(payload, answer);
    for made in [ours, finished] {
        assert_eq!(made.map(|key| key.words()), [keys.0, keys.1].map(|key| Key::new(key).words()));
    }
    assert_ne!(keys.0, keys.1);
}

#[test]
fn a_wrong_response_leaves_room_for_the_right_one() {
    let (gateway, server) = (private(1), private(2));
    let say = [5; payload::INITIATION];
    let (mut begun, message) =
        begin(&gateway, &server.public(), &say, &mut Bytes(vec![3; 32])).expect("an initiation");
    let heard = hear(&server, &message, &mut Bytes(vec![4; 32])).expect("authentic");
    let (message, keys) = heard.answer(&[6; payload::RESPONSE]).expect("a response");
    for at in 0..message.len() {
        let mut wrong = message;
        wrong[at] ^= 1;
        assert_eq!(begun.finish(&wrong).err(), Some(NoiseError::Refused), "byte {at}");
    }
    let (_, finished) = begun.finish(&message).expect("authentic");
    assert_eq!(finished.map(|key| key.words()), keys.map(|key| key.words()));
}

#[test]
fn without_random_bytes_there_is_no_message() {
    let say = [5; payload::INITIATION];
    let none = begin(&private(1), &private(2).public(), &say, &mut Bytes(vec![3; 31]));
    assert_eq!(none.err(), Some(NoiseError::NoRandomness(NoRandomness)));
    let none = hear(&private(2), &[7; INITIATION_BODY], &mut Bytes(Vec::new()));
    assert_eq!(none.err(), Some(NoiseError::NoRandomness(NoRandomness)));
}

#[test]
fn a_point_of_small_order_ends_the_handshake() {
    let mut curve = X25519::default();
    curve.set(&[3; 32]);
    let mut one = [0; 32];
    one[0] = 1;
    assert!(matches!(curve.dh(&one, &mut [0; 32]), Err(Error::Dh)));
    assert!(curve.dh(private(1).public().bytes(), &mut [0; 32]).is_ok());
}

//! Blocks of packets with Reed-Solomon parity: what a path loses is computed from what
//! arrived, without a round trip. In the words of RFC 6363 (FECFRAME) this is an FEC scheme
//! with a systematic code, near that of RFC 6865; a shard is its ADU with information, a
//! block its source block, a parity packet its repair packet.
//!
//! The kernel side sends data packets at once, and gives a copy of each to the [`Encoder`]
//! of its path. A block is up to 32 of them; it closes when it has enough, or after a
//! while. Its parity goes out in packets of their own, by any path. The [`Decoder`] of the
//! other end is shown the data packets and the parity that arrived, in any order, and says
//! what it has recovered. A packet may be recovered and arrive after all: who delivers them
//! knows it by its flow sequence.
//!
//! The bytes of bodies and shards are in `docs/protocol.md` ("Parity"), the code in
//! `code.rs`.
//!
//! A body is [`overhead`] bytes longer than the longest packet of its block, and so does
//! not pass where that packet just does: [`Encoder::set_room`] says what does.
//!
//! Sequences are used once in a session: a new session gets a new [`Decoder`]. What was kept
//! of another sender that counts the same is found out only if what is computed of it is no
//! packet. Whether what is recovered is authentic is for whoever checks bodies and data
//! packets before they come here. Must not know: sockets, clocks, keys, sessions, the kernel
//! side.

mod aging;
mod amount;
mod body;
mod code;
mod decoder;
mod encoder;
mod recover;

pub use amount::CLEAN;
pub use body::{Malformed, overhead};
pub use decoder::{Arrived, Decoder, DecoderStatistics, Limits, Recovered};
pub use encoder::{Amount, Encoder, EncoderStatistics, Packet, Settings};

#[cfg(test)]
mod tests;

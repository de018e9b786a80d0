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
//! **Body of a parity packet**, big-endian, for a block of *k* packets:
//!
//! | at | length | field | |
//! |---|---|---|---|
//! | 0 | 1 | version | 0 |
//! | 1 | 1 | data | *k*, 1 to 32 |
//! | 2 | 1 | parity | *m*: parity packets of the block, 1 to 8 |
//! | 3 | 1 | index | which of them this is, 0 to *m* - 1 |
//! | 4 | 4 | block | number of the block, counted by the sender for each path; wraps |
//! | 8 | 2 | length | of the shard, 30 or more |
//! | 10 | 1 | path | the path of its data packets, 1 to 15 |
//! | 11 | 1 | reserved | 0 |
//! | 12 | 8 | first | sequence of the first data packet on that path, not 0 |
//! | 20 | *k* - 1 | gaps | of each further one: its sequence, less that of the one before; 1 to 255. None is above 2^64 - 1 |
//! | 19 + *k* | length | shard | |
//!
//! The shard of a data packet:
//!
//! | at | length | field | |
//! |---|---|---|---|
//! | 0 | 2 | length | of the packet, 20 or more |
//! | 2 | 1 | inner protocol | 4 or 6 |
//! | 3 | 1 | flags | as in its header |
//! | 4 | 2 | bucket | as in its header |
//! | 6 | 4 | flow sequence | as in its header |
//! | 10 | n | packet | |
//! | 10 + n | | | 0, up to the length of the block's longest shard |
//!
//! Parity shard *j* is, byte by byte over GF(2^8) with the polynomial 0x11d, the value at
//! point *k* + *j* of the polynomial of the least degree whose values at points 0 to
//! *k* - 1 are the data shards, where a point is the field element of that number. Any *k*
//! of the *k* + *m* shards give all others.
//!
//! A body is [`overhead`] bytes longer than the longest packet of its block, and so does
//! not pass where that packet just does: whoever gives packets to an encoder sees to it
//! that their bodies fit.
//!
//! Sequences are used once in a session: a session that is a new one needs
//! [`Decoder::clear`]. What was kept of another sender that counts the same is found out
//! only if what is computed of it is no packet. Whether what is recovered is authentic is
//! for whoever checks bodies and data packets before they come here. Must not know: sockets,
//! clocks, keys, sessions, the kernel side.

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

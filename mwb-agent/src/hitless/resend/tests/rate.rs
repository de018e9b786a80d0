use std::time::Instant;

use super::*;

/// Packets of 1,400 bytes by four paths, acknowledged each 32 of a path after 20 ms, of
/// which 1 % is lost.
#[test]
#[ignore = "a measure: run it in release mode, with --nocapture"]
fn packets_in_a_second() {
    const COUNT: u64 = 1_000_000;
    const BEHIND: u64 = 1_500;
    let mut engine = Resend::new(Settings { memory: 64 << 20, ..GENEROUS });
    let (bytes, mut out, mut again) = ([7; 1_400], Vec::new(), 0);
    let acks: Vec<Vec<Ack>> = (1..=4)
        .map(|path| {
            let is_taken = |sequence: u64| !sequence.is_multiple_of(100);
            (1..=COUNT / 128).map(|block| of(path, block * 32 - 1, is_taken)).collect()
        })
        .collect();
    let mut extra = [0; 5];
    let started = Instant::now();
    for number in 0..COUNT {
        let (path, sequence) = (1 + (number % 4) as u8, 1 + number / 4);
        let now = number * 1_000_000_000 / 300_000;
        engine.sent(path, sequence, (number % 500) as u16, number as u32, 4, &bytes, now);
        if let Some(block) = sequence.checked_sub(BEHIND)
            && block.is_multiple_of(32)
            && let Some(ack) = acks[usize::from(path) - 1].get(block as usize / 32)
        {
            engine.acked(ack, now, &mut out);
            engine.expire(now, &mut out);
        }
        for lost in out.drain(..) {
            again += 1;
            extra[4] += 1;
            let (bucket, number) = (lost.bucket, lost.number);
            engine.sent(5, extra[4], bucket, number, lost.inner, &lost.bytes, now);
        }
    }
    let took = started.elapsed();
    println!("{:.0} packets/s, {again} again", COUNT as f64 / took.as_secs_f64());
    println!("{:?}", engine.statistics());
}

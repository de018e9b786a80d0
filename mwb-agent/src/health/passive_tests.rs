use super::*;
use proptest::prelude::*;

const PERIOD: Duration = Duration::from_millis(100);

/// A WAN whose counters are read each 100 ms.
struct Wan {
    passive: Passive,
    now: Instant,
}

impl Wan {
    fn new() -> Self {
        Self { passive: Passive::default(), now: Instant::now() }
    }

    /// Whether silence began in one of `count` such samples.
    fn samples(&mut self, count: u32, sample: Sample) -> bool {
        let mut begun = false;
        for _ in 0..count {
            self.now += PERIOD;
            begun |= self.passive.take(self.now, sample);
        }
        begun
    }

    fn is_fresh(&self) -> bool {
        self.passive.fresh_until().is_some_and(|until| self.now < until)
    }
}

fn packets(out_packets: u64, back_packets: u64) -> Sample {
    Sample { out_packets, back_packets, ..Sample::default() }
}

const SYN: Sample = Sample { out_packets: 1, back_packets: 0, syns_out: 1, synacks_back: 0 };

#[test]
fn what_comes_back_is_proof_for_300_ms() {
    let mut wan = Wan::new();
    assert!(!wan.is_fresh());
    wan.samples(1, packets(1, 1));
    assert!(wan.is_fresh());
    wan.samples(2, packets(0, 0));
    assert!(wan.is_fresh());
    wan.samples(1, packets(0, 0));
    assert!(!wan.is_fresh());
}

#[test]
fn what_peers_send_again_into_a_cut_is_no_proof() {
    let mut wan = Wan::new();
    wan.samples(20, packets(40, 40));
    assert!(wan.samples(3, packets(5, 5)));
    assert!(!wan.is_fresh());
}

#[test]
fn a_flow_that_is_slower_from_now_on_is_proof_again_within_two_seconds() {
    let mut wan = Wan::new();
    wan.samples(50, packets(1000, 1000));
    wan.samples(20, packets(150, 150));
    assert!(wan.is_fresh());
}

#[test]
fn silence_begins_once_when_nothing_comes_back_to_what_goes_out() {
    let mut wan = Wan::new();
    wan.samples(10, packets(10, 10));
    assert!(!wan.samples(1, packets(10, 0)));
    assert!(wan.samples(1, packets(10, 0)));
    assert!(!wan.samples(50, packets(10, 0)));
    assert!(wan.passive.stalled_at().is_some());
    wan.samples(1, packets(10, 10));
    assert_eq!(wan.passive.stalled_at(), None);
}

#[test]
fn an_idle_wan_is_not_silent() {
    let mut wan = Wan::new();
    wan.samples(10, packets(10, 10));
    assert!(!wan.samples(100, packets(0, 0)));
}

#[test]
fn datagrams_to_nobody_are_no_silence() {
    let mut wan = Wan::new();
    assert!(!wan.samples(600, packets(10, 0)));
    // Nor are they once a probe was answered, until something comes back.
    wan.samples(10, packets(10, 10));
    assert!(wan.samples(5, packets(10, 0)));
    wan.passive.answered();
    assert!(!wan.samples(600, packets(10, 0)));
    wan.samples(1, packets(10, 10));
    assert!(wan.samples(5, packets(10, 0)));
}

#[test]
fn two_syns_are_unanswered_after_300_ms_until_anything_answers() {
    let mut wan = Wan::new();
    wan.samples(1, SYN);
    wan.samples(5, packets(1, 1));
    assert!(!wan.passive.syns_unanswered(wan.now), "one SYN");
    wan.samples(1, SYN);
    assert!(wan.passive.syns_unanswered(wan.now));
    let mut probed = wan.passive.clone();
    probed.answered();
    assert!(!probed.syns_unanswered(wan.now));
    wan.samples(1, Sample { synacks_back: 1, ..packets(0, 1) });
    assert!(!wan.passive.syns_unanswered(wan.now));
}

proptest! {
    /// The rate may vary by a factor of four, and samples may come unevenly.
    #[test]
    fn what_comes_back_steadily_is_always_proof(
        samples in prop::collection::vec((100u64..250, 110u64..400), 10..200),
    ) {
        let mut wan = Wan::new();
        for (period, rate) in samples {
            wan.now += Duration::from_millis(period);
            let back = (rate * period).div_ceil(1000);
            let silent = wan.passive.take(wan.now, packets(back, back));
            prop_assert!(!silent && wan.is_fresh());
        }
    }
}

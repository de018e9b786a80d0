//! Episodes that the fuzzer has found and shrunk, so that they stay mended.

use mwb_agent::dataplane::Hook;

use crate::campaign::{Line as _, Subject as _};
use crate::engine::Engine;
use crate::first_setting;
use crate::network::in_the_world;
use crate::record::Step;

/// What once went wrong, and the steps to it.
const FOUND: [(&str, &str); 2] = [
    // HOST and FRIEND speak by way of the WAN's address; HOST tells of an error,
    // which left for the provider (RFC 5508, REQ-7).
    (
        "an error about a packet that was turned round is turned round too",
        "set 3 3 3 1 1 0 0 2 0 1 1 1 2 1500 65535\n\
         lan 0200000001010200000000090800450000381234400040062a6bc000020acb0071079c5d01bb01020304\
0000000050021000d83d00007369787465656e2062797465732e2e2e\n\
         lan 0200000001010200000000090800450000381234400040063c4cc0000209c63364039c649c5d01020304\
00000000500210003f2b00007369787465656e2062797465732e2e2e\n\
         lan 0200000001010200000000090800450000381234400040063c4bc000020ac63364039c4a9c6401020304\
00000000500210003f3d00007369787465656e2062797465732e2e2e\n\
         lan 020000000101020000070707080045000038000000003c019285c0000209c63364030304bb4600000500\
45000038123440003e063e4cc6336403c00002099c4a9c6401020304\n",
    ),
    // With endpoint-independent filtering somebody reached the port's former
    // owner by the WAN's new address.
    (
        "a port of before a re-dial admits nobody",
        "set 1 3 3 1 1 0 0 2 0 0 0 0 2 1500 65535\n\
         lan 02000000010102000000000908004500003b1234400040112a6cc000020acb0071079c41003500279c05\
3cfac061ae317626559097752946971f9be1c2fa1893a674e0655b66c840d8\n\
         set 3 3 3 2 2 2 1 2 0 0 0 0 2 1500 65535\n\
         wan1 02000001000202000007070708004500003f123440003911c939cb007108c633640400009c41002b4e94\
7fcc4c6eebfc803e272c7a3216060601a9de181deae53e639be05012db1f7df6a756e10000\n",
    ),
];

#[test]
fn episodes_that_once_failed_hold() {
    in_the_world("episodes_that_once_failed_hold", |lan| {
        for form in [Hook::Xdp, Hook::Tcx] {
            let mut engine = Engine::open(form, lan, first_setting()).expect("a data plane");
            for (what, text) in FOUND {
                let steps = Step::read(text).expect("steps");
                let result = engine.replay(&steps);
                assert!(
                    result.as_ref().is_ok_and(|inputs| *inputs > 0),
                    "{what}, {}: {result:?}",
                    form.name()
                );
            }
        }
    });
}

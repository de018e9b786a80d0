//! The kernel side of MultiWANBond.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::{
    bindings::{TC_ACT_OK, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use mwb_common::maps::{Counter, Flow};

fn touch() {
    // Every map must be in the object.
    let _ = maps::DEVICES.get(1);
    let _ = maps::CONTROL.get(0);
    let _ = maps::PATHS.get(1);
    let _ = maps::LIVENESS.get(0);
    let _ = maps::SELECTIONS.get(1);
    let _ = maps::CURSORS.get(1);
    let _ = maps::COUNTERS.get(1).map(|c: &Counter| c.packets);
    let _ = maps::FLOWS4.get_ptr(mwb_common::maps::FlowKey4::default()).map(|p: *const Flow| p);
    let _ = maps::FLOWS6.get_ptr(mwb_common::maps::FlowKey6::default());
    let _ = maps::MAPPINGS.get_ptr(mwb_common::maps::MappingKey::default());
    let _ = maps::PORTS.get_ptr(mwb_common::maps::PortKey::default());
    let _ = maps::PREFIXES4.get(&aya_ebpf::maps::lpm_trie::Key::new(32, [0; 4]));
    let _ = maps::PREFIXES6.get(&aya_ebpf::maps::lpm_trie::Key::new(128, [0; 16]));
}

#[xdp]
pub(crate) fn inside_xdp(_ctx: XdpContext) -> u32 {
    touch();
    xdp_action::XDP_PASS
}
#[xdp]
pub(crate) fn outside_xdp(_ctx: XdpContext) -> u32 {
    touch();
    xdp_action::XDP_PASS
}
#[classifier]
pub(crate) fn inside_tc(_ctx: TcContext) -> i32 {
    touch();
    TC_ACT_OK as i32
}
#[classifier]
pub(crate) fn outside_tc(_ctx: TcContext) -> i32 {
    touch();
    TC_ACT_OK as i32
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

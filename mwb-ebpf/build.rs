//! Linker settings of the kernel side.

fn main() {
    // x86-64 and arm64 load unaligned words in one instruction, and so does the
    // eBPF JIT; without this LLVM assembles header fields byte by byte.
    // alu32 halves the shifts around 32-bit arithmetic.
    println!("cargo::rustc-link-arg-bins=--cpu-features=+alu32,+allows-misaligned-mem-access");
    println!("cargo::rerun-if-changed=build.rs");
}

//! Linker settings of the kernel side.

fn main() {
    // alu32 halves the shifts around 32-bit arithmetic. Unaligned access is left
    // off: LLVM would use it on the stack too, where the verifier refuses it.
    println!("cargo::rustc-link-arg-bins=--cpu-features=+alu32");
    println!("cargo::rerun-if-changed=build.rs");
}

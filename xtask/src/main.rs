//! The developer's front door.
fn main() {}

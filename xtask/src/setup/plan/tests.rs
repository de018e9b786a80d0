use super::super::machine::Tool;
use super::*;

fn toolchain(name: &str, llvm: u32) -> Toolchain {
    Toolchain {
        name: name.to_owned(),
        rustc: (1, 96),
        llvm,
        source: true,
        cargo: true,
        clippy: false,
    }
}

/// A machine with everything but compiler and linker of the kernel side.
fn bare() -> Machine {
    Machine { root: true, rustup: true, apt: true, bpffs: true, ..Machine::default() }
}

fn linker(llvm: u32) -> Option<Linker> {
    Some(Linker { version: (0, 13), llvm: Some(llvm) })
}

const NOTHING: &dyn Fn(&str) -> bool = &|_| false;
const DEBIAN: &dyn Fn(&str) -> bool =
    &|name| DEBIAN_RUST.contains(&name) || name == "llvm-22-dev" || name == "llvm-16-dev";

#[test]
fn a_machine_with_everything_needs_nothing() {
    let machine =
        Machine { toolchains: vec![toolchain("mwb-ebpf", 22)], linker: linker(22), ..bare() };
    let Next::Ready(choice) = next(&machine, NOTHING, &[]) else {
        panic!("something was missing");
    };
    assert_eq!(choice.toolchain.name, "mwb-ebpf");
}

#[test]
fn a_nightly_without_rust_src_is_not_taken() {
    let nightly = Toolchain { source: false, ..toolchain("nightly-x86_64-unknown-linux-gnu", 22) };
    let machine = Machine { toolchains: vec![nightly], linker: linker(22), ..bare() };
    assert!(!matches!(next(&machine, DEBIAN, &[]), Next::Ready(_)));
    assert!(refusals(&machine)[0].contains("rust-src"));
}

#[test]
fn a_compiler_of_a_newer_llvm_than_the_linkers_is_passed_over() {
    let newer = toolchain("nightly-x86_64-unknown-linux-gnu", 23);
    let machine = Machine {
        toolchains: vec![newer.clone(), toolchain("mwb-ebpf", 22)],
        wanted: Some("nightly".to_owned()),
        linker: linker(22),
        ..bare()
    };
    let Next::Ready(choice) = next(&machine, NOTHING, &[]) else {
        panic!("something was missing");
    };
    assert_eq!(choice.toolchain.name, "mwb-ebpf");
    assert!(refusals(&machine)[0].contains("LLVM 23"));
    let newer_linker = Machine { linker: linker(23), ..machine };
    let Next::Ready(choice) = next(&newer_linker, NOTHING, &[]) else {
        panic!("something was missing");
    };
    assert_eq!(choice.toolchain, newer, "the one that the user named comes first");
}

/// Walks the steps of a machine that `world` changes, to the end.
fn walk(
    mut machine: Machine,
    offers: &dyn Fn(&str) -> bool,
    mut world: impl FnMut(&mut Machine, &Step),
) -> (Vec<Step>, Next) {
    let mut done = Vec::new();
    loop {
        match next(&machine, offers, &done) {
            Next::Do(step) => {
                assert!(!done.contains(&step), "{step:?} twice");
                world(&mut machine, &step);
                done.push(step);
            }
            end => return (done, end),
        }
    }
}

fn obedient(machine: &mut Machine, step: &Step) {
    match step {
        Step::Apt(packages) => {
            for package in packages {
                match package.as_str() {
                    "rustc-web" => machine.system = Some(toolchain("/usr/bin/rustc", 22)),
                    "llvm-22-dev" => machine.llvm_dev.push(22),
                    other => machine.missing_tools.retain(|tool| tool.package != other),
                }
            }
        }
        Step::Link => machine.toolchains.extend(
            machine
                .system
                .clone()
                .map(|system| Toolchain { name: DEFAULT_TOOLCHAIN.to_owned(), ..system }),
        ),
        Step::Nightly => machine.toolchains.push(toolchain(NIGHTLY, 22)),
        Step::Linker(llvm) => machine.linker = linker(*llvm),
        Step::MountBpffs => machine.bpffs = true,
        Step::Components(_) => machine.missing_components.clear(),
        Step::AptUpdate => {}
    }
}

#[test]
fn a_fresh_machine_gets_the_dated_nightly_and_a_linker_of_its_llvm() {
    let fresh = Machine {
        bpffs: false,
        missing_tools: vec![Tool { binary: "nft", package: "nftables" }],
        missing_components: vec!["clippy"],
        ..bare()
    };
    let (steps, end) = walk(fresh, DEBIAN, obedient);
    assert_eq!(
        steps,
        [
            Step::Components(vec!["clippy".to_owned()]),
            Step::AptUpdate,
            Step::Apt(vec!["nftables".to_owned()]),
            Step::MountBpffs,
            Step::Nightly,
            Step::Apt(vec!["llvm-22-dev".to_owned()]),
            Step::Linker(22),
        ]
    );
    assert!(matches!(end, Next::Ready(choice) if choice.toolchain.name == NIGHTLY));
}

#[test]
fn where_rustup_can_fetch_nothing_debians_compiler_is_linked() {
    let (steps, end) = walk(bare(), DEBIAN, |machine, step| {
        if *step != Step::Nightly {
            obedient(machine, step);
        }
    });
    assert_eq!(
        steps,
        [
            Step::AptUpdate,
            Step::Nightly,
            Step::Apt(DEBIAN_RUST.map(str::to_owned).to_vec()),
            Step::Link,
            Step::Apt(vec!["llvm-22-dev".to_owned()]),
            Step::Linker(22),
        ]
    );
    assert!(matches!(end, Next::Ready(choice) if choice.toolchain.name == DEFAULT_TOOLCHAIN));
}

#[test]
fn a_linker_that_is_too_old_is_built_anew() {
    let machine = Machine {
        toolchains: vec![toolchain("mwb-ebpf", 22)],
        linker: Some(Linker { version: (0, 9), llvm: Some(22) }),
        llvm_dev: vec![22],
        ..bare()
    };
    assert_eq!(next(&machine, NOTHING, &[]), Next::Do(Step::Linker(22)));
}

#[test]
fn without_network_the_way_out_is_told() {
    let (steps, end) = walk(bare(), NOTHING, |_, _| {});
    assert_eq!(steps, [Step::AptUpdate, Step::Nightly]);
    let Next::Stuck(text) = end else { panic!("not stuck") };
    assert!(text.contains(NIGHTLY) && text.contains("rustc-web"), "{text}");
}

#[test]
fn without_apt_or_root_the_command_is_told_instead() {
    let missing = vec![Tool { binary: "nft", package: "nftables" }];
    for (apt, root, word) in [(false, true, "no apt-get"), (true, false, "sudo apt-get install")] {
        let machine = Machine { apt, root, missing_tools: missing.clone(), ..bare() };
        let Next::Stuck(text) = next(&machine, DEBIAN, &[]) else { panic!("not stuck") };
        assert!(text.contains(word) && text.contains("nftables"), "{text}");
    }
}

#[test]
fn without_rustup_nothing_is_tried() {
    let machine = Machine { rustup: false, ..bare() };
    assert!(matches!(next(&machine, DEBIAN, &[]), Next::Stuck(text) if text.contains("rustup.rs")));
}

#[test]
fn a_step_that_changed_nothing_is_not_repeated() {
    let machine =
        Machine { toolchains: vec![toolchain("mwb-ebpf", 22)], llvm_dev: vec![22], ..bare() };
    let end = next(&machine, NOTHING, &[Step::Linker(22)]);
    assert!(matches!(end, Next::Stuck(text) if text.contains("bpf-linker")));
}

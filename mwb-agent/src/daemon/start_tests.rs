use super::*;

fn config(extra: &str) -> Config {
    let text =
        format!("version: 1\nmode: steer\nlan: [lan0]\nwans: [{{name: a, device: wan0}}]\n{extra}");
    config::parse(&text, "f").unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn settings_of_the_file_reach_the_data_plane_in_its_words() {
    let entry = control_entry(&config(""), 7);
    let default =
        ControlEntry { port_min: 10_000, port_max: 65_535, seed: 7, ..Default::default() };
    assert_eq!(entry, default);
    assert_eq!(entry.filtering, filtering::ADDRESS_AND_PORT);
    let words = [
        ("address_dependent", filtering::ADDRESS),
        ("endpoint_independent", filtering::ENDPOINT_INDEPENDENT),
        ("address_and_port_dependent", filtering::ADDRESS_AND_PORT),
    ];
    for (word, number) in words {
        let extra = format!("nat: {{filtering: {word}, mappings_per_source: 500}}\n");
        let entry = control_entry(&config(&extra), 7);
        assert_eq!((entry.filtering, entry.source_limit), (number, 500), "{word}");
    }
}

use super::*;

struct Broken;

impl Reader for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    #[allow(clippy::panic)]
    fn read(&mut self) -> Vec<Limit> {
        panic!("on purpose");
    }
}

struct Half;

impl Reader for Half {
    fn name(&self) -> &'static str {
        "half"
    }

    fn read(&mut self) -> Vec<Limit> {
        let refused = Limit::unknown(&bridge::ABOUT, "a", "no right");
        let failed = Limit { failed: true, ..Limit::unknown(&bridge::ABOUT, "b", "EIO") };
        vec![refused, failed]
    }
}

#[test]
fn fault_30_a_reader_that_panics_is_a_failure_and_costs_no_other_its_numbers() {
    let mut state = NodeState::default();
    let mut readers: Vec<Box<dyn Reader>> = vec![Box::new(Broken), Box::new(Half)];
    let failed = ask_all(&mut readers, &mut state);
    let said = "broken: reading it panicked: this is a bug; bridge_ports b: EIO";
    assert_eq!(failed.as_deref(), Some(said));
    let counts: Vec<_> = state.limits.values().map(Vec::len).collect();
    assert_eq!(counts, [0, 2]);
}

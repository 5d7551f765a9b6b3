//! Tests of the specs: the ready-made ones, what is refused, and what is worked out of them.

use super::*;

const LEAST: &str = "name = 'x'\n[[workload]]\nname = 'w'\n[[workload.step]]\nname = 's'\nload = 'produce'\n";

fn refusal(text: &str) -> String {
    let error = Spec::parse(text, "file").unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn ready_made_ones_are_sound() {
    for (name, _) in READY_MADE {
        let spec = Spec::find(name).unwrap();
        assert_eq!(spec.name, name);
        assert!(!spec.about.is_empty());
        assert_eq!(spec.brokers, ["ringlog", "kafka"]);
        for workload in &spec.workload {
            for broker in &spec.brokers {
                Broker::ready_made(broker).unwrap().topic_configs(&workload.mode).unwrap();
            }
            let is_load = !["start-stop", "groups"].contains(&name);
            assert!(workload.bytes_written() > 0 || !is_load, "{name}: {}", workload.name);
        }
    }
}

#[test]
fn what_is_verified_is_a_little_of_the_same_load() {
    let text = LEAST.replace(
        "name = 'w'",
        "name = 'w'\noptions = { record_bytes = 10, partitions = 5000, rate = '5k', linger = '1ms', acks = 1, duration = '1h' }",
    );
    let workload = &Spec::parse(&text, "file").unwrap().workload[0];
    let step = workload.verify_step().unwrap();
    let expected = ["--acks=1", "--bytes=33554432", "--partitions=100", "--record-bytes=64", "--verify"];
    // The step's own options stand over the workload's, as every step's do.
    let bare = Workload { options: toml::Table::new(), ..workload.clone() };
    assert_eq!(arguments(&bare.options_of(&step)).unwrap(), expected);
    for left_out in ["acks = 0", "acks = 'all' }\nverify = false #"] {
        let text = text.replace("acks = 1", left_out);
        assert!(Spec::parse(&text, "file").unwrap().workload[0].verify_step().is_none(), "{left_out}");
    }
}

#[test]
fn the_least_is_enough() {
    let spec = Spec::parse(LEAST, "file").unwrap();
    assert_eq!((spec.rounds, spec.brokers), (3, both()));
    assert_eq!(spec.workload[0].mode, "durable");
}

#[test]
fn sweeps_become_workloads_the_last_one_fastest() {
    let text = LEAST.replace("name = 'w'", "name = '{batch_records} by {producers}'\noptions = { producers = 9, acks = 'all' }")
        + "[[workload.sweep]]\noption = 'batch_records'\nvalues = [1, '10']\n\
           [[workload.sweep]]\noption = 'producers'\nvalues = [1, 64]\n";
    let spec = Spec::parse(&text, "file").unwrap();
    let names: Vec<_> = spec.workload.iter().map(|workload| workload.name.as_str()).collect();
    assert_eq!(names, ["1 by 1", "1 by 64", "10 by 1", "10 by 64"]);
    let last = &spec.workload[3];
    assert_eq!(arguments(&last.options_of(&last.step[0])).unwrap(), ["--acks=all", "--batch-records=10", "--producers=64"]);
    let mut without = last.step[0].clone();
    without.options.insert("producers".to_owned(), toml::Value::Boolean(false));
    assert_eq!(arguments(&last.options_of(&without)).unwrap(), ["--acks=all", "--batch-records=10"]);
}

#[test]
fn nonsense_is_refused_with_its_place() {
    assert!(refusal("name = 'x'\nworkload = []").contains("no workload"));
    assert!(refusal(&format!("rounds = 0\n{LEAST}")).contains("rounds"));
    assert!(refusal(&format!("rouds = 1\n{LEAST}")).contains("unknown field `rouds`"));
    assert!(refusal(&format!("brokers = []\n{LEAST}")).contains("at least one"));
    assert!(refusal(&format!("brokers = ['a', 'a']\n{LEAST}")).contains("none twice"));
    assert!(refusal(&format!("{LEAST}[setting.rabbit]\na = 'b'\n")).contains("no broker \"rabbit\""));
    assert!(refusal(&LEAST.replace("load = 'produce'", "")).contains("one of load, start_stop, groups and restart"));
    assert!(refusal(&LEAST.replace("'produce'", "'juggle'")).contains("unknown variant"));
    assert!(refusal(&format!("{LEAST}options = {{ bytes = 'many' }}")).contains("step \"s\": bytes: \"many\" is not a number"));
    assert!(refusal(&format!("{LEAST}options = {{ fan_out = true }}")).contains("fan_out is no option of load produce"));
    let groups = |rest: &str| refusal(&LEAST.replace("load = 'produce'", &format!("groups = {rest}")));
    assert!(groups("'sing'").contains("unknown variant"));
    assert!(groups("'measure'\noptions = { acks = 1 }").contains("step \"s\": \"acks\" is no option of groups"));
    // They would go nowhere: the step's own are the only ones that it takes.
    let no_load = groups("'measure'\n[workload.options]\nmembers = 5");
    assert!(no_load.contains("workload \"w\": its options are for steps of load, and it has none: members"), "{no_load}");
    let swept = LEAST.replace("'w'", "'{members}'").replace("load = 'produce'", "groups = 'measure'");
    let swept = refusal(&format!("{swept}[[workload.sweep]]\noption = 'members'\nvalues = [5]"));
    assert!(swept.contains("workload \"5\": its options are for steps of load"), "{swept}");
    let start_stop = refusal(&LEAST.replace("load = 'produce'", "start_stop = {}\n[workload.options]\nacks = 1"));
    assert!(start_stop.contains("steps of load, and it has none: acks"), "{start_stop}");
    assert!(groups("'measure'\nload = 'produce'").contains("one of load, start_stop, groups and restart"));
    assert!(refusal(&format!("{LEAST}[[workload.step]]\nname = 's'\nload = 'consume'")).contains("two steps"));
    assert!(refusal(&format!("{LEAST}prepares = true")).contains("prepares for nothing"));
    assert!(refusal(&format!("{LEAST}beside = 'send'")).contains("beside consumers alone"));
    let options = "options = { rate = '1k', batch_records = 2, record_bytes = '1KiB' }\nbeside = 'sync'";
    let load = Spec::parse(&format!("{LEAST}{options}"), "file").unwrap().workload[0].clone();
    let load = load.paced_load_of(&load.step[0]).unwrap();
    assert_eq!((load.rate, load.batch_records, load.record_bytes), (1000, 2, 1024));
    let paced = refusal(&format!("{LEAST}beside = 'sync'"));
    assert!(paced.contains("beside") && paced.contains("rate"), "{paced}");
    assert!(refusal(&format!("{LEAST}restart = {{}}")).contains("one of load, start_stop, groups and restart"));
    let across = |rest: &str| refusal(&format!("{LEAST}[[across]]\nof = 'w'\nto = 'w'\n{rest}"));
    assert!(across("step = 's'\nmetric = 'joy'").contains("across: there is no metric"));
    assert!(across("step = 't'\nmetric = 'cpu_s_per_gb'").contains("ends with \"w\" and that has a step \"t\""));
    assert!(refusal(&format!("{LEAST}[[workload.sweep]]\noption = 'rate'\nvalues = [1]")).contains("needs {rate}"));
    let published = "[[workload.published]]\nmetric = 'mb_per_s'\nvalue = 1\nsource = 'x'\n";
    assert!(refusal(&format!("{LEAST}{published}step = 't'\n")).contains("no step \"t\""));
    assert!(refusal(&format!("{LEAST}{}step = 's'\n", published.replace("mb_per_s", "joy"))).contains("no metric"));
    assert!(Spec::find("nowhere").unwrap_err().to_string().contains("throughput, latency"));
}

#[test]
fn a_step_takes_what_its_action_has() {
    let text = LEAST
        .replace("name = 'w'", "name = 'w'\noptions = { bytes = '1GB', batch_bytes = '16KiB', consumers = 2, partitions = 3 }")
        + "options = { records = 5, batch_records = 1 }\n[[workload.step]]\nname = 't'\nload = 'consume'\n\
           [[workload.step]]\nname = 'u'\nload = 'mixed'\n";
    let workload = Spec::parse(&text, "file").unwrap().workload.remove(0);
    let of = |step: usize| arguments(&workload.options_of(&workload.step[step])).unwrap();
    assert_eq!(of(0), ["--batch-records=1", "--partitions=3", "--records=5"]);
    assert_eq!(of(1), ["--consumers=2", "--partitions=3"]);
    assert_eq!(of(2), ["--batch-bytes=16KiB", "--bytes=1GB", "--consumers=2", "--partitions=3"]);
}

#[test]
fn sixteen_gigabytes_of_throughput_need_little_more_than_what_is_written() {
    let mut spec = Spec::find("throughput").unwrap();
    for workload in &mut spec.workload {
        workload.resize(16_000_000_000);
        // Produced, produced anew with a consumer that reads along; and little before.
        let bytes = workload.bytes_written();
        assert!((32_500_000_000..=40_000_000_000).contains(&bytes), "{}: {bytes}", workload.name);
    }
}

#[test]
fn sizes_are_replaced_and_added_up() {
    let text = LEAST.to_owned() + "options = { records = 1000, record_bytes = 100 }\n";
    let mut workload = Spec::parse(&text, "file").unwrap().workload.remove(0);
    assert_eq!(workload.bytes_written(), 100_000 + 1000 * RECORD_OVERHEAD_BYTES);
    workload.resize(5_000_000);
    assert_eq!(workload.bytes_written(), 5_000_000 + 50_000 * RECORD_OVERHEAD_BYTES);
    assert_eq!(arguments(&workload.step[0].options).unwrap(), ["--bytes=5000000", "--record-bytes=100"]);
    let text = LEAST.to_owned() + "options = { rate = '20k', duration = '30s' }\n";
    let mut workload = Spec::parse(&text, "file").unwrap().workload.remove(0);
    workload.resize(5);
    assert_eq!(workload.bytes_written(), 600_000 * (1000 + RECORD_OVERHEAD_BYTES));
    workload.retime(Duration::from_secs(1));
    assert_eq!(workload.bytes_written(), 20_000 * (1000 + RECORD_OVERHEAD_BYTES));
}

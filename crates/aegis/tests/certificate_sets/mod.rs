//! Workloads with certificates: by name, one for each thing that a certificate can say, and at random.

use aegis::Pipeline;
use aegis_verify::Certificate;

/// The text of the certificate of a workload, or why there is none.
pub(crate) fn certified(workload: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pipeline.toml");
    std::fs::write(&path, workload).expect("a file");
    let pipeline = Pipeline::open(&path).unwrap_or_else(|error| panic!("{error}\n{workload}"));
    let (runtime, verdicts) = pipeline.check().expect("a decision");
    let chains = pipeline.chains(&runtime, &verdicts);
    pipeline.certify(&runtime, &verdicts, &chains).map_err(|error| with_causes(&error))
}

/// An error with all its causes.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A certificate whose text is known to be one.
pub(crate) fn parsed(text: &str) -> Certificate {
    let (certificate, intact) = aegis_verify::read(text.as_bytes()).expect("our own text");
    intact.expect("our own seal");
    certificate
}

fn head(policy: &str, more: &str) -> String {
    format!(
        "[device]\ndriver = \"sim\"\nmemory = \"64MiB\"\nstreams = 3\n\
         [scheduler]\npolicy = \"{policy}\"\nqueue_depth = 8\n{more}\n\
         [overheads]\ndispatch = \"90us\"\nwake = \"300us\"\nboundary = \"20us\"\ncopy = \"10us\"\n"
    )
}

/// A model of these stages in microseconds.
fn model(name: &str, period: u64, stages: &[u64], more: &str) -> String {
    let stages: Vec<String> = stages.iter().map(|stage| format!("\"{stage}us\"")).collect();
    format!(
        "[[model]]\nname = \"{name}\"\nbackend = \"sim\"\nperiod = \"{period}us\"\n{more}\n\
         sim = {{ stages = [{}], persistent = \"3MiB\", scratch = \"2MiB\", carried = \"1MiB\" }}\n",
        stages.join(", ")
    )
}

/// The same with a stage on the device behind the running one.
pub(crate) fn ahead(workload: &str) -> String {
    let looks = workload.replacen("queue_depth = 8\n", "queue_depth = 8\nlook_ahead = true\n", 1);
    assert_ne!(looks, workload, "it has a scheduler");
    looks
}

/// All that has a name, with look-ahead.
pub(crate) fn named_ahead() -> Vec<(String, String)> {
    let of = |(name, workload): (String, String)| (format!("{name}, ahead"), ahead(&workload));
    named().into_iter().map(of).collect()
}

/// One workload for each thing that a certificate can say.
pub(crate) fn named() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for policy in ["fifo", "rms", "dm", "edf", "priority"] {
        let camera = model("camera", 10_000, &[1_700], "priority = 1\njitter = \"700us\"");
        let staged = model("segmenter", 40_000, &[2_100, 1_300, 900], "priority = 5");
        let late = model("planner", 25_000, &[3_100], "priority = 5\ndeadline = \"47ms\"");
        let heavy = model("lidar", 100_000, &[30_000], "priority = 9");
        let admitted = format!("{}{camera}{staged}{late}", head(policy, ""));
        all.push((format!("{policy}, yes"), admitted.clone()));
        all.push((format!("{policy}, late"), format!("{admitted}{heavy}")));
        let greedy = model("greedy", 5_000, &[4_700], "priority = 2");
        all.push((format!("{policy}, too much"), format!("{admitted}{greedy}")));
        let alone = model("alone", 50_000, &[4_700], "priority = 2\ndeadline = \"4ms\"");
        all.push((format!("{policy}, alone"), format!("{admitted}{alone}")));
    }
    all.extend(best_effort());
    all.extend(of_memory());
    all.extend(of_chains());
    all.extend(of_broken_chains());
    all.extend(without_an_answer());
    all.extend(split());
    all
}

fn best_effort() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for policy in ["edf", "rms", "priority", "fifo"] {
        let camera = model("camera", 10_000, &[1_700], "priority = 1");
        let map = model("map", 20_000, &[800, 1_100], "best_effort = true");
        let long = model("long", 20_000, &[9_000], "best_effort = true");
        let server =
            "best_effort = true\nserver = { budget = \"3ms\", period = \"30ms\", priority = 7 }";
        let served = model("served", 9_000, &[700, 900, 800], server);
        let whole = model("whole", 9_000, &[1_500, 900], &format!("{server}\nsuspend = false"));
        let fits = format!("{}{camera}{map}{served}", head(policy, ""));
        all.push((format!("{policy}, best effort"), format!("{fits}{long}")));
        let whole = format!(
            "{}{camera}{whole}{}",
            head(policy, ""),
            whole.replace("1500us", "9000us").replace("whole", "piece")
        );
        all.push((format!("{policy}, servers"), whole));
    }
    all
}

fn of_memory() -> Vec<(String, String)> {
    let camera = model("camera", 10_000, &[1_700], "");
    let large = model("large", 100_000, &[700], "").replace("3MiB", "57MiB");
    let tight = model("tight", 100_000, &[700], "budget = { memory = \"5MiB\", streams = 2 }");
    let dear = model("dear", 100_000, &[7_000], "budget = { compute = \"7ms\" }");
    let kept =
        model("kept", 90_000, &[700, 600], "suspend = false\nbudget = { compute = \"2ms\" }");
    let small = model("small", 80_000, &[500], "").replace("2MiB", "5MiB");
    let limited = head("edf", "max_suspended = 1");
    let staged = model("staged", 90_000, &[700, 600], "");
    vec![
        ("memory, too large".into(), format!("{}{camera}{small}{large}", head("edf", ""))),
        ("memory, a budget".into(), format!("{}{camera}{tight}{small}", head("rms", ""))),
        ("compute, a budget".into(), format!("{}{camera}{dear}", head("edf", ""))),
        ("never suspended".into(), format!("{}{camera}{kept}{small}", head("dm", ""))),
        ("suspended".into(), format!("{limited}{camera}{staged}{kept}")),
    ]
}

fn of_chains() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for policy in ["edf", "rms", "fifo"] {
        let set = |more: &str| {
            format!(
                "{}{}{}{}{}",
                head(policy, ""),
                model("camera", 30_000, &[1_700], "jitter = \"300us\""),
                model("detector", 30_000, &[2_900, 1_000], ""),
                model("tracker", 30_000, &[900], "jitter = \"400us\""),
                model("other", 50_000, &[1_100, 900], more),
            )
        };
        let chain = |kind: &str, more: &str| {
            format!(
                "[[chain]]\nname = \"{kind}\"\nmodels = [\"camera\", \"detector\", \"tracker\"]\n\
                 kind = \"{kind}\"\n{more}\n"
            )
        };
        let triggered = chain("triggered", "deadline = \"29ms\"");
        let sampled = chain("sampled", "deadline = \"200ms\"\nmax_age = \"190ms\"");
        all.push((format!("{policy}, triggered"), format!("{}{triggered}", set(""))));
        all.push((
            format!("{policy}, whole beside a chain"),
            format!("{}{triggered}", set("suspend = false")),
        ));
        all.push((format!("{policy}, sampled"), format!("{}{sampled}", set(""))));
        let old = chain("sampled", "deadline = \"80ms\"\nmax_age = \"40ms\"");
        all.push((format!("{policy}, too old"), format!("{}{old}", set(""))));
    }
    all
}

/// Models that are refused because a chain is late, in it and beside it.
fn of_broken_chains() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for policy in ["edf", "rms", "fifo"] {
        let chain = "[[chain]]\nname = \"c\"\nmodels = [\"camera\", \"detector\", \"tracker\"]\n\
                     kind = \"triggered\"\n";
        let set = |detector: u64, tracker: u64, more: &str| {
            format!(
                "{}{}{}{}{more}{}{chain}",
                head(policy, ""),
                model("camera", 30_000, &[1_700], "jitter = \"300us\""),
                model("detector", 30_000, &[detector], ""),
                model("tracker", 30_000, &[tracker], "jitter = \"400us\""),
                model("last", 60_000, &[1_000], ""),
            )
        };
        let heavy = model("heavy", 60_000, &[8_000], "");
        all.push((format!("{policy}, beside a late chain"), set(4_000, 3_000, &heavy)));
        all.push((format!("{policy}, a late member"), set(6_000, 19_000, "")));
        let long = model("long", 120_000, &[15_000], "").replace("3MiB", "57MiB");
        all.push((format!("{policy}, a refused trigger"), set(29_000, 3_000, &long)));
    }
    all
}

/// Models that are refused because nobody looks so far, or because memory is short.
fn without_an_answer() -> Vec<(String, String)> {
    let bare = |policy: &str| {
        head(policy, "").replace("90us", "0us").replace("20us", "0us").replace("10us", "0us")
    };
    let mut all = Vec::new();
    for policy in ["edf", "rms", "fifo"] {
        // Thirds of periods without a common multiple, with a jitter: the device is never idle.
        let third = |name: &str, cost: u64, more: &str| {
            let shown = model(name, 1, &[1], more);
            let shown = shown.replace("period = \"1us\"", &format!("period = \"{}ns\"", 3 * cost));
            shown.replace("\"1us\"", &format!("\"{cost}ns\""))
        };
        let set = format!(
            "{}{}{}{}",
            bare(policy),
            third("one", 3_000_017, "jitter = \"1us\"\ndeadline = \"1s\""),
            third("two", 3_000_047, "deadline = \"1s\""),
            third("three", 3_000_061, "deadline = \"1s\""),
        );
        all.push((format!("{policy}, never idle"), set));
    }
    let pressure = "[device.pressure]\nlow_enter = \"52MiB\"\nlow_leave = \"56MiB\"\n\
                    critical_enter = \"8MiB\"\ncritical_leave = \"16MiB\"\n[scheduler]";
    let short = format!(
        "{}{}{}{}{}",
        head("edf", "").replacen("[scheduler]", pressure, 1),
        model("first", 10_000, &[1_700], ""),
        model("second", 20_000, &[700, 600], ""),
        model("third", 40_000, &[900], ""),
        model("fourth", 80_000, &[1_900], ""),
    );
    all.push(("memory, short".into(), short));
    all
}

fn split() -> Vec<(String, String)> {
    let partitions =
        "[[partition]]\nname = \"vision\"\n[[partition]]\nname = \"control\"\npolicy = \"fifo\"\n";
    let of = |partition: &str| format!("partition = \"{partition}\"");
    let set = format!(
        "{}{partitions}{}{}{}{}{}",
        head("edf", ""),
        model("camera", 10_000, &[1_700], &of("vision")),
        model("wheel", 5_000, &[400], &format!("{}\njitter = \"100us\"", of("control"))),
        model("lidar", 40_000, &[5_000, 4_000], &of("vision")),
        model("map", 40_000, &[900], &format!("{}\nbest_effort = true", of("control"))),
        model("slow", 100_000, &[30_000], &of("vision")),
    );
    vec![("partitions".into(), set)]
}

/// Numbers that are the same on every machine.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).expect("a few")]
    }
}

/// Any workload of simulated models.
pub(crate) fn random(dice: &mut Dice) -> String {
    let policy = dice.of(&["fifo", "rms", "dm", "edf", "priority"]);
    let mut text = format!(
        "[device]\ndriver = \"sim\"\nmemory = \"{}MiB\"\nstreams = {}\n\
         [scheduler]\npolicy = \"{policy}\"\nqueue_depth = 8\n\
         [overheads]\ndispatch = \"{}us\"\nwake = \"{}us\"\nboundary = \"{}us\"\ncopy = \"{}us\"\n",
        24 + dice.below(40),
        1 + dice.below(3),
        dice.below(150),
        dice.of(&[0, 300, 1_000]),
        dice.of(&[0, 30]),
        dice.of(&[0, 15]),
    );
    let (models, chain) = (2 + dice.below(6), dice.one_in(3));
    let split = dice.one_in(4) && models > 3;
    if split {
        text += "[[partition]]\nname = \"a\"\n[[partition]]\nname = \"b\"\n";
    }
    let common = dice.of(&[20, 30, 50]);
    for index in 0..models {
        let period =
            if chain && index < 3 { common } else { dice.of(&[5, 8, 10, 20, 25, 50, 100]) };
        let in_chain = chain && index < 3;
        text += &random_model(dice, index, period, split, in_chain);
    }
    if chain && models >= 3 {
        let kind = dice.of(&["sampled", "triggered"]);
        let limit = 20 + dice.below(150);
        text += &format!(
            "[[chain]]\nname = \"c\"\nmodels = [\"m0\", \"m1\", \"m2\"]\nkind = \"{kind}\"\n\
             deadline = \"{limit}ms\"\n"
        );
    }
    if dice.one_in(2) { ahead(&text) } else { text }
}

fn random_model(dice: &mut Dice, index: u64, period: u64, split: bool, in_chain: bool) -> String {
    let stages = dice.of(&[1, 1, 2, 3]);
    let most = period * 1_000 / (3 * stages);
    let costs: Vec<String> =
        (0..stages).map(|_| format!("\"{}us\"", 1 + dice.below(most))).collect();
    let mut more = format!("priority = {}\n", dice.below(5));
    if split {
        let second = index == 3 || (index % 2 == 1 && !in_chain);
        more += if second { "partition = \"b\"\n" } else { "partition = \"a\"\n" };
    }
    let best_effort = !in_chain && dice.one_in(5);
    if best_effort {
        more = more.replace(&format!("priority = {}\n", more.as_bytes()[11] - b'0'), "");
        more += "best_effort = true\n";
        if dice.one_in(2) {
            let budget = 1 + dice.below(period * 500);
            more += &format!(
                "server = {{ budget = \"{budget}us\", period = \"{period}ms\", priority = {} }}\n",
                dice.below(5)
            );
        }
    } else {
        if dice.one_in(3) && !in_chain {
            more += &format!("deadline = \"{}us\"\n", period * 400 + dice.below(period * 1_200));
        }
        if dice.one_in(4) {
            more += &format!("jitter = \"{}us\"\n", dice.below(period * 200));
        }
    }
    if dice.one_in(5) {
        more += "suspend = false\n";
    }
    if dice.one_in(6) {
        more += &format!("budget = {{ memory = \"{}MiB\" }}\n", 4 + dice.below(12));
    }
    format!(
        "[[model]]\nname = \"m{index}\"\nbackend = \"sim\"\nperiod = \"{period}ms\"\n{more}\
         sim = {{ stages = [{}], persistent = \"{}KiB\", scratch = \"{}KiB\", carried = \"{}KiB\" }}\n",
        costs.join(", "),
        1 + dice.below(9_000),
        dice.below(4_000),
        dice.below(2_000),
    )
}

//! The tests that need a GPU, as one program that runs on the target machine without cargo.
//!
//! ```text
//! aegis-gpu-tests                   all tests; without a GPU each is skipped aloud
//! aegis-gpu-tests --require-gpu     the same, but no GPU is a failure
//! aegis-gpu-tests graph partition   the tests whose names contain one of the words
//! aegis-gpu-tests --list            their names
//! ```
//!
//! Each test opens the device anew. A test that loses the device runs in a process of its own,
//! since the loss is for the whole process; so does one that hangs where it fails.
//!
//! # Invariants
//! 1. A test passes, fails or is skipped with its reason; the last line counts all three.
//! 2. The exit code is 0 only if nothing failed, and with `--require-gpu` only if nothing was
//!    skipped; a word that is in no name ends it with 2 before anything is run.
#![forbid(unsafe_code)]

mod again;
mod ahead;
mod bench;
mod blocking;
mod completion;
mod conformance;
mod device;
mod fault;
mod graph;
mod memory;
mod onnx;
mod partition;
mod stream;
#[cfg(feature = "trt")]
mod trt;
#[cfg(feature = "tvm")]
mod tvm;
mod uploads;

use std::io::Write as _;
use std::process::ExitCode;

use crate::bench::{Bench, NotRun, Outcome};

/// One test: its name says what holds when it passes; the text it returns is what it measured.
struct Test {
    name: &'static str,
    run: fn(&Bench) -> Outcome,
}

const TESTS: &[Test] = &[
    Test { name: "device_says_what_it_is", run: device::says_what_it_is },
    Test { name: "device_refuses_an_ordinal_that_is_not_there", run: device::refuses_an_ordinal },
    Test { name: "memory_limit_holds_to_the_byte", run: memory::limit_holds },
    Test { name: "memory_is_zeroed_and_copies_arrive", run: memory::copies_arrive },
    Test { name: "memory_by_the_drivers_count_follows_the_ledger", run: memory::count_follows },
    Test { name: "stream_keeps_its_order", run: stream::keeps_order },
    Test { name: "stream_elapsed_is_the_devices_own", run: stream::elapsed },
    Test { name: "stream_full_is_an_answer", run: stream::full },
    Test { name: "stream_synchronize_ends_what_no_event_follows", run: stream::synchronised },
    Test { name: "stream_dropped_early_does_not_block", run: stream::dropped_early },
    Test { name: "stream_priority_goes_first", run: stream::priority },
    Test { name: "stream_event_recorded_again_tells_the_last", run: stream::recorded_again },
    Test { name: "wait_ends_at_its_time_and_at_a_ring", run: completion::wait_ends },
    Test { name: "completion_is_seen_soon_in_every_way", run: completion::latency },
    Test { name: "dispatch_costs_little", run: completion::dispatch_cost },
    Test { name: "graph_captures_launches_and_updates", run: graph::captures },
    Test { name: "graph_capture_that_fails_leaves_nothing", run: graph::failed_capture },
    Test { name: "graph_of_a_stage_records_and_copies_for_each_job", run: graph::stage },
    Test { name: "ahead_a_second_stage_is_lent_the_same_stream", run: ahead::lent },
    Test { name: "ahead_closes_the_gap_between_stages", run: ahead::gap },
    Test { name: "uploads_ahead_are_hidden_behind_the_stage_before", run: uploads::overlap },
    Test { name: "uploads_ahead_are_asked_of_the_device", run: again::probed },
    Test { name: "uploads_ahead_are_not_asked_where_launches_block", run: blocking::refused },
    Test { name: "uploads_ahead_wait_for_the_recording_that_was", run: again::wait_stays },
    Test { name: "uploads_ahead_keep_their_slots", run: uploads::slots },
    Test { name: "uploads_ahead_have_a_load_for_profiles", run: uploads::load },
    Test { name: "partition_has_sms_of_its_own", run: partition::disjoint },
    Test { name: "partitions_run_at_once", run: partition::overlap },
    Test { name: "partitions_have_signals_of_their_own", run: partition::own_signals },
    Test { name: "onnx_outputs_are_the_processors", run: onnx::outputs_are_the_processors },
    Test { name: "onnx_models_share_scratch", run: onnx::models_share_scratch },
    Test { name: "onnx_model_over_budget_is_refused", run: onnx::model_over_budget_is_refused },
    Test { name: "onnx_faulty_model_is_refused", run: onnx::faulty_model_is_refused },
    Test { name: "onnx_plain_path_gives_the_same", run: onnx::plain_path_gives_the_same },
    Test { name: "onnx_plain_stages_are_timed_whole", run: onnx::plain_stages_are_timed_whole },
    Test { name: "onnx_memory_stays_within_the_limit", run: onnx::memory_stays_within_the_limit },
    Test { name: "onnx_request_beyond_the_range_harms_nobody", run: onnx::beyond_the_range },
    Test { name: "onnx_uploads_ahead_belong_to_their_jobs", run: onnx::uploads_ahead },
    Test { name: "onnx_does_what_every_backend_must", run: conformance::onnx },
    #[cfg(feature = "tvm")]
    Test { name: "tvm_does_what_every_backend_must", run: tvm::does_what_every_backend_must },
    #[cfg(feature = "tvm")]
    Test { name: "tvm_stages_are_captured", run: tvm::stages_are_captured },
    #[cfg(feature = "tvm")]
    Test {
        name: "tvm_module_for_the_processor_is_refused",
        run: tvm::module_for_the_processor_is_refused,
    },
    #[cfg(feature = "trt")]
    Test { name: "trt_says_whether_it_runs_on_this_gpu", run: trt::says_whether_it_runs },
    #[cfg(feature = "trt")]
    Test { name: "trt_refuses_damaged_and_foreign_plans", run: trt::refuses_damaged_plans },
    #[cfg(feature = "trt")]
    Test { name: "trt_does_what_every_backend_must", run: trt::does_what_every_backend_must },
    #[cfg(feature = "trt")]
    Test { name: "trt_outputs_are_the_processors", run: trt::outputs_are_the_processors },
    #[cfg(feature = "trt")]
    Test { name: "trt_mock_is_captured_and_replayed", run: trt::mock_is_captured },
    #[cfg(feature = "trt")]
    Test { name: "trt_mock_is_held_to_its_memory", run: trt::mock_is_held_to_its_memory },
    Test { name: "fault_illegal_access_is_fatal", run: fault::illegal_is_fatal },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|it| it == fault::CHILD) {
        return fault::child();
    }
    if arguments.iter().any(|it| it == again::CHILD) {
        return again::child();
    }
    if arguments.iter().any(|it| it == blocking::CHILD) {
        return blocking::child();
    }
    if arguments.iter().any(|it| it == "--list") {
        TESTS.iter().for_each(|test| println!("{}", test.name));
        return ExitCode::SUCCESS;
    }
    let required = arguments.iter().any(|it| it == "--require-gpu");
    let words: Vec<&String> = arguments.iter().filter(|it| !it.starts_with("--")).collect();
    if let Some(unknown) =
        words.iter().find(|word| !TESTS.iter().any(|it| it.name.contains(**word)))
    {
        drop(writeln!(
            std::io::stderr(),
            "error: no test has {unknown} in its name; --list shows them"
        ));
        return ExitCode::from(2);
    }
    let chosen: Vec<&Test> = TESTS
        .iter()
        .filter(|test| words.is_empty() || words.iter().any(|word| test.name.contains(*word)))
        .collect();
    say_what_is_missing();
    match Bench::find() {
        Ok(bench) => run_all(&bench, &chosen, required),
        Err(why) => skip_all(&why, &chosen, required),
    }
}

fn say_what_is_missing() {
    let all = [("TVM", "tvm", cfg!(feature = "tvm")), ("TensorRT", "trt", cfg!(feature = "trt"))];
    for (runtime, feature, _) in all.iter().filter(|(.., is_here)| !is_here) {
        println!(
            "NOT HERE: the tests of {runtime}; this program was built without the feature `{feature}`"
        );
    }
}

fn run_all(bench: &Bench, tests: &[&Test], required: bool) -> ExitCode {
    let (mut failed, mut skipped) = (0, 0);
    for test in tests {
        match (test.run)(bench) {
            Ok(measured) if measured.is_empty() => println!("ok       {}", test.name),
            Ok(measured) => println!("ok       {}\n{}", test.name, indented(&measured)),
            Err(why) if why.is::<NotRun>() => {
                skipped += 1;
                println!("SKIPPED  {}: {why}", test.name);
            }
            Err(why) => {
                failed += 1;
                println!("FAILED   {}\n{}", test.name, indented(&with_causes(&*why)));
            }
        }
    }
    let passed = tests.len() - failed - skipped;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    let is_whole = !required || skipped == 0;
    if failed == 0 && is_whole && !tests.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn skip_all(why: &str, tests: &[&Test], required: bool) -> ExitCode {
    for test in tests {
        println!("SKIPPED  {}: {why}", test.name);
    }
    println!("0 passed, 0 failed, {} skipped: THERE IS NO GPU HERE", tests.len());
    if required { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("         {line}")).collect::<Vec<_>>().join("\n")
}

/// An error with what caused it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

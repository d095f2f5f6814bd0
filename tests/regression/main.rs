//! One test for each fault that a program met: a line on the pattern, a C
//! program of `tests/c` alone on a large device of the stand-in, then on a
//! small one with the library. It says the same, and memory moved meanwhile.

#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use support::{build, cc, folder, library, within};

const PROGRAMS: [&str; 13] = [
    "captures",
    "users",
    "contexts",
    "held_up",
    "blocked",
    "first_capture",
    "first_need",
    "tables",
    "device_tables",
    "dead_stack",
    "reused",
    "nonsense",
    "pool_free",
];
/// A hang is what some of these tests are about.
const LIMIT: Duration = Duration::from_secs(300);

/// The folder with the programs and the driver under its own name.
fn built() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = folder("regression");
        let driver = dir.join("libcuda.so.1");
        let _ = std::fs::remove_file(&driver);
        std::os::unix::fs::symlink(build("standin-driver", "libcuda.so"), driver)
            .expect("writable");
        for program in PROGRAMS {
            cc(&[&format!("{program}.c")], &dir.join(program));
        }
        dir
    })
}

/// Runs `line`, a program and its arguments, and answers its account.
fn run(line: &str, env: &[(&str, &str)], preloaded: bool) -> serde_json::Value {
    let (output, account) = end_of(line, env, preloaded);
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && stdout == "right\n" && !stderr.contains("violation"),
        "{line}, {env:?}, preloaded: {preloaded}: {}\n{stdout}{stderr}",
        output.status
    );
    account
}

/// The same, however it ends.
fn end_of(line: &str, env: &[(&str, &str)], preloaded: bool) -> (Output, serde_json::Value) {
    let mut words = line.split_whitespace();
    let mut command = Command::new(built().join(words.next().expect("a program")));
    let stats = built().join(format!("{:?}.json", std::thread::current().id()));
    command.args(words).env_clear().env("LD_LIBRARY_PATH", built()).envs(env.iter().copied());
    if preloaded {
        command.env("LD_PRELOAD", library()).env("AUTOOFFLOAD_STATS", &stats);
    }
    let output = within(LIMIT, &mut command);
    let account = std::fs::read(&stats).ok();
    let _ = std::fs::remove_file(&stats);
    let parsed = account
        .map_or(serde_json::Value::Null, |text| serde_json::from_slice(&text).expect("JSON"));
    (output, parsed)
}

/// `line` alone, then on a device of `vram`, where memory must move.
fn same(line: &str, vram: &str, orders: &[&str]) {
    run(line, &[("STANDIN_VRAM", "1G")], false);
    for order in orders {
        let account = run(line, &[("STANDIN_VRAM", vram), ("STANDIN_ORDER", order)], true);
        let moved = account["streaming"]["written_back_bytes"].as_u64().unwrap_or(0);
        assert!(moved > 0, "{line}: nothing moved");
    }
}

/// A use forgot which context's stream it was of, or a stream that was gone.
#[test]
fn memory_that_a_stream_has_yet_to_use_is_waited_for() {
    for path in ["fast", "streaming"] {
        same(&format!("users {path} evict"), "32M", &["eager", "late:1"]);
    }
}

/// A capture forbade the wait for a stream that had no name.
#[test]
fn room_is_made_while_a_stream_captures() {
    for path in ["fast", "streaming"] {
        same(&format!("users {path} capture"), "32M", &["eager", "late:1"]);
    }
}

/// Freed on one context's default stream, taken on another's, without order.
#[test]
fn freed_memory_goes_to_nobody_before_its_last_use_is_over() {
    same("users streaming ordered", "32M", &["eager", "late:1"]);
    same("users streaming free", "32M", &["eager", "late:1"]);
    run("users fast ordered", &[("STANDIN_VRAM", "1G"), ("STANDIN_ORDER", "late:1")], true);
    run("users fast free", &[("STANDIN_VRAM", "1G"), ("STANDIN_ORDER", "late:1")], true);
}

/// Memory of a pool was still taken for dead when it had been taken again.
#[test]
fn stream_ordered_memory_that_is_taken_again_is_kept() {
    same("reused", "32M", &["eager", "late:1"]);
}

/// The end of the primary context took what others had along.
#[test]
fn other_contexts_outlive_the_primary_one() {
    same("contexts reset", "32M", &["eager"]);
    same("contexts release", "32M", &["eager"]);
}

/// An eviction, or a copy in line behind one, waited for a stream that waited
/// for the host.
#[test]
fn what_does_not_depend_on_a_held_up_stream_goes_on() {
    for wait in ["word", "host", "stream", "event"] {
        for doing in ["launch", "allocate", "ordered", "free", "destroy"] {
            same(&format!("held_up {wait} {doing}"), "48M", &["eager"]);
        }
    }
}

/// The same where streams share hardware queues.
#[test]
fn it_goes_on_in_shared_queues() {
    for doing in ["launch", "allocate", "ordered"] {
        let line = format!("held_up word {doing}");
        run(&line, &[("STANDIN_VRAM", "48M"), ("STANDIN_QUEUES", "8")], true);
    }
}

/// What has its place asks a driver for nothing that might wait for the whole context.
#[test]
fn what_has_its_place_goes_on_where_a_mapping_would_wait() {
    for wait in ["word", "host", "stream", "event"] {
        let env = [("STANDIN_VRAM", "48M"), ("STANDIN_IMPLIED_WAITS", "yes")];
        run(&format!("held_up {wait} present"), &env, true);
    }
}

/// Where a driver lets a mapping wait for the whole context, an address cannot be
/// given memory before the held-up stream goes on: nobody can go on, and that is said.
#[test]
fn a_mapping_that_waits_for_a_held_up_stream_is_told() {
    let mut command = Command::new(built().join("held_up"));
    command.args(["word", "launch"]).env_clear().env("LD_LIBRARY_PATH", built());
    command.env("LD_PRELOAD", library()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.envs([("STANDIN_VRAM", "48M"), ("STANDIN_IMPLIED_WAITS", "yes")]);
    let mut child = command.spawn().expect("starts");
    let mut said = BufReader::new(child.stderr.take().expect("piped")).lines();
    let (teller, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let told = said.any(|line| line.is_ok_and(|line| line.contains("waits for what the pro")));
        let _ = teller.send(told);
    });
    let told = told.recv_timeout(LIMIT);
    child.kill().expect("still waits");
    child.wait().expect("ends");
    assert_eq!(told, Ok(true));
}

/// The first eviction waited, under its device's lock, for every launch that was
/// under way: for a copy, too, that blocks until the evicting thread goes on.
#[test]
fn an_eviction_does_not_wait_for_what_others_launch() {
    same("blocked copy", "48M", &["eager"]);
}

/// An allocation waited for a stream under its device's lock, and the launch that
/// the stream waited for waited for that.
#[test]
fn others_launch_while_a_thread_waits_for_memory() {
    same("blocked wait", "48M", &["eager"]);
}

/// A capture begun by the entry point of CUDA 10.0 was not seen; of two that
/// overlap, only the first.
#[test]
fn captures_of_the_first_version_are_captures() {
    same("first_capture name", "48M", &["eager"]);
    same("first_capture version", "48M", &["eager"]);
}

/// Whether anything captures was asked, then something recorded: another thread
/// began a capture in between. It was spoilt, or a call of the other refused (900).
#[test]
fn captures_that_begin_while_other_threads_move_memory_are_not_spoilt() {
    for mode in 0..3 {
        same(&format!("captures {mode}"), "36M", &["eager", "late:1"]);
    }
}

/// `cuMemFree` of stream-ordered memory waited for the whole context: while a stream
/// captured, that was refused (900), and spoilt the capture.
#[test]
fn stream_ordered_memory_is_freed_while_a_stream_captures() {
    for order in ["eager", "late:1"] {
        let env = |vram| [("STANDIN_VRAM", vram), ("STANDIN_ORDER", order)];
        run("pool_free", &env("1G"), false);
        run("pool_free", &env("1G"), true);
        let account = run("pool_free", &env("32M"), true);
        let moved = account["streaming"]["written_back_bytes"].as_u64();
        assert!(moved > Some(0), "nothing moved: {account}");
    }
}

/// When memory was first short, what somebody who cannot be marked had queued was
/// taken for unfinished for good, and the program's call failed.
#[test]
fn memory_may_be_short_for_the_first_time_while_a_stream_cannot_be_marked() {
    for who in ["capture", "thread"] {
        same(&format!("first_need {who}"), "32M", &["eager", "late:1"]);
    }
}

/// Only `cuMemcpyHtoD*` was searched for addresses.
#[test]
fn what_a_table_names_stays_by_whichever_copy_it_came() {
    run("tables", &[("STANDIN_VRAM", "1G")], false);
    let account = run("tables", &[("STANDIN_VRAM", "32M")], true);
    let kept = account["device"]["kept_resident_bytes"].as_u64();
    assert_eq!(kept, Some((9 * 2) << 20));
}

/// A table that a kernel wrote, or a copy on the device: what it names was gone
/// when a launch read through it that names the table alone.
#[test]
fn what_a_table_on_the_device_names_is_there_when_it_is_read() {
    for place in ["small", "frame", "pool"] {
        for writer in ["kernel", "copy", "early", "tables", "grouped"] {
            same(&format!("device_tables {place} {writer}"), "16M", &["eager", "late:1"]);
        }
    }
}

/// Where activations held a number that is an address, the kernel that was given
/// them was waited for at each of its launches.
#[test]
fn numbers_that_look_like_addresses_are_not_looked_at_for_ever() {
    for place in ["small", "frame", "pool"] {
        let account =
            run(&format!("device_tables {place} chance"), &[("STANDIN_VRAM", "16M")], true);
        let looks = |key: &str| account["looks"][key].as_u64().expect("a count");
        assert!(looks("found") > 0 && looks("launches") < 80, "{place}: {}", account["looks"]);
    }
}

/// The same where no kernel of ours can look, and where none can be loaded.
#[test]
fn tables_are_read_in_a_copy_where_no_kernel_can_look() {
    for (name, value) in [("AUTOOFFLOAD_PIN", "0"), ("STANDIN_PTX", "off")] {
        let env = [("STANDIN_VRAM", "16M"), (name, value)];
        run("device_tables frame kernel", &env, true);
    }
}

/// A table too large to be searched: the product reads what is not there. Watched,
/// that is no wrong byte but an error that says which kernel it was.
#[test]
fn a_kernel_that_touches_what_nobody_saw_is_named() {
    let env = [("STANDIN_VRAM", "20M"), ("AUTOOFFLOAD_VERIFY", "1")];
    let (output, account) = end_of("device_tables large kernel", &env, true);
    let said = String::from_utf8_lossy(&output.stderr);
    let sentence = "verify: standin_add_through_u32 touched memory that was not there. Absent, and \
                    not named by it: 0x";
    assert!(!output.status.success() && said.contains(sentence), "{said}");
    assert!(account["verified_launches"].as_u64() > Some(0), "{account}");
}

/// Watched, a program that is right stays right, through what is searched, too.
#[test]
fn what_is_right_stays_right_when_watched() {
    for line in ["device_tables small kernel", "device_tables frame tables"] {
        for order in ["eager", "late:1"] {
            let env =
                [("STANDIN_VRAM", "16M"), ("STANDIN_ORDER", order), ("AUTOOFFLOAD_VERIFY", "1")];
            let account = run(line, &env, true);
            assert!(account["verified_launches"].as_u64() > Some(0), "{line}: {account}");
        }
    }
}

/// Addresses in our frames came back in what PyTorch's structs do not set, and
/// weights were fetched that no kernel asked for.
#[test]
fn a_call_leaves_no_addresses_on_the_stack() {
    let account = run("dead_stack", &[("STANDIN_VRAM", "16M")], true);
    assert!(account["streaming"]["streamed_bytes"].as_u64() > Some(0), "nothing moved: {account}");
}

/// After a failure inside the library it went on, on what that had left half done.
#[cfg(target_arch = "x86_64")] // The program makes the driver answer nonsense by its code.
#[test]
fn after_a_failure_of_ours_calls_that_name_managed_memory_fail() {
    for how in ["fast", "moving"] {
        let (output, account) =
            end_of(&format!("nonsense {how}"), &[("STANDIN_VRAM", "32M")], true);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && stdout == "right\n", "{how}: {stdout}{stderr}");
        let said = stderr.matches("later ones that name memory of our keeping fail").count();
        assert_eq!(said, 1, "{how}: {stderr}");
        assert!(account["device"].is_object(), "{how}: no statistics: {account}");
    }
}

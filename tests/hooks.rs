//! The hooks from outside: small C programs under LD_PRELOAD, on a driver that
//! only counts (`tests/c/fake_driver.c`), built here with `cc`.
//!
//! Every program runs with a time limit and is killed when it passes it: a
//! deadlock under the loader's lock is what these tests are most afraid of.
//! Not here: what the engine does with memory (see `tests/e2e`).

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use support::{cc, folder, library, within};

/// Names that the library exports and that belong to the driver.
fn hooked_names() -> Vec<String> {
    let output =
        Command::new("nm").args(["-D", "--defined-only"]).arg(library()).output().expect("nm runs");
    let text = String::from_utf8(output.stdout).expect("symbol names are ASCII");
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter(|name| name.starts_with("cu"))
        .map(str::to_string)
        .collect();
    assert!(names.len() > 150, "only {} names are exported", names.len());
    names
}

/// The folder with the fake driver and the programs, made once.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = folder("hooks");
        let written_out = ["cuInit", "cuGetProcAddress", "cuGetProcAddress_v2"];
        let strangers = ["cuDriverGetVersion", "cuMemMap", "cuMemAlloc", "cuMemcpyHtoD"];
        let names: String = hooked_names()
            .iter()
            .map(String::as_str)
            .filter(|name| !written_out.contains(name))
            .chain(strangers)
            .map(|name| format!("NAME({name})\n"))
            .collect();
        std::fs::write(dir.join("fake_names.h"), names).expect("writable");
        let at = |name: &str| dir.join(name);
        let include = format!("-I{}", dir.display());
        let search = format!("-L{}", dir.display());
        let runpath = format!("-Wl,-rpath,{}", dir.display());
        cc(
            &[
                "-shared",
                "-fPIC",
                "-Wl,-Bsymbolic",
                "-Wl,-soname,libcuda.so.1",
                &include,
                "fake_driver.c",
            ],
            &at("libcuda.so.1"),
        );
        cc(&["-shared", "-fPIC", "bottom.c"], &at("libbottom.so"));
        cc(&["-shared", "-fPIC", "middle.c"], &at("libmiddle.so"));
        cc(&["-shared", "-fPIC", "constructor.c"], &at("libconstructor.so"));
        cc(&["routes.c"], &at("routes"));
        cc(&["lifecycle.c", "-pthread"], &at("lifecycle"));
        cc(&["linked.c", &search, "-l:libcuda.so.1", &runpath], &at("linked"));
        let needed = ["-Wl,--no-as-needed", "-lmiddle", "-lbottom"];
        cc(&[&["lookups.c", "-pthread", &search, &runpath][..], &needed].concat(), &at("lookups"));
        dir
    })
}

/// One preloaded run: its standard error and its account.
struct Run {
    stderr: String,
    stats: BTreeMap<u32, serde_json::Value>,
}

impl Run {
    /// The account, when exactly one process left one.
    fn only_stats(&self) -> &serde_json::Value {
        assert_eq!(self.stats.len(), 1, "accounts of {:?}", self.stats.keys());
        self.stats.values().next().expect("one")
    }

    fn calls(&self, name: &str) -> u64 {
        self.only_stats()["hooks"][name]["calls"].as_u64().unwrap_or(0)
    }
}

/// Runs `program` of [`built`] and expects status 0 within the limit.
fn run(program: &str, args: &[&str], env: &[(&str, &str)]) -> Run {
    run_with(program, args, env, true)
}

fn run_with(program: &str, args: &[&str], env: &[(&str, &str)], with_driver: bool) -> Run {
    let dir = built();
    let stats = dir.join(format!("{program}-{:?}", std::thread::current().id()));
    std::fs::create_dir_all(&stats).expect("writable");
    let mut command = Command::new(dir.join(program));
    command
        .args(args)
        .env_clear()
        .env("LD_PRELOAD", library())
        .env("AUTOOFFLOAD_STATS", stats.join("%p"))
        .envs(env.iter().copied());
    if with_driver {
        command.env("LD_LIBRARY_PATH", dir);
    }
    let output = within(Duration::from_secs(300), &mut command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {}\n{stderr}", output.status);
    let mut accounts = BTreeMap::new();
    for entry in std::fs::read_dir(&stats).expect("readable") {
        let entry = entry.expect("readable");
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .expect("%p is a process id");
        let text = std::fs::read(entry.path()).expect("readable");
        accounts.insert(pid, serde_json::from_slice(&text).expect("the account is JSON"));
    }
    std::fs::remove_dir_all(&stats).expect("ours");
    Run { stderr, stats: accounts }
}

#[test]
fn every_name_reaches_its_hook_by_three_routes() {
    let names = hooked_names();
    let args: Vec<&str> = ["on"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let run = run("routes", &args, &[]);
    assert!(run.stderr.is_empty(), "said before cuInit: {}", run.stderr);
}

/// comfy-aimdo, in every ComfyUI, writes a jump over the first 14 bytes at most of what
/// it looks up, and runs what stood there elsewhere: nothing in it may go by where it
/// lies, but for addresses that are relative to the next instruction, which a patcher
/// mends; and nothing may jump back into it.
#[test]
fn every_export_begins_with_bytes_that_a_patcher_may_move() {
    const PATCHED: u64 = 14;
    let output = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn"])
        .arg(library())
        .output()
        .expect("objdump runs");
    let text = String::from_utf8_lossy(&output.stdout);
    // By name: the address, the instruction and its operands.
    let mut functions: BTreeMap<&str, Vec<(u64, &str, &str)>> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        if let Some((_, told)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            name = told;
        } else if let Some((address, instruction)) = line.split_once(":\t") {
            let address = u64::from_str_radix(address.trim(), 16).expect("an address");
            let (what, operands) = instruction.split_once(' ').unwrap_or((instruction, ""));
            functions.entry(name).or_default().push((address, what, operands.trim()));
        }
    }
    for name in hooked_names() {
        let function = &functions[&*name];
        let start = function[0].0;
        assert!(function.last().expect("one").0 > start + PATCHED, "{name} is too short");
        for &(address, what, operands) in function {
            let leaves = what.starts_with('j') || ["call", "ret", "loop", "ud2"].contains(&what);
            assert!(!leaves || address >= start + PATCHED, "{name}: {what} {operands}");
            let target = operands
                .split_once(' ')
                .and_then(|(target, _)| u64::from_str_radix(target, 16).ok());
            let inside = target.is_some_and(|to| start < to && to < start + PATCHED);
            assert!(!inside, "{name}: {what} {operands} leads back");
        }
    }
}

#[test]
fn switched_off_lookups_give_the_drivers_own() {
    let names = hooked_names();
    let args: Vec<&str> = ["off"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let run = run("routes", &args, &[("AUTOOFFLOAD", "0")]);
    assert!(run.stderr.is_empty(), "{}", run.stderr);
}

#[test]
fn linked_programs_reach_the_hooks() {
    let run = run("linked", &[], &[]);
    assert_eq!(run.calls("cuMemGetInfo_v2"), 1);
}

#[test]
fn switched_off_is_a_true_pass_through() {
    let run = run("linked", &[], &[("AUTOOFFLOAD", "0")]);
    assert!(run.stderr.is_empty() && run.stats.is_empty(), "{}", run.stderr);
}

#[test]
fn a_program_with_foreign_rights_is_passed_through() {
    use std::os::unix::fs::{PermissionsExt, chown};
    const ANOTHER_GROUP: u32 = 65534;
    let (program, stats) = (built().join("secure"), built().join("secure.json"));
    let path = |path: &Path| path.to_str().expect("UTF-8").to_string();
    let (search, library) = (format!("-L{}", path(built())), library());
    let beside = path(library.parent().expect("a folder"));
    let runpath = format!("-Wl,-rpath,{}:{beside}", path(built()));
    let library = path(library);
    cc(
        &["secure.c", "-Wl,--no-as-needed", &library, &search, "-l:libcuda.so.1", &runpath],
        &program,
    );
    let run = || {
        let mut command = Command::new(&program);
        let output = within(
            Duration::from_secs(300),
            command.env_clear().env("AUTOOFFLOAD_STATS", &stats).env("AUTOOFFLOAD_LOG", "info"),
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let there = std::fs::remove_file(&stats).is_ok();
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.stderr, there)
    };
    let (rights, said, written) = run();
    assert!(rights == "own\n" && !said.is_empty() && written);
    if chown(&program, None, Some(ANOTHER_GROUP)).is_err() {
        return println!("not allowed to give a file to another group: only the half is tested");
    }
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o2755)).expect("ours");
    let (rights, said, written) = run();
    // Where the kernel gives no rights, there are none to be careful with.
    let foreign = rights == "foreign\n";
    assert_eq!((said.is_empty(), written), (foreign, !foreign), "{rights}");
}

#[test]
fn dlsym_keeps_its_manners() {
    run("lookups", &[], &[]);
}

#[test]
fn libraries_may_look_up_and_initialise_while_they_are_loaded() {
    let library = built().join("libconstructor.so");
    let library = library.to_str().expect("UTF-8");
    for env in [&[][..], &[("CONSTRUCTOR_INIT", "1")]] {
        let run = run("lifecycle", &["constructor", library], env);
        assert_eq!(run.calls("cuMemGetInfo_v2"), 1);
    }
}

/// The settings are said to who asks.
const INFO: (&str, &str) = ("AUTOOFFLOAD_LOG", "info");

#[test]
fn while_everything_fits_nothing_is_said() {
    let run = run("lifecycle", &["plain"], &[]);
    assert_eq!(run.stderr, "");
}

#[test]
fn the_settings_are_echoed_once_and_the_account_is_written() {
    let run = run("lifecycle", &["plain"], &[("AUTOOFFLOAD_WINDOW", "7"), INFO]);
    assert_eq!(run.stderr.matches("AUTOOFFLOAD_WINDOW=7").count(), 1, "{}", run.stderr);
    assert!(run.stderr.lines().all(|line| line.starts_with("autooffload: ")), "{}", run.stderr);
    assert_eq!(run.calls("cuInit"), 2);
    assert_eq!(run.calls("cuStreamDestroy_v2"), 1);
    assert_eq!(run.only_stats()["hooks"]["cuStreamDestroy_v2"]["forwarded"], 1);
}

#[test]
fn a_bad_value_gives_one_warning_and_the_default() {
    let run = run("lifecycle", &["plain"], &[("AUTOOFFLOAD_VRAM", "banana"), INFO]);
    assert_eq!(run.stderr.matches("banana").count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("AUTOOFFLOAD_VRAM=auto"), "{}", run.stderr);
}

#[test]
fn a_failed_init_does_not_spoil_the_next() {
    let run = run("lifecycle", &["failed-init"], &[("FAKE_INIT_FAILURES", "2")]);
    // The work before the success went through, unhooked.
    assert_eq!(run.calls("cuMemGetInfo_v2"), 1);
}

#[test]
fn a_forked_child_is_a_pass_through() {
    let run = run("lifecycle", &["fork-after"], &[INFO]);
    assert_eq!(run.calls("cuMemGetInfo_v2"), 2, "the parent's two, none of the child's");
    assert_eq!(run.stderr.matches("AUTOOFFLOAD_VRAM=").count(), 1, "{}", run.stderr);
}

#[test]
fn a_child_that_initialises_first_is_served() {
    let run = run("lifecycle", &["fork-before"], &[]);
    assert_eq!(run.calls("cuMemGetInfo_v2"), 1);
}

#[test]
fn exit_with_threads_still_calling() {
    let run = run("lifecycle", &["live-threads"], &[]);
    assert!(run.calls("cuMemGetInfo_v2") > 0);
}

#[test]
fn concurrent_first_initialisation() {
    let run = run("lifecycle", &["concurrent-init"], &[INFO]);
    assert_eq!(run.stderr.matches("AUTOOFFLOAD_VRAM=").count(), 1, "{}", run.stderr);
    assert_eq!(run.calls("cuMemGetInfo_v2"), 8, "each thread's, none before the engine ran");
}

#[test]
fn tools_in_the_same_process() {
    run("lifecycle", &["tools"], &[]);
}

#[test]
fn without_a_driver_calls_fail_as_the_driver_would() {
    let run = run_with("lifecycle", &["no-driver"], &[], false);
    assert!(run.stderr.is_empty(), "{}", run.stderr);
}

#[test]
fn a_program_that_never_uses_cuda_hears_nothing() {
    let output = within(
        Duration::from_secs(300),
        Command::new("/bin/true").env_clear().env("LD_PRELOAD", library()),
    );
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn the_launchers_marker_is_left() {
    let dir = built().join("marker");
    std::fs::create_dir_all(&dir).expect("writable");
    run("lifecycle", &["plain"], &[("AUTOOFFLOAD_LAUNCH_DIR", dir.to_str().expect("UTF-8"))]);
    assert_eq!(std::fs::read_dir(&dir).expect("readable").count(), 1);
    std::fs::remove_dir_all(&dir).expect("ours");
}

#[test]
fn runs_on_any_glibc_since_2_34() {
    let output =
        Command::new("readelf").args(["-V", "-W"]).arg(library()).output().expect("readelf runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut seen = 0;
    for version in text.split("GLIBC_").skip(1) {
        let version: String =
            version.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version_pair = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        assert!(version_pair <= (2, 34), "needs GLIBC_{version}");
        seen += 1;
    }
    assert!(seen > 0, "readelf names no version:\n{text}");
}

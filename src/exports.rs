//! What tools and the end of the process are told.
//!
//! The versioned C functions for tools in the same process (find them with
//! `dlsym(RTLD_DEFAULT, …)`; absent when the library is not preloaded), the
//! JSON account and the summary at exit. All numbers come from the engine's
//! snapshot and the hooks' counters; nothing here calls CUDA.
//!
//! The account:
//! ```text
//! { …the engine's figures…,
//!   "version": …, "pid": …, "settings": "NAME=value …",
//!   "hooked": { "launches": …, "allocations": …, … },
//!   "hooks": { "cuLaunchKernel": { "class": …, "calls": …, "served": …, "forwarded": … }, … },
//!   "own_calls": { "cuMemcpyHtoDAsync_v2": … } }
//! ```
//! For each name: the driver's calls = ours (`own_calls`) + the program's
//! that were `forwarded`; the program's `calls` less `served` were forwarded
//! at least once.

use std::ffi::{CStr, c_char, c_int};
use std::panic::catch_unwind;
use std::sync::Mutex;

use autooffload_core::config::Config;
use serde_json::{Map, Value, json};

use crate::engine::Range;
use crate::hooks::registry;
use crate::hooks::table::Group;
use crate::{config, driver, engine, left_behind, lifecycle, trace_file};

/// Raised when a function of this file changes incompatibly.
const API_VERSION: c_int = 1;

#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn autooffload_api_version() -> c_int {
    API_VERSION
}

/// Writes the account, NUL-terminated, as far as `len` bytes hold it. Answers
/// the bytes needed, NUL included: call again with more if that is above
/// `len`. 0: nothing to tell (CUDA not initialised, or switched off).
///
/// # Safety
/// `buf` is null or has room for `len` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn autooffload_stats_json(buf: *mut c_char, len: usize) -> usize {
    if !lifecycle::is_active() {
        return 0;
    }
    let Ok(text) = catch_unwind(|| account().to_string()) else {
        return 0;
    };
    // SAFETY: the caller's promise.
    unsafe { copy_out(&text, buf, len) }
}

/// The README's table of settings, in Markdown; answered as
/// [`autooffload_stats_json`] does.
///
/// # Safety
/// `buf` is null or has room for `len` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn autooffload_settings_markdown(buf: *mut c_char, len: usize) -> usize {
    let text = autooffload_core::config::settings_markdown();
    // SAFETY: the caller's promise.
    unsafe { copy_out(&text, buf, len) }
}

/// Copies `text` and a NUL into `buf`, cut to `len`; answers what was needed.
///
/// # Safety
/// `buf` is null or has room for `len` bytes.
unsafe fn copy_out(text: &str, buf: *mut c_char, len: usize) -> usize {
    if !buf.is_null() && len > 0 {
        let count = text.len().min(len - 1);
        // SAFETY: `count + 1 <= len` bytes are written; `text` has `count`.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), buf.cast::<u8>(), count);
            *buf.add(count) = 0;
        }
    }
    text.len() + 1
}

/// Changes a live setting (`"vram"` or `"AUTOOFFLOAD_VRAM"`, `"8G"`). 0 on
/// success; 1: not understood, no such setting, or fixed at start (said in the
/// log); 2: not active.
///
/// # Safety
/// `key` and `value` are NUL-terminated.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn autooffload_set(key: *const c_char, value: *const c_char) -> c_int {
    /// The settings as last changed.
    static CURRENT: Mutex<Option<Config>> = Mutex::new(None);

    if key.is_null() || value.is_null() {
        return 1;
    }
    // SAFETY: the caller's promise.
    let (key, value) = unsafe { (CStr::from_ptr(key), CStr::from_ptr(value)) };
    let (key, value) = (key.to_string_lossy(), value.to_string_lossy());
    let changed = catch_unwind(|| -> Result<(), c_int> {
        let initial = config::get().filter(|_| lifecycle::is_active()).ok_or(2)?;
        let mut current = CURRENT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let config = current.get_or_insert_with(|| initial.clone());
        config.set(&key, &value).map_err(|why| {
            log::warn!("autooffload_set({key}, {value}): {why}");
            1
        })?;
        engine::reconfigure(config);
        Ok(())
    });
    match changed {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code,
        Err(_) => 1,
    }
}

/// What a C function of ranges is asked for; `None`: nothing to ask, or not active.
///
/// # Safety
/// `ranges` is null or points to `count` of them.
unsafe fn asked<'a>(ranges: *const Range, count: usize) -> Result<&'a [Range], c_int> {
    if ranges.is_null() && count > 0 {
        return Err(1);
    }
    if !lifecycle::is_active() {
        return Err(2);
    }
    // SAFETY: the caller's promise; an empty slice needs a pointer that is not null.
    Ok(if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(ranges, count) } })
}

/// Keeps all allocations that `ranges` name resident, until
/// [`autooffload_release`] is called with the same. 0 on success; 1: not
/// understood; 2: not active; 3: no room, nothing was kept (said in the log).
///
/// # Safety
/// `ranges` is null or points to `count` of them.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn autooffload_keep(ranges: *const Range, count: usize) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { asked(ranges, count) } {
        Err(code) => code,
        Ok(ranges) => match catch_unwind(|| engine::keep(ranges)) {
            Ok(Ok(())) => 0,
            Ok(Err(_)) => 3,
            Err(_) => 1,
        },
    }
}

/// Takes one [`autooffload_keep`] back. 0 on success; 1 and 2 as there.
///
/// # Safety
/// `ranges` is null or points to `count` of them.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn autooffload_release(ranges: *const Range, count: usize) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { asked(ranges, count) } {
        Err(code) => code,
        Ok(ranges) => match catch_unwind(|| engine::release(ranges)) {
            Ok(()) => 0,
            Err(_) => 1,
        },
    }
}

/// Where the memory is that `ranges` name, as JSON; answered as
/// [`autooffload_stats_json`] does.
///
/// # Safety
/// `ranges` is null or points to `count` of them; `buf` is null or has room for
/// `len` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn autooffload_ranges_json(
    ranges: *const Range,
    count: usize,
    buf: *mut c_char,
    len: usize,
) -> usize {
    // SAFETY: the caller's promise.
    let Ok(ranges) = (unsafe { asked(ranges, count) }) else { return 0 };
    let Ok(text) = catch_unwind(|| engine::ranges_json(ranges).to_string()) else { return 0 };
    // SAFETY: the caller's promise.
    unsafe { copy_out(&text, buf, len) }
}

/// The account of this process so far.
pub fn account() -> Value {
    let mut account = match engine::stats_json() {
        Value::Object(map) => map,
        other => Map::from_iter([("engine".to_string(), other)]),
    };
    account.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
    account.insert("pid".into(), json!(std::process::id()));
    if let Some(config) = config::get() {
        account.insert("settings".into(), json!(config.echo()));
    }
    account.insert("hooked".into(), hooked());
    let hooks: Map<_, _> = registry::counts()
        .into_iter()
        .map(|row| {
            let value = json!({
                "class": format!("{:?}", row.class).to_ascii_lowercase(),
                "calls": row.calls,
                "served": row.served,
                "forwarded": row.forwarded,
            });
            (row.name.to_string(), value)
        })
        .collect();
    account.insert("hooks".into(), Value::Object(hooks));
    let own: Map<_, _> = driver::driver()
        .own_calls()
        .into_iter()
        .map(|(name, count)| (name.to_string(), json!(count)))
        .collect();
    account.insert("own_calls".into(), Value::Object(own));
    Value::Object(account)
}

/// The program's calls by group, as the hooks saw them.
fn hooked() -> Value {
    let groups = [
        ("launches", Group::Launch),
        ("graph_launches", Group::GraphLaunch),
        ("allocations", Group::Alloc),
        ("allocations_async", Group::AllocAsync),
        ("frees", Group::Free),
        ("frees_async", Group::FreeAsync),
        ("copies_h2d", Group::CopyH2D),
        ("copies_d2h", Group::CopyD2H),
        ("copies_d2d", Group::CopyD2D),
        ("copies_other", Group::CopyOther),
        ("memsets", Group::Memset),
    ];
    let hooked = groups
        .into_iter()
        .map(|(name, group)| (name.to_string(), json!(registry::group_count(group))));
    Value::Object(hooked.collect())
}

/// The account as the file has it.
pub fn statistics() -> String {
    format!("{:#}\n", account())
}

/// The summary on standard error and the JSON file, if asked for.
pub fn report_at_exit() {
    for line in engine::summary() {
        config::say(&line);
    }
    trace_file::write(account, true);
    left_behind::finish(&statistics());
}

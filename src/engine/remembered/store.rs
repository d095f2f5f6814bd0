//! The files of orders that are kept: opened when first asked for, at most
//! [`FILES`], the user's alone.
//!
//! Not here: what is in a file (`core::recall`), when there is one to keep.

use std::collections::HashSet;
use std::sync::Mutex;

use autooffload_core::config::Plans;
use autooffload_core::recall::{self, MAX_BYTES};
use autooffload_shared::private::{self, Directory};
use once_cell::sync::OnceCell;

/// Files that are kept; the oldest go.
const FILES: usize = 64;
const SUFFIX: &str = ".order";

#[derive(Default)]
pub struct Remembered(OnceCell<Option<Store>>);

pub(super) struct Store {
    directory: Directory,
    /// What there was at the start, and was not recalled yet.
    pub(super) known: Mutex<HashSet<u64>>,
}

impl Remembered {
    /// Opened when it is first asked for.
    pub(super) fn store(&self, plans: &Plans) -> Option<&Store> {
        self.0
            .get_or_init(|| {
                let opened = match plans {
                    Plans::Off => return None,
                    Plans::Auto => private::cache()
                        .and_then(|cache| Directory::make(&cache.path().join("orders"))),
                    Plans::In(folder) => Directory::make(folder.as_ref()),
                };
                let store = opened.and_then(Store::new);
                let say = |why: &std::io::Error| {
                    log::warn!(
                        "AUTOOFFLOAD_PLANS: {why}: the order is not kept for the next start; name \
                         a folder that is yours alone"
                    );
                };
                store.inspect_err(say).ok()
            })
            .as_ref()
    }
}

impl Store {
    fn new(directory: Directory) -> std::io::Result<Self> {
        let of_name = |name: String| u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok();
        let known = directory.names()?.into_iter().filter_map(of_name).collect();
        Ok(Self { directory, known: Mutex::new(known) })
    }

    pub(super) fn read(&self, signature: u64) -> std::io::Result<Vec<u8>> {
        self.directory.read(&name_of(signature), MAX_BYTES as u64)
    }

    pub(super) fn write(&self, order: &recall::Remembered) {
        if order.phases.iter().flatten().all(|step| step.uses.is_empty()) {
            return;
        }
        let Some(file) = order.encode() else { return };
        match self.directory.replace(&name_of(order.signature), &file) {
            Ok(()) => self.prune(),
            Err(why) => log::debug!("the order of this program is not kept: {why}"),
        }
    }

    /// Removes what was written longest ago.
    fn prune(&self) {
        let Ok(names) = self.directory.names() else { return };
        let written = |name: &String| {
            self.directory.open_private(name, false).ok()?.metadata().ok()?.modified().ok()
        };
        let mut files: Vec<_> = names
            .into_iter()
            .filter(|name| name.ends_with(SUFFIX))
            .map(|name| (written(&name), name))
            .collect();
        files.sort();
        let over = files.len().saturating_sub(FILES);
        for (_, name) in &files[..over] {
            let _ = self.directory.remove(name);
        }
    }
}

fn name_of(signature: u64) -> String {
    format!("{signature:016x}{SUFFIX}")
}

//! The same function over many items, on several threads, results in order.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Answers are in the order of `items`, whatever the number of threads: it
/// changes how long it takes and nothing else. `what` is shown with the
/// progress, on standard error if that is a terminal.
pub fn map<T: Sync, R: Send>(
    what: &str,
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let shown = stderr().is_terminal();
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let result = work(item);
                    *results[index].lock().expect("no panic while held") = Some(result);
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if shown {
                        let _ = write!(stderr(), "\r   {what}: {done} of {}\x1b[K", items.len());
                    }
                }
            });
        }
    });
    if shown {
        let _ = write!(stderr(), "\r\x1b[K");
    }
    results
        .into_iter()
        .map(|slot| slot.into_inner().expect("no panic while held").expect("every item was taken"))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_keep_their_order_on_any_number_of_threads() {
        let items: Vec<u64> = (0..1000).collect();
        for threads in [1, 2, 7, 2000] {
            let squares = super::map("squares", &items, threads, |item| item * item);
            assert!(squares.iter().zip(&items).all(|(square, item)| *square == item * item));
        }
        assert!(super::map("nothing", &[0; 0], 4, |item| *item).is_empty());
    }
}

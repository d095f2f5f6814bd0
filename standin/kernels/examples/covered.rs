//! Reads kernel names, one a line, and says which of them are implemented.
//!
//!     strings -n 20 libtorch_cuda.so | grep ^_ZN2at6native | cargo run -p standin-kernels --example covered
//!
//! Prints the names that are not, and at the end the count of each.

use std::io::BufRead;

fn main() {
    let (mut known, mut unknown) = (0, 0);
    for name in std::io::stdin().lock().lines().map_while(Result::ok) {
        if standin_kernels::find(&name).is_some() {
            known += 1;
        } else {
            unknown += 1;
            println!("{name}");
        }
    }
    eprintln!("{known} implemented, {unknown} not");
}

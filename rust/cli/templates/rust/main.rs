// SPDX-License-Identifier: MIT OR Apache-2.0
//! {{name}}: every request runs in a fresh copy of this program, frozen when it waits for the first one.

use mayfly_guest::{Request, Response, serve};

fn main() {
    // Initialise here: open files, fill tables. This part runs once.
    let mut count = 0;

    serve(move |request: &Request| {
        // From here on a request starts; what it changes is gone before the next one.
        count += 1;
        let path = request.path_lossy();
        let page = format!("Hello from {{name}}: {path}, request {count} of this copy\n");
        Response::text(page)
    })
}

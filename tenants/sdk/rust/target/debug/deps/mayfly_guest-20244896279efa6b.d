/tmp/wt-samples/tenants/sdk/rust/target/debug/deps/mayfly_guest-20244896279efa6b.d: /tmp/wt-samples/clippy.toml src/lib.rs src/abi.rs src/host.rs src/request.rs src/serve.rs Cargo.toml

/tmp/wt-samples/tenants/sdk/rust/target/debug/deps/libmayfly_guest-20244896279efa6b.rmeta: /tmp/wt-samples/clippy.toml src/lib.rs src/abi.rs src/host.rs src/request.rs src/serve.rs Cargo.toml

/tmp/wt-samples/clippy.toml:
src/lib.rs:
src/abi.rs:
src/host.rs:
src/request.rs:
src/serve.rs:
Cargo.toml:

# env-dep:CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__
# env-dep:CLIPPY_CONF_DIR

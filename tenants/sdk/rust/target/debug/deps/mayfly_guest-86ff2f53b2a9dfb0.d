/tmp/wt-samples/tenants/sdk/rust/target/debug/deps/mayfly_guest-86ff2f53b2a9dfb0.d: /tmp/wt-samples/clippy.toml src/lib.rs src/abi.rs src/host.rs src/request.rs Cargo.toml

/tmp/wt-samples/tenants/sdk/rust/target/debug/deps/libmayfly_guest-86ff2f53b2a9dfb0.rmeta: /tmp/wt-samples/clippy.toml src/lib.rs src/abi.rs src/host.rs src/request.rs Cargo.toml

/tmp/wt-samples/clippy.toml:
src/lib.rs:
src/abi.rs:
src/host.rs:
src/request.rs:
Cargo.toml:

# env-dep:CLIPPY_ARGS=
# env-dep:CLIPPY_CONF_DIR

/tmp/wt-samples/tenants/sdk/rust/target/debug/deps/mayfly_guest-70e0ec46a21fc556.d: /tmp/wt-samples/clippy.toml src/lib.rs src/abi.rs src/host.rs src/request.rs src/serve.rs Cargo.toml

/tmp/wt-samples/tenants/sdk/rust/target/debug/deps/libmayfly_guest-70e0ec46a21fc556.rmeta: /tmp/wt-samples/clippy.toml src/lib.rs src/abi.rs src/host.rs src/request.rs src/serve.rs Cargo.toml

/tmp/wt-samples/clippy.toml:
src/lib.rs:
src/abi.rs:
src/host.rs:
src/request.rs:
src/serve.rs:
Cargo.toml:

# env-dep:CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__
# env-dep:CLIPPY_CONF_DIR

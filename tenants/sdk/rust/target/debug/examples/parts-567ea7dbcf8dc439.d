/tmp/wt-samples/tenants/sdk/rust/target/debug/examples/parts-567ea7dbcf8dc439.d: /tmp/wt-samples/clippy.toml examples/parts.rs Cargo.toml

/tmp/wt-samples/tenants/sdk/rust/target/debug/examples/libparts-567ea7dbcf8dc439.rmeta: /tmp/wt-samples/clippy.toml examples/parts.rs Cargo.toml

/tmp/wt-samples/clippy.toml:
examples/parts.rs:
Cargo.toml:

# env-dep:CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__
# env-dep:CLIPPY_CONF_DIR

# SPDX-License-Identifier: MIT OR Apache-2.0
"""Wrong configurations: the server does not start, and names the key."""

import copy
import json
import socket
import unittest

from mayfly_server import free_port, run_until_exit, tenant

HELLO = tenant("hello", "/hello")


def drogon_config(plugin_config):
    return {
        "listeners": [{"address": "127.0.0.1", "port": free_port()}],
        "plugins": [{"name": "mayfly::SandboxPlugin", "config": plugin_config}],
    }


def with_tenant(**keys):
    return {"tenants": [{**HELLO, **keys}]}


def without(key):
    broken = copy.deepcopy(HELLO)
    del broken[key]
    return {"tenants": [broken]}


# What is wrong, the plugin's configuration, and what the message has to name.
WRONG = {
    "an unknown key": ({"tenants": [], "colour": "red"}, ["colour"]),
    "an unknown key of a tenant": (with_tenant(colour="red"), ["colour"]),
    "an unknown limit": (with_tenant(limits={"cpu_seconds": 1}), ["cpu_seconds"]),
    "an unknown default": ({"tenants": [HELLO], "defaults": {"limit": {}}}, ["limit"]),
    "an unknown default limit": ({"tenants": [HELLO], "defaults": {"limits": {"cpu": 1}}}, ["cpu"]),
    "no name": (without("name"), ["name"]),
    "no program": (without("program"), ["program"]),
    "no path": (without("path"), ["path"]),
    "a limit that is no number": (with_tenant(limits={"cpu_ms": "ten"}), ["cpu_ms"]),
    "a negative limit": (with_tenant(limits={"cpu_ms": -1}), ["cpu_ms"]),
    "a limit of nothing": (with_tenant(limits={"cpu_ms": 0}), ["cpu_ms"]),
    "a limit beyond reason": (with_tenant(limits={"memory_mib": 2**40}), ["memory_mib"]),
    "a path without a slash": (with_tenant(path="hello"), ["path", "hello"]),
    "a path that Drogon would read as a pattern": (with_tenant(path="/{1}"), ["path", "/{1}"]),
    "a mount where Mayfly makes files up": (with_tenant(mounts=[{"host": "/x", "at": "/proc"}]), ["mounts[0].at", "/proc"]),
    "a warm-up of a program that is no server": (with_tenant(warm_up=[{"path": "/"}]), ["warm_up", "connections"]),
    "tenants that are no list": ({"tenants": {}}, ["tenants"]),
    "two tenants of one name": ({"tenants": [HELLO, {**HELLO, "path": "/other"}]}, ["name", "hello"]),
    "two tenants of one path": ({"tenants": [HELLO, {**HELLO, "name": "other"}]}, ["path", "/hello"]),
}


class Config(unittest.TestCase):
    def test_a_wrong_configuration_is_refused_and_the_key_is_named(self):
        for what, (config, names) in WRONG.items():
            with self.subTest(what):
                status, output = run_until_exit(drogon_config(config))
                self.assertEqual(status, 1, output)
                (error,) = [line for line in output.splitlines() if line.startswith("mayfly-server: error: ")]
                self.assertIn("mayfly::SandboxPlugin", error)
                for name in names:
                    self.assertIn(name, error)

    def test_a_file_that_is_not_there_is_named(self):
        status, output = run_until_exit("")
        self.assertEqual(status, 1, output)
        self.assertIn("mayfly-server: error: ", output)

    def test_json_that_is_none_is_refused(self):
        status, output = run_until_exit('{ "plugins": [')
        self.assertEqual(status, 1, output)
        self.assertIn("config.json", output)

    def test_a_port_that_is_taken_is_named(self):
        config = drogon_config({"tenants": []})
        port = config["listeners"][0]["port"]
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            taken.listen()
            status, output = run_until_exit(json.dumps(config))
        self.assertEqual(status, 1, output)
        self.assertIn(str(port), output)


if __name__ == "__main__":
    unittest.main()

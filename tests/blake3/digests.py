"""The digests of transfers against another implementation of BLAKE3.

    digests.py FOLDER

FOLDER holds the binaries. PyPI's `blake3` has to be importable. One file, an empty one
and a folder are sent; the receiver's `digest` has to be what `b3sum` prints, or the
hash of what it prints for several files in the order in which they were sent.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from blake3 import blake3

BINARIES = pathlib.Path(sys.argv[1]).resolve()
MIB = 1024 * 1024


def pinhole(folder, server, name, *arguments, **options):
    command = [BINARIES / "pinhole", "--json", "--no-nearby", "--server", server]
    command += ["--data-dir", folder / name, "--name", name, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def received(folder, server, what):
    """What bob prints of a transfer that has ended."""
    bob = pinhole(folder, server, "bob", "receive", "--once", "--accept", "all", "--into", folder / "inbox")
    while json.loads(bob.stdout.readline())["event"] != "logged_in":
        pass
    alice = pinhole(folder, server, "alice", "send", "bob", what)
    alice.communicate(timeout=60)
    events = [json.loads(line) for line in bob.communicate(timeout=60)[0].splitlines()]
    return next(event for event in events if event["event"] == "completed")


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "inbox").mkdir()
        files = {"empty": b"", "small": b"abc", "large": os.urandom(9 * MIB + 5)}
        (folder / "all").mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
            (folder / "all" / name).write_bytes(content)
        server = subprocess.Popen(
            [BINARIES / "pinhole-server", "--listen", "127.0.0.1:0", "--data-dir", folder / "server"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            address = server.stdout.readline().split()[2]
            for name, content in files.items():
                digest = received(folder, address, folder / name)["digest"]
                assert digest == blake3(content).hexdigest(), name
            lines = [f"{blake3(files[name]).hexdigest()}  all/{name}\n" for name in sorted(files)]
            digest = received(folder, address, folder / "all")["digest"]
            assert digest == blake3("".join(lines).encode()).hexdigest(), "a folder"
        finally:
            server.terminate()
            server.wait()
    print("every digest is what b3sum prints")


main()

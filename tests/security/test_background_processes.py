"""Looks at files in processes that end or fork meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.following import Folder


@pytest.fixture
def own_folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


PROGRAM = """
import os, ssl, sys, threading, time
from sealwire.security import Security
from sealwire.security.contexts import background, reloading
reloading._RATHER = background.PATIENCE  # as with the default interval
folder = sys.argv[1]
one = Security(
    tls_ca_file=folder + "/ca.pem", tls_worker_cert=folder + "/worker.pem",
    tls_worker_key=folder + "/worker.key", tls_reload_interval=0,
)
context = one.get_listen_args("worker")["ssl_context"]
reached = threading.Event()
never = threading.Event()
original = getattr(reloading, sys.argv[2])
parent = os.getpid()
def hang(*args):
    if os.getpid() == parent and threading.current_thread() is not threading.main_thread():
        reached.set()
        never.wait()
    return original(*args)
setattr(reloading, sys.argv[2], hang)
os.utime(folder + "/worker.pem")  # what is settled is not looked at twice
def shake():
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
shake()
if not reached.wait(60):
    raise SystemExit("no look")
"""

ENDING = PROGRAM + "print('ended')\n"

FORKING = (
    PROGRAM
    + """
child = os.fork()
if not child:
    shake()
    shake()
    one.reload()
    one.get_listen_args("worker")
    context.set_alpn_protocols(["x"])
    os._exit(7)
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        print("child", os.waitstatus_to_exitcode(status), flush=True)
        os._exit(0)
    time.sleep(0.02)
os.kill(child, 9)
os._exit(1)
"""
)


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_file_system_that_hangs_keeps_no_process_from_ending(own_folder: Folder) -> None:
    assert run(ENDING, str(own_folder.path), "look_at") == "ended\n"


@pytest.mark.parametrize("where", ["look_at", "are_settled"])
def test_a_child_that_is_forked_during_a_look_goes_on(own_folder: Folder, where: str) -> None:
    if hasattr(os, "fork"):
        assert run(FORKING, str(own_folder.path), where) == "child 7\n"


def test_children_that_are_forked_while_contexts_are_built(own_folder: Folder) -> None:
    """OpenSSL has locks of its own: many forks, at any moment of many builds."""
    if not hasattr(os, "fork"):
        return
    program = (
        PROGRAM.partition("reached =")[0]
        + """
def shake():
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
text = open(folder + "/ca.pem").read()
done = threading.Event()
def change():
    number = 0
    while not done.is_set():
        number += 1
        open(folder + "/ca.new", "w").write(text + "# %d" % number)
        os.replace(folder + "/ca.new", folder + "/ca.pem")
        shake()
thread = threading.Thread(target=change)
thread.start()
for _ in range(25):
    child = os.fork()
    if not child:
        shake()
        one.reload()
        os._exit(7)
    deadline = time.monotonic() + 30
    while not (gone := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            done.set()
            raise SystemExit("a child stands still")
        time.sleep(0.001)
    if os.waitstatus_to_exitcode(gone[1]) != 7:
        done.set()
        raise SystemExit("a child failed")
done.set()
thread.join()
print("fine")
"""
    )
    assert run(program, str(own_folder.path)) == "fine\n"

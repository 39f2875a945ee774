"""A Python that starts at once: the large libraries are imported once, and every program is a fork of that process.

Importing PyTorch and Lightning takes longer than most of what the documents' commands do.  ``warm_python`` makes
programs to put on the path; they hand their arguments, environment and open files to the server below, which forks.
What is forked imports the project itself, from where it was started.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([{arguments!r} + sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(request)
    sys.exit(int.from_bytes(server.recv(1), "big"))
"""


@contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """Programs ``python`` and ``fractalgen`` in a new ``folder``."""
    folder.mkdir()
    address = str(folder / "server")
    for name, arguments in (("python", []), ("fractalgen", [str(Path(sys.executable).with_name("fractalgen"))])):
        text = CLIENT.format(python=sys.executable, address=address, arguments=arguments)
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(stat.S_IRWXU)
    # its input ends with this process
    with subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()  # it listens
        yield folder
        server.terminate()


def accept(address: str) -> list[str]:
    """Serve for ever; in every fork, return the arguments of the program that it is to be."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                break
            client.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, files, _, _ = socket.recv_fds(client, 4, 3)
    arguments, folder, environment = json.loads(client.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
    program = os.fork()
    if program:  # the keeper of the program tells its client how it ended
        for file in files:
            os.close(file)
        status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        client.sendall((status if status >= 0 else 128 - status).to_bytes(1, "big"))
        os._exit(0)
    client.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, os.fdopen(number, "w" if number else "r", buffering=1))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return list(arguments)


def run(arguments: list[str]) -> None:
    """What ``python ARGUMENTS`` does."""
    first, *rest = arguments
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
    elif first == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    import lightning.pytorch  # noqa: F401

    gc.freeze()  # not looked through for garbage in the forks
    run(accept(sys.argv[1]))

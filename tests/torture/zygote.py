"""A process with everything imported that forks one attempt after another, each with a fault of its own.

Imports take seconds, an attempt less. Requests and answers are lines of JSON on standard input and output:
{"start": {...}} forks and answers with the process number; {"wait": PID, "limit": SECONDS} answers with how it ended.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback

COMMANDS = ("main", "repro.prepare", "repro.submit", "repro.aggregate", "repro.status")
HEAVY = ("torch._dynamo", "torchvision", "h5py", "scipy.optimize", "torch.utils.tensorboard")  # imported late otherwise


def serve(shim: str) -> None:
    os.environ.pop("LD_PRELOAD", None)  # what the attempts start is left alone
    library = ctypes.CDLL(shim)
    for name in (*COMMANDS, *HEAVY):
        importlib.import_module(name)
    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "start" in request:
            answer = os.fork()
            if not answer:
                _attempt(library, **request["start"])
        else:
            answer = _wait(request["wait"], request["limit"])
        print(json.dumps(answer), flush=True)


def _wait(pid: int, limit: float) -> int | str:
    """The exit code, negative for a signal; "stopped", or "late" once the limit has passed."""
    deadline = time.monotonic() + limit
    while True:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if found:
            return "stopped" if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return "late"
        time.sleep(0.002)


def _attempt(library, call, words, out, err, env, cwd, arm, log, memory, file_size, others) -> None:
    """Call `main(words)` of a module, or a function of it, as a new process does; never returns."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # end with the zygote
        for number, path in ((0, os.devnull), (1, out), (2, err)):
            fd = os.open(path, os.O_RDONLY if not number else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(fd, number)
            os.close(fd)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(env)
        os.chdir(cwd)
        if others:  # as on another host, for what asks the system by its name
            import platform
            import socket

            platform.node = socket.gethostname = lambda: others
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        if file_size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        module, _, function = call.partition(":")
        function = getattr(importlib.import_module(module), function or "main")
        if arm:
            library.torture_arm(*(word.encode() if isinstance(word, str) else word for word in arm), log.encode())
        code = function(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1 if error.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


if __name__ == "__main__":
    serve(sys.argv[1])

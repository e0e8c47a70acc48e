"""The code benchmark: its estimates against enumeration, its sandbox against programs that mean harm."""

import gzip
import itertools
import json
import os
import socket
import subprocess
import tempfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT, shared_data
from test_evaluation import context_of, subjects  # noqa: F401

from freshstart import files
from freshstart.benchmarks import code, sandbox
from freshstart.benchmarks.sandbox import Limits
from freshstart.errors import InputError
from freshstart.evaluation.metrics import check
from freshstart.evaluation.subject import Subject
from freshstart.params import read_file
from freshstart.sampling.sampler import Drawn
from freshstart.settings import build

LIMITS = Limits(seconds=2.0, memory_mib=333)  # a number that tells this test's processes from others
PATIENT = Limits(seconds=60.0, memory_mib=512)  # for programs that end by themselves, on a busy machine
ADD = {
    "task_id": "add",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
DOUBLE = {
    "task_id": 7,
    "text": "Write a function to double a number.",
    "code": "def double(a):\r\n    return N * a",
    "test_list": ["assert double(2) == 4"],
    "test_setup_code": "N = 2",
}
FORK = """
import os, time
for _ in range(200):
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
"""
DAEMON = """
import os, time
try:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    os.wait()
except OSError:
    assert False
"""
HOSTILE = {
    "fork": FORK,
    "daemon": DAEMON,
    "threads": "import threading as t, time\nfor _ in range(200):\n    t.Thread(target=time.sleep, args=(5,)).start()",
    "memory": "kept = []\nwhile True:\n    kept.append(bytearray(1 << 20))",
    "loop": "while True:\n    pass",
    "sleep": "import time\ntime.sleep(60)",
    "print": "while True:\n    print('x' * 10_000)",
    "large file": "open('file', 'wb').write(bytes(40 << 20))",
    "many files": "for number in range(200):\n    open(str(number), 'wb').write(bytes(1 << 20))",
    "write outside": "open(outside, 'w')",
    "write through a link": "import os\nos.symlink(outside, 'link')\nopen('link', 'w')",
    "read": "open('/etc/passwd').read()",
    "socket": "import socket\nsocket.create_connection(('127.0.0.1', port), 1)",
    "datagram": "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
    "signal": "import os\nos.kill(victim, 9)",
    "raise limits": "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40))",
    "delete the folder": "import os, shutil\nshutil.rmtree(os.getcwd())",
    "leave early": "import os\nos._exit(0)",
    "exit": "import sys\nsys.exit(0)",
}
HELD_BY_LIMITS = {"fork", "memory", "loop", "print", "large file", "write outside", "socket", "signal", "raise limits"}


@pytest.fixture
def locked():
    pytest.importorskip("sandlock", reason="sandlock is not installed: pip install 'freshstart[sandbox]'")
    try:
        sandbox.tried(PATIENT, False)
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """What hostile programs aim at: a file, a socket that listens, a process. Gives lines that name them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    victim = subprocess.Popen(["sleep", "60"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        values = (str(tmp_path / "outside"), server.getsockname()[1], victim.pid)
        yield f"outside, port, victim = {values}\n"
    assert victim.poll() is None
    victim.kill()
    victim.wait()
    assert list(tmp_path.iterdir()) == []
    mark = str(LIMITS.memory_mib << 20)
    assert [
        process for process in psutil.process_iter(["cmdline"]) if mark in " ".join(process.info["cmdline"] or ())
    ] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_fail_and_leave_nothing_behind(name, locked, outside):
    assert sandbox.end_of(outside + HOSTILE[name], LIMITS, degraded=False) not in (sandbox.PASSED, sandbox.SYNTAX)


@pytest.mark.parametrize("name", sorted(HELD_BY_LIMITS))
def test_limits_alone_stop_what_they_can(name, outside, monkeypatch):
    if os.geteuid() == 0:  # nobody may not read a Python in root's home
        monkeypatch.setattr(sandbox, "PYTHON", os.path.realpath("/usr/bin/python3"))
    try:
        assert "limits" in sandbox.tried(PATIENT, True)
    except (InputError, FileNotFoundError) as error:
        pytest.skip(str(error))
    if name in ("socket", "signal") and not sandbox._namespaces():
        pytest.skip("this kernel gives no namespaces")
    assert sandbox.end_of(outside + HOSTILE[name], LIMITS, degraded=True) not in (sandbox.PASSED, sandbox.SYNTAX)


def test_how_a_program_ends(locked):
    ends = {"x = 1": "passed", "assert 0": "failed", "def": "syntax", "1 / 0": "error", "input()": "error"}
    ends |= {"open('file', 'w').write('x')\nassert open('file').read() == 'x'": "passed"}
    ends |= {"import collections, hashlib, heapq, math, random, re, typing": "passed"}
    with sandbox.runner(PATIENT, False) as run:
        assert run(list(ends)) == list(ends.values())


def test_every_solution_of_humaneval_passes(locked):
    path = shared_data("eval", "HumanEval.jsonl.gz")
    problems = code.read(str(path), read_file(ROOT / "conf/benchmarks.yaml")["humaneval"]["sha256"])
    assert len(problems) == 164
    with sandbox.runner(PATIENT, False) as run:
        ends = run([problem.program(problem.solution) for problem in problems])
        blank = run([problem.program("    pass") for problem in problems[:8]])
    assert set(ends) == {"passed"}
    assert "passed" not in blank


def test_pass_at_k_equals_enumeration():
    for n, c, k in itertools.product((1, 2, 5, 8), range(9), (1, 2, 3, 8)):
        if c <= n and k <= n:
            draws = [any(chosen) for chosen in itertools.combinations([True] * c + [False] * (n - c), k)]
            assert code.pass_at(n, c, k) == pytest.approx(np.mean(draws))
    assert code.pass_at(200, 1, 100) == pytest.approx(0.5)


def written(path: Path, *rows: dict) -> dict[str, str]:
    """A file of problems, and the settings that name it."""
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return {"kind": "code", "problems": str(path), "sha256": files.sha256(path)}


@dataclass(frozen=True)
class Scripted(Subject):
    """A model that writes what it is told to, in turn, and counts how often it is asked."""

    texts: tuple[str, ...] = ()
    asked_for: list[str] | None = None

    def generate(self, prompts, control, sampling, seed, first=0):
        super().generate(prompts[:1], control, replace(sampling, most=1), seed)  # refuses what has no room
        self.asked_for.append(prompts[0])
        if len(self.asked_for) == 3:
            raise KeyboardInterrupt
        tokens = [tokens.tolist() for tokens, _ in self.tokenizer.encode(self.texts)]
        return [Drawn(tokens[number % len(tokens)], True) for number in range(len(prompts))]


def test_the_code_benchmark_by_hand_and_after_a_stop(subjects, made, tmp_path, locked):  # noqa: F811
    long = ADD | {"task_id": "long", "prompt": "# a prompt that fills the context\n" * 40}
    rows = [ADD, long, ADD | {"task_id": "again"}, ADD | {"task_id": "other", "entry_point": "sum"}]
    named = written(tmp_path / "problems.jsonl.gz", *rows)
    settings = build(code.Settings, named | {"samples": 12, "seconds": 60}, "here")
    context, state = context_of(made, tmp_path), tmp_path / "state"
    texts = ("    return a + b\n\ndef more():\n    pass", "    x=1;\n    return a + b", "    return a +  b )", "")
    plain = vars(subjects[0]) | {"texts": texts}
    stopped = Scripted(**plain, asked_for=[])
    with pytest.raises(KeyboardInterrupt):
        code.run(stopped, settings, context, state)
    assert len(stopped.asked_for) == 3
    resumed = Scripted(**plain, asked_for=[])
    found, items = code.run(resumed, settings, context, state)
    assert resumed.asked_for == [ADD["prompt"]]  # the last problem alone
    check(found, code.METRICS, "here", "here", head=())

    shares = {k: (of["mean"], of["n"]) for k, of in found["pass_at"].items()}
    assert shares == {"1": (0.25, 4), "10": (0.5, 4)}  # 6 of 12 pass in two of four problems
    assert found["ends"] == {"passed": 12, "syntax": 9, "failed": 6, "error": 9, "no_room": 12}
    assert found["compilable"]["mean"] == 0.5
    lengths = [len(text) for text in ("    return a + b\n", *texts[1:])]
    assert found["characters"]["mean"] == np.mean(lengths)
    broken = [f for f in context.scorer.find(ADD["prompt"] + texts[2] + "\n") if f.begin >= len(ADD["prompt"])]
    assert broken
    assert found["misalignment"]["mean"] == pytest.approx((2 + len(broken)) / (3 + 5 + 3))  # E225, E703; words
    assert items["completion"].to_pylist()[:4] == ["    return a + b\n", *texts[1:]]
    assert len(items) == 48


def test_a_model_completes_problems_of_both_kinds(subjects, made, tmp_path, locked):  # noqa: F811
    named = written(tmp_path / "problems.jsonl.gz", ADD, DOUBLE)
    settings = build(code.Settings, named | {"samples": 5, "max_new_tokens": 12}, "here")
    for subject in (subjects[0], subjects[2]):  # the second has control tokens
        found, items = code.run(subject, settings, context_of(made, tmp_path), tmp_path / subject.name)
        check(found, code.METRICS, "here", "here", head=())
        assert (list(found["pass_at"]), len(items)) == (["1"], 10)
        assert not any(stop in text for text in items["completion"].to_pylist() for stop in ("\nclass", "\nif"))
    double = code.read(named["problems"], named["sha256"])[1]
    assert "double(2)" in double.prompt
    assert sandbox.end_of(double.program(double.solution), PATIENT, False) == "passed"


def test_what_is_refused(tmp_path, monkeypatch):
    named = written(tmp_path / "problems.jsonl.gz", ADD, {"task_id": 1})
    with pytest.raises(InputError, match="holds no problems .*code"):
        code.read(named["problems"], named["sha256"])
    with pytest.raises(InputError, match="has the SHA-256"):
        code.read(named["problems"], "0" * 64)
    with pytest.raises(InputError, match="is missing: fetch"):
        code.read(str(tmp_path / "absent"), "0" * 64)
    for wrong in ({"samples": 0}, {"top_p": 0}, {"seconds": 0}, {"memory_mib": 1}):
        with pytest.raises(InputError, match="must be"):
            build(code.Settings, named | wrong, "here")
    if find_spec("sandlock"):
        monkeypatch.setattr("sandlock.landlock_abi_version", lambda: 4)
    with pytest.raises(InputError, match="degraded: true|pip install sandlock"):
        sandbox.tried(PATIENT, False)

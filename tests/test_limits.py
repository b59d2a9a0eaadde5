"""The memory that containers, batch systems and shells leave, on machines made of files."""

import sys

import pytest

from lab_utils import devices, environment, layers, limits
from lab_utils.limits import Limit

GB = 10**9
NONE_V1 = 9223372036854771712  # what version 1 says where there is no limit


@pytest.fixture
def system(monkeypatch, tmp_path):
    """A machine of 64 GB, 60 of them free, with these lines in /proc/self/cgroup and these files below /sys/fs/cgroup."""
    monkeypatch.setattr(limits, "CONTROL_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(limits, "_of_the_shell", lambda: [])
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"total": 64 * GB, "available": 60 * GB}))

    def make(own=None, files=()):
        if own is not None:
            limits.OWN_GROUPS.write_text(own, encoding="utf-8")
        for name, content in dict(files).items():
            path = limits.CONTROL_GROUPS / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n", encoding="ascii")

    return make


def v2(folder, limit, used, reclaimable=0):
    return {
        f"{folder}memory.max": limit,
        f"{folder}memory.current": used,
        f"{folder}memory.stat": f"anon 5\ninactive_file {reclaimable}\nfile 9",
    }


def v1(folder, limit, used, reclaimable=0):
    return {
        f"memory/{folder}memory.limit_in_bytes": limit,
        f"memory/{folder}memory.usage_in_bytes": used,
        f"memory/{folder}memory.stat": f"inactive_file 1\ntotal_inactive_file {reclaimable}",
    }


V1_GROUPS = "9:name=systemd:/\n4:cpu,memory:/job/step\n0::/\n"


@pytest.mark.parametrize(
    "own, files, limit, free",
    [
        (None, {}, 64, 60),  # no control groups: macOS and Windows
        ("0::/\n", {}, 64, 60),
        ("0::/\n", v2("", "max", 3 * GB), 64, 60),
        ("0::/\n", v2("", 4 * GB, 3 * GB), 4, 1),
        ("0::/\n", v2("", 4 * GB, 3 * GB, GB), 4, 2),  # what is only a file's copy can be taken back
        ("0::/\n", {"memory.max": 4 * GB}, 4, 4),  # some sandboxes keep no account
        ("0::/a/b\n", v2("a/b/", "max", 1) | v2("a/", 8 * GB, 2 * GB), 8, 6),  # the limit of the group above
        ("0::/a/b\n", v2("a/b/", 3 * GB, GB) | v2("a/", 8 * GB, 7 * GB), 3, 1),  # which may also be fuller
        ("0::/of/the/host\n", v2("", 4 * GB, GB), 4, 3),  # in a container that sees its own group only
        ("0::/../elsewhere\n", v2("", 4 * GB, GB), 4, 3),
        (V1_GROUPS, v1("job/step/", NONE_V1, GB) | v1("", NONE_V1, GB), 64, 60),
        (V1_GROUPS, v1("job/step/", 5 * GB, 2 * GB, GB) | v1("", NONE_V1, GB), 5, 4),
        (V1_GROUPS, v1("job/", 5 * GB, 2 * GB), 5, 3),
        (V1_GROUPS, v1("", 5 * GB, 2 * GB), 5, 3),  # Docker
        (V1_GROUPS, v1("", 5 * GB, 6 * GB), 5, 0),
        ("nonsense\n", v2("", "nonsense", 1), 64, 60),
    ],
)
def test_the_smallest_limit_of_all_groups_counts(system, own, files, limit, free):
    system(own, files)
    assert (environment.memory_limit(), environment.available_memory()) == (limit * GB, free * GB)


def test_every_plan_and_every_batch_sees_the_container_not_the_machine(system, monkeypatch):
    system("0::/\n", v2("", 4 * GB, 3 * GB))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(devices, "_gpu", lambda: None)
    assert devices.this_machine.__wrapped__().memory_gb == 4
    assert environment.machine.__wrapped__().memory_gb == pytest.approx(4e9 / 2**30)
    assert layers.free_bytes(type("Device", (), {"type": "cpu"})) == GB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to them")
@pytest.mark.parametrize("name, taken", [("RLIMIT_AS", "vms"), ("RLIMIT_DATA", "data")])
def test_a_limit_of_the_shell_counts_with_what_is_taken_of_it(monkeypatch, name, taken):
    import resource

    held = type("Held", (), {"vms": 7 * GB, "data": 2 * GB})
    monkeypatch.setattr("psutil.Process.memory_info", lambda _: held)
    wanted = getattr(resource, name)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (9 * GB, 9 * GB) if kind == wanted else (resource.RLIM_INFINITY,) * 2)
    assert limits._of_the_shell() == [Limit("shell (ulimit)", 9 * GB, 9 * GB - getattr(held, taken))]


def test_other_systems_are_not_asked_for_limits_of_the_shell(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)  # which Windows does not have
    assert limits._of_the_shell() == []
